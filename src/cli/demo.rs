//! `portcullis demo`.

use std::process::ExitCode;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {}

impl Demo {
    /// Runs the verb.
    pub(super) fn execute(self) -> ExitCode {
        ExitCode::FAILURE
    }
}
