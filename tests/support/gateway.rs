//! The gateway under test: the real binary with a configuration, ports and files of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::certificates::Authority;
use super::client::{Http, Response};
use super::log::Log;
use super::wait_until;

/// A gateway to be; see [`Gateway::builder`].
pub(crate) struct Builder {
    directory: TempDir,
    resources: String,
    hosts: Vec<(String, Ipv4Addr)>,
    roots: String,
    workers: usize,
    mesh: String,
    dns: String,
    tls: String,
    settings: String,
    listener: &'static str,
    listeners: String,
    descriptors: Option<u32>,
    everywhere: bool,
}

/// A running gateway; it is killed when the test ends.
pub(crate) struct Gateway {
    directory: TempDir,
    ports: Ports,
    child: Child,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Builder {
    /// The Istio resources to start with.
    pub(crate) fn resources(mut self, yaml: impl Into<String>) -> Self {
        self.resources = yaml.into();
        self
    }

    /// Says in `dns.hosts` that `name` is 127.0.0.1.
    pub(crate) fn host(self, name: &str) -> Self {
        self.host_at(name, Ipv4Addr::LOCALHOST)
    }

    /// Says in `dns.hosts` where `name` is.
    pub(crate) fn host_at(mut self, name: &str, address: Ipv4Addr) -> Self {
        self.hosts.push((name.to_owned(), address));
        self
    }

    /// Verifies upstreams against `authority`.
    pub(crate) fn trust(mut self, authority: &Authority) -> Self {
        authority.pem().clone_into(&mut self.roots);
        self
    }

    /// Runs this many workers instead of one.
    pub(crate) fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Adds lines to `meshConfig`, indented by two.
    pub(crate) fn mesh(mut self, lines: &str) -> Self {
        self.mesh.push_str(lines);
        self
    }

    /// Adds lines to `dns`, indented by two.
    pub(crate) fn dns(mut self, lines: &str) -> Self {
        self.dns.push_str(lines);
        self
    }

    /// Adds lines to `tls`, indented by two.
    pub(crate) fn tls_setting(mut self, lines: &str) -> Self {
        self.tls.push_str(lines);
        self
    }

    /// Adds lines to the top level of the bootstrap file.
    pub(crate) fn setting(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self
    }

    /// Listens on every address of the machine.
    pub(crate) fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// Serves the servers of Gateways on both listeners, instead of the mesh's routes.
    pub(crate) fn at_gateways(mut self) -> Self {
        self.listener = "  gateway: true\n";
        self
    }

    /// Adds a listener, as an entry of the list.
    pub(crate) fn extra_listener(mut self, entry: &str) -> Self {
        self.listeners.push_str(entry);
        self
    }

    /// Adds a listener for captured traffic.
    pub(crate) fn capture(mut self, bind: &str, how: &str) -> Self {
        writeln!(self.listeners, "- {{name: '{how} {bind}', bind: '{bind}', capture: {how}}}").expect("a string");
        self
    }

    /// Lets the gateway have this many descriptors and no more.
    pub(crate) fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// Puts a file beside the bootstrap file.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder is ours");
        fs::write(path, content).expect("the folder is ours");
        self
    }

    /// Does something to the folder of the bootstrap file.
    pub(crate) fn prepare(self, change: impl FnOnce(&Path)) -> Self {
        change(self.directory.path());
        self
    }

    /// Starts the gateway and waits until it is ready.
    ///
    /// # Panics
    /// With its diagnostics when it does not start.
    #[track_caller]
    pub(crate) fn start(self) -> Gateway {
        let ports = Ports::reserve();
        fs::write(self.directory.path().join("portcullis.yaml"), self.bootstrap(&ports)).expect("the folder is ours");
        fs::write(self.directory.path().join("roots.pem"), &self.roots).expect("the folder is ours");
        fs::create_dir_all(self.directory.path().join("resources.d")).expect("the folder is ours");
        write_resources(self.directory.path(), &self.resources);
        let mut gateway = Gateway::spawn(self.directory, ports, self.descriptors);
        gateway.wait_ready();
        gateway
    }

    fn bind(&self, address: SocketAddrV4) -> SocketAddrV4 {
        let ip = if self.everywhere { Ipv4Addr::UNSPECIFIED } else { *address.ip() };
        SocketAddrV4::new(ip, address.port())
    }

    fn bootstrap(&self, ports: &Ports) -> String {
        let mut hosts = String::new();
        for (name, address) in &self.hosts {
            writeln!(hosts, "    {name}: [{address}]").expect("a string takes everything");
        }
        let hosts = if hosts.is_empty() { String::new() } else { format!("  hosts:\n{hosts}") };
        let dns = if hosts.is_empty() && self.dns.is_empty() { "  hosts: {}\n" } else { &self.dns };
        format!(
            "workers: {workers}
listeners:
- name: tls
  bind: {tls}
  servicePort: 443
{listener}- name: http
  bind: {http}
  servicePort: 80
{listener}{listeners}resources: [resources.d]
meshConfig:
  accessLogFile: access.log
{mesh}dns:
{hosts}{dns}tls:
  caCertificates: roots.pem
{tls_settings}admin: {{bind: {admin}}}
{settings}",
            workers = self.workers,
            tls = self.bind(ports.tls.address),
            http = self.bind(ports.http.address),
            admin = ports.admin.address,
            mesh = self.mesh,
            tls_settings = self.tls,
            settings = self.settings,
            listener = self.listener,
            listeners = self.listeners,
        )
    }
}

impl Gateway {
    /// A gateway with one worker that allows nothing.
    pub(crate) fn builder() -> Builder {
        Builder {
            directory: tempfile::tempdir().expect("a writable temporary folder"),
            resources: String::new(),
            hosts: Vec::new(),
            roots: Authority::new().pem().to_owned(),
            workers: 1,
            mesh: String::new(),
            dns: String::new(),
            tls: String::new(),
            settings: String::new(),
            listener: "",
            listeners: String::new(),
            descriptors: None,
            everywhere: false,
        }
    }

    fn spawn(directory: TempDir, ports: Ports, descriptors: Option<u32>) -> Self {
        let mut child = descriptors
            .map_or_else(command, limited_command)
            .args(["run", "--config"])
            .arg(directory.path().join("portcullis.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let stderr = Arc::new(Mutex::new(String::new()));
        let source = child.stderr.take().expect("stderr is piped");
        let target = Arc::clone(&stderr);
        let stderr_reader = Some(thread::spawn(move || collect(source, &target)));
        Self { directory, ports, child, stderr, stderr_reader }
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        wait_until("the gateway to be ready", || {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                panic!("the gateway ended with {status}:\n{}", self.diagnostics());
            }
            self.ask("/ready").filter(|response| response.status == 200)
        });
    }

    /// Where TLS clients connect.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.ports.tls.address.into()
    }

    /// Where HTTP clients connect.
    pub(crate) fn http(&self) -> SocketAddr {
        self.ports.http.address.into()
    }

    /// A client of the HTTP listener.
    pub(crate) fn client(&self) -> Http {
        Http::connect(self.http())
    }

    /// The admin endpoint, as `--admin` takes it.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.ports.admin.address.into()
    }

    /// The access log.
    pub(crate) fn log(&self) -> Log {
        Log::new(&self.directory.path().join("access.log"))
    }

    /// The bootstrap file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("portcullis.yaml")
    }

    /// The folder of the bootstrap file.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the gateway wrote to stderr so far.
    pub(crate) fn diagnostics(&self) -> String {
        self.stderr.lock().expect("the reader does not panic").clone()
    }

    /// Waits until stderr contains `text`.
    #[track_caller]
    pub(crate) fn wait_for_diagnostic(&self, text: &str) {
        wait_until(&format!("{text:?} on stderr"), || self.diagnostics().contains(text).then_some(()));
    }

    /// Asks the admin endpoint; `None` if nobody answers.
    pub(crate) fn ask(&self, path: &str) -> Option<Response> {
        let mut client = Http::try_connect(self.admin()).ok()?;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin()));
        client.try_response().ok()
    }

    /// The value of a metric, named with its labels as the exposition format writes them; `None`: not there.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let response = self.ask("/metrics")?;
        let line =
            response.text().lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The number of the configuration in force.
    pub(crate) fn generation(&self) -> u64 {
        let response = self.ask("/server_info").expect("the admin endpoint answers");
        let info: serde_json::Value = serde_json::from_slice(&response.body).expect("/server_info is JSON");
        info["generation"].as_u64().unwrap_or_else(|| panic!("no generation in {info}"))
    }

    /// Replaces the resources and does not tell the gateway.
    pub(crate) fn write_resources(&self, yaml: &str) {
        write_resources(self.directory.path(), yaml);
    }

    /// Replaces the resources, sends SIGHUP, and waits until the new ones are in force.
    #[track_caller]
    pub(crate) fn reload(&self, yaml: &str) {
        let before = self.generation();
        self.write_resources(yaml);
        self.signal(Signal::HUP);
        wait_until("the new configuration to be in force", || (self.generation() > before).then_some(()));
    }

    /// Replaces the resources by bad ones, sends SIGHUP, and waits until the gateway has said no.
    #[track_caller]
    pub(crate) fn reload_in_vain(&self, yaml: &str) {
        assert!(!self.try_reload(yaml), "the gateway took the bad resources");
    }

    /// Replaces the resources, sends SIGHUP, and waits for the gateway's decision: whether they are in force.
    ///
    /// Tells a refusal from an earlier one only if the last reload succeeded.
    #[track_caller]
    pub(crate) fn try_reload(&self, yaml: &str) -> bool {
        let before = self.generation();
        self.write_resources(yaml);
        self.signal(Signal::HUP);
        wait_until("the gateway to decide", || {
            let refused = self.metric("portcullis_config_last_reload_successful") == Some(0.0);
            let taken = self.generation() > before;
            (taken || refused).then_some(taken)
        })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the child is ours and has not been reaped");
    }

    /// Waits for the process to end.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        wait_until("the gateway to end", || self.child.try_wait().expect("the child is ours"))
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// The number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// The descriptors that the process has open.
    pub(crate) fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process runs").count()
    }

    /// The processor time that the process has used, in ticks of a hundredth of a second.
    pub(crate) fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process runs");
        let (_, fields) = stat.rsplit_once(')').expect("proc(5) puts the name in parentheses");
        let ticks = |index| fields.split_whitespace().nth(index).and_then(|word| word.parse::<u64>().ok());
        ticks(11).zip(ticks(12)).map(|(user, system)| user + system).expect("utime and stime are numbers")
    }

    /// The most memory that the process ever held, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// The memory that the process holds now, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("proc(5) has these lines");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of kB")
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.stderr_reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            eprintln!("--- stderr of the gateway\n{}", self.diagnostics());
            eprintln!("--- its access log\n{}", self.log().text());
        } else {
            assert!(!self.diagnostics().contains("panicked at"), "a worker panicked:\n{}", self.diagnostics());
        }
    }
}

/// The binary, with nothing of the environment that would change what it does.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.env_remove("PORTCULLIS_CONFIG").env_remove("PORTCULLIS_LOG").env_remove("NOTIFY_SOCKET");
    command
}

/// The same with a limit on descriptors; the shell is replaced by the gateway, which keeps its process id.
fn limited_command(descriptors: u32) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(env!("CARGO_BIN_EXE_portcullis"));
    shell.env_remove("PORTCULLIS_CONFIG").env_remove("PORTCULLIS_LOG").env_remove("NOTIFY_SOCKET");
    shell
}

fn write_resources(directory: &Path, yaml: &str) {
    // Renamed into place, so that a reload in the middle of the test's own writing reads one or the other.
    let draft = directory.join("resources.draft");
    fs::write(&draft, yaml).expect("the folder is ours");
    fs::rename(draft, directory.join("resources.d/resources.yaml")).expect("the folder is ours");
}

fn collect(mut source: impl Read, target: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        target.lock().expect("readers do not panic").push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

/// The ports of one gateway.
struct Ports {
    tls: Port,
    http: Port,
    admin: Port,
}

/// A port that nobody else is given while this lives.
pub(crate) struct Port {
    address: SocketAddrV4,
    _reservation: OwnedFd,
}

impl Ports {
    fn reserve() -> Self {
        Self { tls: Port::reserve(), http: Port::reserve(), admin: Port::reserve() }
    }
}

impl Port {
    /// Binds a port without listening. The kernel then gives it to no other test that asks for any free port, but the
    /// gateway, which asks for this one, may share it: with `SO_REUSEPORT`, or with `SO_REUSEADDR`, as nobody listens.
    pub(crate) fn reserve() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor is left");
        sockopt::set_socket_reuseport(&socket, true).expect("Linux has SO_REUSEPORT");
        sockopt::set_socket_reuseaddr(&socket, true).expect("Linux has SO_REUSEADDR");
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = rustix::net::getsockname(&socket).expect("a bound socket has an address");
        Self { address: address.try_into().expect("it was bound to IPv4"), _reservation: socket }
    }

    /// The number: of a port at which connections are refused.
    pub(crate) fn number(&self) -> u16 {
        self.address.port()
    }
}
