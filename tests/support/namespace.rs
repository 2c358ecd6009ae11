//! Captured traffic without touching this machine's network: two network namespaces that live as long as the test.
//!
//! ```text
//!   namespace "client"                      namespace "node"
//!   10.77.0.2, fd77::2  ──── veth pair ───▶ 10.77.0.1, fd77::1   the packet filter captures what arrives here
//!                                           on lo: the addresses that play the outside world
//! ```
//!
//! The test itself runs in the node's namespace, and so does everything that it starts: the gateway and the upstreams
//! need no word about namespaces.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The node's addresses on the link to the client.
pub(crate) const NODE_V4: &str = "10.77.0.1";
/// See [`NODE_V4`].
pub(crate) const NODE_V6: &str = "fd77::1";
/// The client's addresses.
pub(crate) const CLIENT_V4: &str = "10.77.0.2";
/// See [`CLIENT_V4`].
pub(crate) const CLIENT_V6: &str = "fd77::2";

/// The two namespaces.
pub(crate) struct World {
    node: String,
    client: String,
}

/// How the packet filter hands connections over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    /// To a port, keeping the original destination in mind.
    Redirect(u16),
    /// To a transparent listener at a port.
    Tproxy(u16),
}

/// Runs a test in the node's namespace. Where namespaces cannot be made, says so and runs nothing.
pub(crate) fn in_world(test: impl FnOnce(&World) + Send + 'static) {
    let world = match World::new() {
        Ok(world) => world,
        Err(reason) => {
            // Not through print macros, whose output a passing test does not show.
            let name = thread::current().name().unwrap_or_default().to_owned();
            let _ = writeln!(std::io::stderr(), "NOT TESTED: {name}: {reason}");
            return;
        }
    };
    let node = world.node.clone();
    let body = thread::Builder::new().name("node".to_owned()).spawn(move || {
        enter(&node);
        test(&world);
    });
    if let Err(panic) = body.expect("threads are to be had").join() {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    fn new() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make network namespaces".to_owned());
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("portcullis-{}-{number}-{side}", std::process::id());
        let world = Self { node: name("node"), client: name("client") };
        run("nft", &["--version"], "")?;
        let (node, client) = (world.node.as_str(), world.client.as_str());
        for namespace in [node, client] {
            run("ip", &["netns", "add", namespace], "")?;
            run("ip", &["-n", namespace, "link", "set", "lo", "up"], "")?;
        }
        let link = ["link", "add", "inside", "type", "veth", "peer", "name", "outside", "netns", client];
        run("ip", &[&["-n", node], &link[..]].concat(), "")?;
        let sides = [(node, "inside", NODE_V4, NODE_V6), (client, "outside", CLIENT_V4, CLIENT_V6)];
        for (namespace, device, v4, v6) in sides {
            ip(namespace, &["address", "add", &format!("{v4}/24"), "dev", device])?;
            ip(namespace, &["address", "add", &format!("{v6}/64"), "dev", device, "nodad"])?;
            ip(namespace, &["link", "set", device, "up"])?;
        }
        ip(client, &["route", "add", "default", "via", NODE_V4])?;
        ip(client, &["-6", "route", "add", "default", "via", NODE_V6])?;
        Ok(world)
    }

    /// Gives the node an address that plays a service outside.
    pub(crate) fn outside(&self, address: &str) {
        ip(&self.node, &["address", "add", address, "dev", "lo", "nodad"]).expect("the namespace is ours");
    }

    /// Captures every TCP connection of the client that is not for the node itself.
    pub(crate) fn capture(&self, filter: Filter) {
        let rules = match filter {
            Filter::Redirect(port) => format!(
                "table inet capture {{ chain prerouting {{ type nat hook prerouting priority dstnat;
                   iifname inside ip daddr != {NODE_V4} meta l4proto tcp redirect to :{port}
                   iifname inside ip6 daddr != {NODE_V6} meta l4proto tcp redirect to :{port}
}}
}}
"
            ),
            Filter::Tproxy(port) => {
                for family in ["-4", "-6"] {
                    let all = if family == "-4" { "0.0.0.0/0" } else { "::/0" };
                    ip(&self.node, &[family, "rule", "add", "fwmark", "1", "lookup", "100"]).expect("a rule");
                    ip(&self.node, &[family, "route", "add", "local", all, "dev", "lo", "table", "100"])
                        .expect("a route");
                }
                format!(
                    "table inet capture {{ chain prerouting {{ type filter hook prerouting priority mangle;
                       iifname inside ip daddr != {NODE_V4} meta l4proto tcp meta mark set 1 tproxy ip to :{port} accept
                       iifname inside ip6 daddr != {NODE_V6} meta l4proto tcp meta mark set 1 tproxy ip6 to :{port} accept
}}
}}
"
                )
            }
        };
        self.filter(&rules);
    }

    /// Loads rules of the packet filter on the node.
    pub(crate) fn filter(&self, rules: &str) {
        run("ip", &["netns", "exec", &self.node, "nft", "-f", "-"], rules).expect("the kernel takes the rules");
    }

    /// Runs `client` in the client's namespace, and hands over what it returns: connections stay where they were made.
    pub(crate) fn client<T: Send>(&self, client: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.client);
                client()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A program that runs in the client's namespace.
    pub(crate) fn client_command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.client, program]);
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in [&self.node, &self.client] {
            // A namespace that could not be made cannot be removed.
            let _ = run("ip", &["netns", "delete", namespace], "");
        }
    }
}

/// Moves the calling thread into a namespace.
fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("ip(8) has made it");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
}

fn ip(namespace: &str, arguments: &[&str]) -> Result<(), String> {
    run("ip", &[&["-n", namespace], arguments].concat(), "")
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("{program}: {error}"))?;
    child.stdin.take().expect("stdin is piped").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
