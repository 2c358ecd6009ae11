//! The command line: one file per verb, each a function from its arguments to an exit code.

mod check;
mod demo;
mod explain;
mod get;
mod observe;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// A node-level egress gateway: nothing leaves the node through it unless an Istio resource says so.
#[derive(Debug, Parser)]
#[command(name = "portcullis", disable_version_flag = true, arg_required_else_help = true)]
struct Arguments {
    /// Form of the diagnostics on stderr.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,

    /// Least severe diagnostics to show: error, warn, info, debug or trace, also per module.
    #[arg(long, global = true, env = "PORTCULLIS_LOG", default_value = "info")]
    log_level: String,

    /// Print version, commit and the I/O driver that this kernel offers.
    #[arg(short = 'V', long, action = clap::ArgAction::SetTrue)]
    version: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground.
    Run(run::Run),
    /// Load everything, report all findings, change nothing.
    Check(check::Check),
    /// Say which objects decide a request, and where it would go.
    Explain(explain::Explain),
    /// Show what the running gateway enforces now.
    Get(get::Get),
    /// Print ServiceEntries that would allow what the running gateway has denied since its start.
    Observe(observe::Observe),
    /// The whole story on this machine, without network or configuration.
    Demo(demo::Demo),
}

/// `--config`, as every verb that reads a configuration takes it.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The bootstrap file.
    #[arg(long, env = "PORTCULLIS_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

impl ConfigFile {
    /// What holds where no `--config` is given.
    fn from_environment() -> PathBuf {
        std::env::var_os("PORTCULLIS_CONFIG").map_or_else(|| PathBuf::from(DEFAULT_CONFIG), PathBuf::from)
    }
}

/// Where the bootstrap file is unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/portcullis/portcullis.yaml";

/// Form of what a verb reports on stdout.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Exit code for bad usage, as clap's own.
const BAD_USAGE: u8 = 2;

/// Reads the arguments, runs the verb, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to stdout and are no errors; nothing more can be done if printing fails.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(BAD_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if arguments.version {
        println!("{}", crate::control::version::describe());
        return ExitCode::SUCCESS;
    }
    let Some(command) = arguments.command else {
        eprintln!("portcullis: no command given; try --help");
        return ExitCode::from(BAD_USAGE);
    };
    if let Err(error) = start_diagnostics(arguments.log_format, &arguments.log_level) {
        eprintln!("portcullis: --log-level: {error}");
        return ExitCode::from(BAD_USAGE);
    }
    match command {
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
        Command::Explain(explain) => explain.execute(),
        Command::Get(get) => get.execute(),
        Command::Observe(observe) => observe.execute(),
        Command::Demo(demo) => demo.execute(),
    }
}

fn start_diagnostics(format: LogFormat, level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    // h2 warns of every peer that misbehaves, as often as it likes to.
    let filter = tracing_subscriber::EnvFilter::builder().parse(format!("h2=error,{level}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let builder = builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
