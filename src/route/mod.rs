//! Pure decisions: which objects allow a session, and where it goes.
//!
//! No I/O, no clock, no async, and no word of Istio's YAML: [`crate::config::compile`] turns resources
//! into these tables, a worker asks them, and `portcullis explain` asks the same functions.
//!
//! The order of a decision is fixed (README, "How a request is decided"): registry, authorization, routes.

pub mod address;
pub mod authorization;
pub mod cluster;
pub mod host;
pub mod http;
pub mod path;
pub mod table;
pub mod trie;
