//! Servers of Gateways at which the TLS of clients ends: `tls.mode` SIMPLE and MUTUAL.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod hostile;
mod mutual;
mod reload;
mod scene;
mod servers;
mod simple;
