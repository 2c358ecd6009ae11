//! `portcullis run`.

use std::process::ExitCode;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Run {}

impl Run {
    /// Runs the verb.
    pub(super) fn execute(self) -> ExitCode {
        ExitCode::FAILURE
    }
}
