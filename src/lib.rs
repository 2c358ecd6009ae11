//! portcullis: a node-level egress gateway.

pub mod cli;
pub mod config;
pub mod control;
pub mod failure;
pub mod limits;
pub mod net;
pub mod relay;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod telemetry;
pub mod upstream;
pub mod wire;
pub mod worker;
