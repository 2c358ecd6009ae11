//! The gateway of the demo: this very program as a child process, with a configuration in a temporary folder.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{DemoError, cannot};

/// Longest wait for anything that the gateway does; it takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often the gateway is asked whether it has done it.
const POLL: Duration = Duration::from_millis(10);

/// A running gateway, killed if the demo ends early.
pub(super) struct Gateway {
    directory: TempDir,
    addresses: Addresses,
    child: Child,
    lines_told: usize,
}

#[derive(Clone, Copy)]
struct Addresses {
    https: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    /// Writes a configuration that allows nothing, starts the gateway with it, and waits until it is ready.
    pub(super) fn start(name: &str, authority_pem: &str) -> Result<Self, DemoError> {
        let directory = tempfile::tempdir().map_err(cannot("make a temporary folder"))?;
        let addresses = free_addresses().map_err(cannot("find free ports"))?;
        write_configuration(&directory, name, authority_pem, addresses).map_err(cannot("write the configuration"))?;
        let child = spawn(&directory).map_err(cannot("start the gateway"))?;
        let mut gateway = Self { directory, addresses, child, lines_told: 0 };
        gateway.wait("the gateway to be ready", |gateway| gateway.ask("/ready").map(drop))?;
        Ok(gateway)
    }

    /// The listener for clients that speak TLS.
    pub(super) fn https(&self) -> SocketAddr {
        self.addresses.https
    }

    /// The listener for clients that speak plain HTTP.
    pub(super) fn http(&self) -> SocketAddr {
        self.addresses.http
    }

    /// The child's process id.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Puts these resources in force, or none, and returns the generation in which they are.
    pub(super) fn apply(&mut self, resources: &str) -> Result<u64, DemoError> {
        let before = self.wait("the generation", |gateway| gateway.generation())?;
        let file = self.directory.path().join("resources.d/googleapis.yaml");
        if resources.is_empty() { fs::remove_file(file) } else { fs::write(file, resources) }
            .map_err(cannot("write the resources"))?;
        self.signal(Signal::HUP).map_err(cannot("signal the gateway"))?;
        self.wait("the reload", |gateway| gateway.generation().filter(|generation| *generation > before))
    }

    /// The next line of the access log.
    pub(super) fn next_log_line(&mut self) -> Result<String, DemoError> {
        let told = self.lines_told;
        let line = self.wait("a line of the access log", |gateway| {
            let log = fs::read_to_string(gateway.directory.path().join("access.log")).ok()?;
            log.split_inclusive('\n').nth(told).and_then(|line| line.strip_suffix('\n')).map(str::to_owned)
        })?;
        self.lines_told += 1;
        Ok(line)
    }

    /// Drains the gateway and waits for its end.
    pub(super) fn stop(mut self) -> Result<(), DemoError> {
        self.signal(Signal::TERM).map_err(cannot("signal the gateway"))?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.child.try_wait().map_err(cannot("wait for the gateway"))? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => return Err(DemoError::GatewayEnded(self.diagnostics())),
                None if Instant::now() < deadline => pause(),
                None => return Err(self.silence("the gateway to end")),
            }
        }
    }

    fn wait<T>(&mut self, what: &'static str, ready: impl Fn(&Self) -> Option<T>) -> Result<T, DemoError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = ready(self) {
                return Ok(answer);
            }
            if self.child.try_wait().map_err(cannot("wait for the gateway"))?.is_some() {
                return Err(DemoError::GatewayEnded(self.diagnostics()));
            }
            if Instant::now() > deadline {
                return Err(self.silence(what));
            }
            pause();
        }
    }

    fn generation(&self) -> Option<u64> {
        let info: serde_json::Value = serde_json::from_str(&self.ask("/server_info")?).ok()?;
        info.get("generation")?.as_u64()
    }

    /// The body of a 200 answer of the admin endpoint.
    fn ask(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect_timeout(&self.addresses.admin, DEADLINE).ok()?;
        socket.set_read_timeout(Some(DEADLINE)).ok()?;
        let host = self.addresses.admin;
        // HTTP/1.0: the answer has no chunks and ends with the connection.
        write!(socket, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        (head.split(' ').nth(1) == Some("200")).then(|| body.to_owned())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    fn silence(&self, what: &'static str) -> DemoError {
        DemoError::Silence { what, diagnostics: self.diagnostics() }
    }

    fn diagnostics(&self) -> String {
        fs::read_to_string(self.directory.path().join("diagnostics")).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only if it has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three ports that are free now. They are released before the gateway binds them: should another program take one in
/// between, the gateway says so and the demo fails.
fn free_addresses() -> io::Result<Addresses> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = [bind()?, bind()?, bind()?];
    let [https, http, admin] = held.each_ref().map(TcpListener::local_addr);
    Ok(Addresses { https: https?, http: http?, admin: admin? })
}

fn write_configuration(directory: &TempDir, name: &str, authority_pem: &str, addresses: Addresses) -> io::Result<()> {
    let Addresses { https, http, admin } = addresses;
    let bootstrap = format!(
        "\
workers: 1
listeners:
- {{name: tls, bind: '{https}', servicePort: 443}}
- {{name: http, bind: '{http}', servicePort: 80}}
resources: [resources.d]
meshConfig: {{accessLogFile: access.log}}
dns: {{hosts: {{{name}: [127.0.0.1]}}}}
tls: {{caCertificates: authority.pem}}
admin: {{bind: '{admin}'}}
"
    );
    fs::write(directory.path().join("portcullis.yaml"), bootstrap)?;
    fs::write(directory.path().join("authority.pem"), authority_pem)?;
    fs::create_dir(directory.path().join("resources.d"))
}

fn spawn(directory: &TempDir) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["run", "--config"])
        .arg(directory.path().join("portcullis.yaml"))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(directory.path().join("diagnostics"))?)
        .spawn()
}

/// Receives from nobody: a bounded pause.
fn pause() {
    let (_silent, channel) = mpsc::channel::<()>();
    let _ = channel.recv_timeout(POLL);
}
