//! The catalogue of attacks: what is refused never reaches an upstream, what is allowed arrives byte for byte, every
//! attempt is one line of the access log, and good traffic goes on meanwhile.

#[path = "../support/mod.rs"]
mod support;

mod catalogue;
mod certificates;
mod dns;
mod exhaustion;
mod fields;
mod floods;
mod frames;
mod hello;
mod http2;
mod memory;
mod names;
mod network;
mod operations;
mod paths;
mod requests;
mod responses;
mod scene;
mod slow;
mod stub;
