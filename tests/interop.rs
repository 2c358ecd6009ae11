//! Programs that others wrote, as clients and as upstreams. Where one is not installed its test says so and the rest of
//! the suite, whose ends are rustls, holds what it would show.

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use support::certificates::{Authority, Identity};
use support::client;
use support::gateway::{Gateway, Port};
use support::pattern::{self, Checker, intact};
use support::resources::{self, GOOGLEAPIS};
use support::service;
use support::upstream::Upstream;
use support::wait_until;

/// Starts a program, or says that it cannot be tested with.
fn spawn(program: &mut Command) -> Option<Child> {
    match program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("NOT TESTED: {} is not installed", program.get_program().display());
            None
        }
        Err(error) => panic!("{program:?}: {error}"),
    }
}

/// Runs a client to its end; what it printed.
fn run(program: &mut Command, input: &str) -> Option<String> {
    let mut child = spawn(program)?;
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).expect("the program reads");
    let output = child.wait_with_output().expect("the child is ours");
    assert!(output.status.success(), "{program:?} ended with {}", output.status);
    Some(String::from_utf8(output.stdout).expect("answers are text"))
}

/// A web site, and the gateway that lets TLS to it through; its `roots.pem` is the site's authority.
fn passthrough() -> (Upstream, Gateway) {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let yaml = resources::passthrough(upstream.port());
    let gateway = Gateway::builder().host(GOOGLEAPIS).trust(&authority).resources(yaml).start();
    (upstream, gateway)
}

fn curl(gateway: &Gateway, url: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--cacert"])
        .arg(gateway.directory().join("roots.pem"))
        .args(["--connect-to", &format!("::{}", if url.starts_with("https") { gateway.tls() } else { gateway.http() })])
        .arg(url);
    curl
}

#[test]
fn curl_passes_with_tls() {
    let (_upstream, gateway) = passthrough();
    let Some(output) = run(&mut curl(&gateway, &format!("https://{GOOGLEAPIS}/books")), "") else { return };
    assert!(output.contains("GET /books HTTP/1.1\r\n"), "{output}");
}

#[test]
fn curl_ends_with_35_where_tls_is_blocked() {
    let gateway = Gateway::builder().start();
    let Some(mut child) = spawn(&mut curl(&gateway, "https://blocked.example/")) else { return };
    // CURLE_SSL_CONNECT_ERROR, as users of Istio know it.
    assert_eq!(child.wait().expect("the child is ours").code(), Some(35));
}

#[test]
fn openssl_s_client_passes() {
    let (_upstream, gateway) = passthrough();
    let mut openssl = Command::new("openssl");
    openssl
        .args(["s_client", "-quiet", "-verify_return_error", "-servername", GOOGLEAPIS, "-connect"])
        .arg(gateway.tls().to_string())
        .arg("-CAfile")
        .arg(gateway.directory().join("roots.pem"));
    let request = format!("GET /books HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\nConnection: close\r\n\r\n");
    let Some(output) = run(&mut openssl, &request) else { return };
    assert!(output.contains("GET /books HTTP/1.1\r\n"), "{output}");
}

/// nginx with a certificate, serving a file and saying which server name it was asked for.
struct Nginx {
    child: Child,
    port: Port,
    _directory: TempDir,
}

const FILE_BYTES: u64 = 3_000_000;

impl Nginx {
    fn start(identity: &Identity) -> Option<Self> {
        let port = Port::reserve();
        let directory = tempfile::tempdir().expect("a writable temporary folder");
        let write = |name, content: &[u8]| fs::write(directory.path().join(name), content).expect("the folder is ours");
        write("nginx.conf", nginx_configuration(port.number()).as_bytes());
        write("cert.pem", identity.certificate_pem.as_bytes());
        write("key.pem", identity.key_pem.as_bytes());
        write("file", &pattern::bytes(FILE_BYTES));
        // Where /usr/sbin is not on the path of ordinary users, it is still where nginx is.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = spawn(Command::new("nginx").env("PATH", path).arg("-p").arg(directory.path()).args([
            "-c",
            "nginx.conf",
            "-e",
            "stderr",
        ]))?;
        wait_until("nginx to listen", || TcpStream::connect(("127.0.0.1", port.number())).ok());
        Some(Self { child, port, _directory: directory })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nginx_configuration(port: u16) -> String {
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path temp;
  proxy_temp_path temp;
  fastcgi_temp_path temp;
  uwsgi_temp_path temp;
  scgi_temp_path temp;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate cert.pem;
    ssl_certificate_key key.pem;
    root .;
    location /name {{ return 200 \"$ssl_server_name $host $request_uri\"; }}
  }}
}}
"
    )
}

#[test]
fn nginx_is_reached_with_originated_tls() {
    let authority = Authority::new();
    let Some(nginx) = Nginx::start(&authority.issue(GOOGLEAPIS)) else { return };
    let yaml = resources::origination(nginx.port.number());
    let gateway = Gateway::builder().host(GOOGLEAPIS).trust(&authority).resources(yaml).start();
    let mut client = gateway.client();
    assert_eq!(client.get(GOOGLEAPIS, "/name?q=1").text(), "www.googleapis.com www.googleapis.com /name?q=1");
    let mut checker = Checker::default();
    checker.feed(&client.get(GOOGLEAPIS, "/file").body);
    assert_eq!(checker.verdict(), intact(FILE_BYTES));
    assert_eq!(client.get(GOOGLEAPIS, "/missing").status, 404);
}

#[test]
fn nginx_is_reached_through_a_tunnel() {
    let authority = Authority::new();
    let Some(nginx) = Nginx::start(&authority.issue(GOOGLEAPIS)) else { return };
    let yaml = resources::passthrough(nginx.port.number());
    let gateway = Gateway::builder().host(GOOGLEAPIS).resources(yaml).start();
    let mut client = client::tls(gateway.tls(), GOOGLEAPIS, &authority).unwrap();
    write!(client, "GET /name HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("www.googleapis.com www.googleapis.com /name"), "{answer}");
}
