//! `portcullis explain`: which objects decide a request, and where it would go. Never touches the network.
//!
//! The request is written out as a client would send it, read by the parser of the sessions, and judged by
//! [`crate::route::decide`], as theirs are. Nothing is decided here.

mod answer;
mod notes;
mod places;
mod question;
mod tcp;
mod traffic;
mod verdict;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::finding::Finding;
use crate::config::{Loaded, Loader};
use crate::snapshot::Snapshot;

use super::{BAD_USAGE, ConfigFile, Output, check};
use question::{Header, Question};
use verdict::Explainer;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "portcullis explain [OPTIONS] [PATH]... <URL>")]
pub(super) struct Explain {
    /// The bootstrap file [default: $PORTCULLIS_CONFIG, then /etc/portcullis/portcullis.yaml].
    #[arg(long)]
    config: Option<PathBuf>,

    /// Istio files or folders in place of the bootstrap file's `resources`, then the URL: https://HOST[:PORT] is a
    /// client that speaks TLS, http://HOST[:PORT][/PATH] plain HTTP, tcp://IP:PORT a captured connection.
    #[arg(value_name = "PATH|URL", required = true)]
    paths_and_url: Vec<String>,

    /// Method of a plain HTTP request.
    #[arg(long, default_value = "GET")]
    method: String,

    /// Header of a plain HTTP request, as 'NAME: VALUE'.
    #[arg(long)]
    header: Vec<Header>,

    /// Address of the client, for policies that look at it.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    source: IpAddr,

    /// Form of the answer on stdout.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

impl Explain {
    /// Runs the verb: 0 allowed, 1 denied, 2 bad usage or configuration.
    pub(super) fn execute(self) -> ExitCode {
        let (url, paths) = match self.paths_and_url.split_last() {
            Some((url, paths)) => (url, paths.iter().map(PathBuf::from).collect::<Vec<_>>()),
            None => return bad_usage("no URL given"),
        };
        let question = match Question::read(url, &self.method, &self.header) {
            Ok(question) => question,
            Err(reason) => return bad_usage(&format!("{url}: {reason}")),
        };
        let every_port_listens = self.config.is_none() && !paths.is_empty();
        let loaded = match self.load(&paths) {
            Ok(loaded) => loaded,
            Err(findings) => return bad_configuration(&findings),
        };
        let snapshot = Snapshot { generation: 1, routes: loaded.routes, settings: loaded.settings };
        let bootstrap = loaded.bootstrap;
        let explainer = Explainer { snapshot: &snapshot, bootstrap: &bootstrap, source: self.source };
        let answer = explainer.answer(&question, every_port_listens);
        let text = match self.output {
            Output::Text => answer.to_string(),
            Output::Json => answer.to_json(),
        };
        // A closed pipe is the reader's choice; the exit code still tells.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        if answer.is_allowed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn load(&self, paths: &[PathBuf]) -> Result<Loaded, Vec<Finding>> {
        let mut loader = Loader::default();
        match (&self.config, paths) {
            (None, []) => loader.load(&ConfigFile::from_environment()),
            (None, paths) => loader.load_paths(paths),
            (Some(config), []) => loader.load(config),
            (Some(config), paths) => loader.load_with(config, paths),
        }
    }
}

fn bad_usage(reason: &str) -> ExitCode {
    eprintln!("portcullis: {reason}");
    ExitCode::from(BAD_USAGE)
}

fn bad_configuration(findings: &[Finding]) -> ExitCode {
    eprint!("{}", check::text(findings));
    eprintln!("portcullis: the configuration cannot take force, so there is nothing to explain");
    ExitCode::from(BAD_USAGE)
}
