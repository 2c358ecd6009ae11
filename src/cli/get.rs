//! `portcullis get`.

use std::process::ExitCode;

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(super) struct Get {}

impl Get {
    /// Runs the verb.
    pub(super) fn execute(self) -> ExitCode {
        ExitCode::FAILURE
    }
}
