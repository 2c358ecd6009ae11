//! What is told about sessions: one record each, an access-log line, and counters.
//!
//! A worker fills its own [`record::Record`]s, formats its own lines and counts in its own
//! [`metrics::Counters`]; only finished batches and copies leave it.

pub mod access_log;
pub mod batch;
mod escape;
pub mod exposition;
mod field;
pub mod format;
mod labels;
pub mod log_writer;
pub mod metrics;
pub mod record;
pub mod report;
pub mod tally;
