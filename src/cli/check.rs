//! `portcullis check`.

use std::process::ExitCode;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Check {}

impl Check {
    /// Runs the verb.
    pub(super) fn execute(self) -> ExitCode {
        ExitCode::FAILURE
    }
}
