//! `portcullis run`.

use std::process::ExitCode;

use super::ConfigFile;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
}

impl Run {
    /// Runs the verb: 0 after a drain or SIGINT, 1 for a bad configuration.
    pub(super) fn execute(self) -> ExitCode {
        crate::control::run(&self.file.config)
    }
}
