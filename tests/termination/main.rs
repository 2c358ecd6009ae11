//! Servers of Gateways at which the TLS of clients ends: `tls.mode` SIMPLE and MUTUAL.

#[path = "../support/mod.rs"]
mod support;

mod check;
#[path = "../hostile/frames.rs"]
mod frames;
mod hostile;
mod http2;
mod mutual;
mod reload;
mod scene;
mod servers;
mod simple;
mod tcp;
