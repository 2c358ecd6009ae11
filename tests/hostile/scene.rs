//! The stage on which attacks are played: one listed host, its upstream, and a gateway before it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::support::client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::log::Line;
use crate::support::resources;
use crate::support::service;
use crate::support::stream::Stream;
use crate::support::upstream::{Seen, Upstream};
use crate::support::wait_until;

/// The only host that is listed.
pub(crate) const HOST: &str = "api.example.com";

/// A gateway that lets [`HOST`] through, on port 443 as TLS and on port 80 as HTTP, to one upstream.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
    /// Lines of the access log that earlier steps have accounted for.
    told: std::cell::Cell<usize>,
}

impl Scene {
    /// With an upstream that serves plain HTTP.
    pub(crate) fn http() -> Self {
        Self::with(Gateway::builder(), service::http)
    }

    /// With an upstream that keeps the raw bytes of tunnels.
    pub(crate) fn tunnel() -> Self {
        Self::with(Gateway::builder(), service::record)
    }

    /// With settings and an upstream of the test's own.
    pub(crate) fn with(
        builder: Builder,
        service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with_resources(builder, "", service)
    }

    /// With further resources.
    pub(crate) fn with_resources(
        builder: Builder,
        more: &str,
        service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let upstream = Upstream::plain(service);
        let entries = listed(upstream.port());
        let gateway = builder.host(HOST).resources(entries + more).start();
        Self { gateway, upstream, told: std::cell::Cell::new(0) }
    }

    /// The next line of the access log, which must be the only new one.
    #[track_caller]
    pub(crate) fn next_line(&self, what: &str) -> Line {
        let told = self.told.get();
        let lines = wait_until(&format!("the log line of {what}"), || {
            Some(self.gateway.log().lines()).filter(|lines| lines.len() > told)
        });
        assert_eq!(lines.len(), told + 1, "more than one line for {what}: {:#?}", &lines[told..]);
        self.told.set(told + 1);
        lines[told].clone()
    }

    /// Connections that the upstream has seen.
    pub(crate) fn connections(&self) -> usize {
        self.upstream.seen().counts().connections
    }

    /// The heads of the requests that the upstream has seen.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.upstream.seen().counts().requests
    }

    /// Shows that good requests still pass.
    #[track_caller]
    pub(crate) fn assert_serves(&self) {
        assert_eq!(self.gateway.client().get(HOST, "/bytes/10").status, 200);
        self.next_line("a good request");
    }
}

/// Entries for [`HOST`] on both ports, leading to one upstream.
pub(crate) fn listed(port: u16) -> String {
    [resources::tls_entry("tls", HOST, port), resources::http_entry("http", HOST, port)].concat()
}

/// Sends `bytes` to the TLS listener and takes everything that comes back.
pub(crate) fn answer_to_tls(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut socket = client::connect(gateway.tls());
    // The gateway may refuse before all of it is written.
    let _ = socket.write_all(bytes);
    client::read_to_end(&mut socket)
}

/// What an HTTP client sees of the gateway until the gateway closes.
pub(crate) fn answers_to(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> String {
    let mut client = gateway.client();
    let _ = client.socket().write_all(bytes.as_ref());
    String::from_utf8_lossy(&client::read_to_end(client.socket())).into_owned()
}

/// The statuses of the heads in a stream of answers whose bodies are text without `HTTP/1.1`.
pub(crate) fn statuses(answers: &str) -> Vec<u16> {
    let heads = answers.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0)).collect()
}

/// The level and description of a record that is one alert (RFC 8446 section 6).
pub(crate) fn alert(record: &[u8]) -> Option<[u8; 2]> {
    match record {
        [21, 3, _, 0, 2, level, description] => Some([*level, *description]),
        _ => None,
    }
}

/// Ends a connection by a reset.
pub(crate) fn reset(socket: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO)).expect("a TCP socket lingers");
    drop(socket);
}

/// An upstream that waits for a whole request head, sends these bytes, and goes on so with every request.
pub(crate) fn answering(
    bytes: impl AsRef<[u8]> + Send + Sync + 'static,
) -> impl Fn(&mut Stream, &Seen) -> io::Result<()> {
    move |stream, seen| {
        while let Some(head) = read_head(stream)? {
            seen.update(|counts| counts.requests.push(head));
            stream.write_all(bytes.as_ref())?;
            stream.flush()?;
        }
        Ok(())
    }
}

/// The same, but the connection ends after the first answer.
pub(crate) fn answering_once(
    bytes: impl AsRef<[u8]> + Send + Sync + 'static,
) -> impl Fn(&mut Stream, &Seen) -> io::Result<()> {
    move |stream, seen| {
        if let Some(head) = read_head(stream)? {
            seen.update(|counts| counts.requests.push(head));
            stream.write_all(bytes.as_ref())?;
            stream.flush()?;
        }
        stream.finish()
    }
}

/// Reads up to the empty line, byte by byte: nothing behind it is lost.
pub(crate) fn read_head(stream: &mut Stream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// Ends the sending direction of a socket.
pub(crate) fn half_close(socket: &TcpStream) {
    socket.shutdown(Shutdown::Write).expect("the connection is open");
}
