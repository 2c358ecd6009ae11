//! `portcullis demo`: the whole story on this machine, without network or configuration.
//!
//! An embedded HTTPS service stands in for www.googleapis.com, a child process is the gateway, and this process is the
//! workload. Nothing is simulated: the gateway reads files, takes signals and writes its access log as it would on a
//! node. Every step says what it expects and the demo fails when something else happens.

mod gateway;
mod resources;
mod service;
mod workload;

use std::process::ExitCode;

use thiserror::Error;

use gateway::Gateway;
use resources::{NAME, originate, pass_through};
use service::Service;
use workload::{Outcome, Workload};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {}

impl Demo {
    /// Runs the verb.
    pub(super) fn execute(self) -> ExitCode {
        match tell() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("portcullis demo: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Why the story did not end well.
#[derive(Debug, Error)]
enum DemoError {
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: std::io::Error },
    #[error("cannot make certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the gateway ended early, saying:\n{0}")]
    GatewayEnded(String),
    #[error("waited in vain for {what}; the gateway says:\n{diagnostics}")]
    Silence { what: &'static str, diagnostics: String },
    #[error("{request}: expected {expected}, got {found}")]
    Misbehaved { request: String, expected: String, found: String },
}

/// Says what was being done when the system refused.
fn cannot(what: &'static str) -> impl FnOnce(std::io::Error) -> DemoError {
    move |source| DemoError::System { what, source }
}

const BOOKS: &str = "/books/v1/volumes?q=isbn:0486424618";
const DRIVE: &str = "/drive/v3/files";

fn tell() -> Result<(), DemoError> {
    let service = Service::start(NAME)?;
    let mut gateway = Gateway::start(NAME, service.authority_pem())?;
    let workload = Workload::new(NAME, &service, gateway.https(), gateway.http())?;
    let mut story = Story { gateway: &mut gateway, workload };
    println!("A workload, the gateway, and a service that stands in for {NAME}. Nothing leaves this machine.");

    println!("\n1. No resource names {NAME}: nothing passes.");
    story.https(BOOKS, &Outcome::Alert)?;
    story.http(BOOKS, &Outcome::Status(502))?;

    println!("\n2. TLS passthrough: the client encrypts, the gateway reads only the server name.");
    story.apply(&pass_through(service.port()))?;
    story.https(BOOKS, &Outcome::Status(200))?;

    println!("\n3. TLS origination: the client speaks plain HTTP, the gateway sees the path and encrypts. Books only.");
    story.apply(&originate(service.port()))?;
    story.http(BOOKS, &Outcome::Status(200))?;
    story.http(DRIVE, &Outcome::Status(404))?;

    println!("\n4. The resources are deleted: nothing passes again.");
    story.apply("")?;
    story.https(BOOKS, &Outcome::Alert)?;
    story.http(BOOKS, &Outcome::Status(502))?;

    gateway.stop()?;
    println!("\nEvery step behaved.");
    Ok(())
}

struct Story<'a> {
    gateway: &'a mut Gateway,
    workload: Workload,
}

impl Story<'_> {
    /// Writes the resources and has the gateway reload.
    fn apply(&mut self, resources: &str) -> Result<(), DemoError> {
        match resources {
            "" => println!("   $ rm resources.d/{NAME}.yaml; kill -HUP {}", self.gateway.process()),
            yaml => {
                println!("   $ cat > resources.d/{NAME}.yaml; kill -HUP {}", self.gateway.process());
                yaml.lines().for_each(|line| println!("     {line}"));
            }
        }
        let generation = self.gateway.apply(resources)?;
        println!("   generation {generation} is in force");
        Ok(())
    }

    fn https(&mut self, path: &str, expected: &Outcome) -> Result<(), DemoError> {
        let found = self.workload.https(path);
        self.told("https", path, expected, &found)
    }

    fn http(&mut self, path: &str, expected: &Outcome) -> Result<(), DemoError> {
        let found = self.workload.http(path);
        self.told("http", path, expected, &found)
    }

    /// Prints a request, what became of it, and the gateway's line about it.
    fn told(&mut self, scheme: &str, path: &str, expected: &Outcome, found: &Outcome) -> Result<(), DemoError> {
        let request = format!("{scheme}://{NAME}{path}");
        println!("   $ curl '{request}'");
        println!("     {found}");
        if found != expected {
            return Err(DemoError::Misbehaved { request, expected: expected.to_string(), found: found.to_string() });
        }
        println!("     log: {}", self.gateway.next_log_line()?);
        Ok(())
    }
}
