//! The life of a session, and nothing but the order of its stages.
//!
//! ```text
//! accept ─▶ peek ─▶ route ─▶ upstream (choose, resolve, dial, originate) ─▶ relay ─▶ record
//!            ├─ ClientHello  ─▶ tunnel: bytes both ways, half-close kept; or terminate, and then as plain HTTP or TCP
//!            ├─ HTTP/1 head  ─▶ http: a loop, one turn per request
//!            ├─ HTTP/2       ─▶ http2: a task per request, each served as one of HTTP/1
//!            └─ else, or a port that only takes TCP ─▶ tunnel, judged by its address
//! ```

mod client;
mod context;
mod copies;
pub(crate) mod http;
mod http2;
mod names;
mod outgoing;
mod peek;
mod sealed;
mod stream;
mod terminate;
mod tls;
mod transport;
pub(crate) mod tunnel;

pub use client::{Arrival, Client, Clients, Registration};
pub use context::Context;
pub use transport::Transport;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;

use crate::failure::Failure;
use crate::route::decide::{self, Detection, Source};
use crate::wire::client_hello::ClientHello;

use peek::Opening;
use tls::Tls;
use tunnel::By;

/// Serves one client connection from accept to the last log line.
///
/// A session is a pointer to the stage it is in, and holds the memory of that one alone.
#[must_use]
pub fn serve(context: Rc<Context>, client: Rc<Client>) -> Serve {
    let opening = async move {
        match begin(&context, &client) {
            Begin::Peek(detection) => {
                let opening = peek::peek(&client.transport, &context, detection).await;
                after_peek(opening, detection, context, client)
            }
            Begin::Serve(stage) => Some(Next(stage)),
        }
    };
    Serve { stage: Box::pin(opening) }
}

/// See [`serve`].
pub struct Serve {
    stage: Stage,
}

impl Future for Serve {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<()> {
        while let Some(Next(stage)) = ready!(self.stage.as_mut().poll(context)) {
            self.stage = stage;
        }
        Poll::Ready(())
    }
}

/// What a session does until it does something else, or ends.
type Stage = Pin<Box<dyn Future<Output = Option<Next>>>>;

/// The stage that follows.
struct Next(Stage);

/// The first stage of a session.
enum Begin {
    /// The client's first bytes have a say in it.
    Peek(Detection),
    /// It is settled already.
    Serve(Stage),
}

fn begin(context: &Rc<Context>, client: &Rc<Client>) -> Begin {
    if client.arrival == Arrival::Stray {
        client.transport.reset_on_close();
        let (context, client) = (Rc::clone(context), Rc::clone(client));
        let refuse = async move { tunnel::refuse(&context, &client, &Failure::NotCaptured).await };
        return Begin::Serve(stage(refuse));
    }
    let detection = decide::detection(&context.snapshot(), client.source());
    if detection == Detection::Nothing {
        let (context, client) = (Rc::clone(context), Rc::clone(client));
        return Begin::Serve(stage(tunnel::serve(context, client, By::Address, None, Vec::new())));
    }
    Begin::Peek(detection)
}

/// What follows from the first bytes. A function of its own: an async one would keep room for them to its end.
fn after_peek(opening: Opening, detection: Detection, context: Rc<Context>, client: Rc<Client>) -> Option<Next> {
    let source = client.source();
    Some(Next(match opening {
        Opening::Tls(hello, bytes) if ends_here(&context, source, &hello) => Box::pin(async move {
            let bytes = terminate::terminate(Rc::clone(&context), Rc::clone(&client), hello, bytes).await?;
            let is_tcp = decide::carries_tcp(&context.snapshot(), client.source());
            Some(Next(match client.transport.tls().is_some_and(Tls::speaks_http2) {
                _ if is_tcp => stage(tunnel::serve(context, client, By::Address, None, bytes)),
                true => stage(http2::serve(context, client, bytes)),
                false => stage(http::serve(context, client, bytes)),
            }))
        }),
        Opening::Tls(hello, bytes) => {
            let name = hello.server_name.as_ref();
            let is_tcp = decide::carries_tls_as_tcp(&context.snapshot(), source, detection, name);
            let by = if is_tcp { By::Address } else { By::ServerName };
            stage(tunnel::serve(context, client, by, Some(hello), bytes))
        }
        Opening::Http(bytes) if decide::carries_http_as_tcp(&context.snapshot(), source, detection) => {
            stage(tunnel::serve(context, client, By::Address, None, bytes))
        }
        Opening::Http2(bytes) if decide::carries_http_as_tcp(&context.snapshot(), source, detection) => {
            stage(tunnel::serve(context, client, By::Address, None, bytes))
        }
        Opening::Http(bytes) => stage(http::serve(context, client, bytes)),
        Opening::Http2(bytes) => stage(http2::serve(context, client, bytes)),
        // A connection that brought nothing was neither a request nor a session.
        Opening::Nothing => return None,
        // What began as TLS and never came to its server name is not judged as if it had none.
        Opening::Other(failure, bytes) if detection == Detection::Names || begins_tls(&bytes) => {
            stage(async move { tunnel::refuse(&context, &client, &failure).await })
        }
        Opening::Other(_, bytes) => stage(tunnel::serve(context, client, By::Address, None, bytes)),
    }))
}

/// Whether a server of a Gateway ends the TLS of this client. One that is not served leaves the refusal to the tunnel.
fn ends_here(context: &Context, source: Source<'_>, hello: &ClientHello) -> bool {
    let server = decide::termination(&context.snapshot(), source, hello.server_name.as_ref()).map(|it| it.is_some());
    server.unwrap_or(false)
}

/// Most bytes of a stage: what a session that may be silent for hours holds, beside its sockets and its [`Client`].
///
/// What one needs for a moment only belongs into a box of its own.
const STAGE_BYTES_MAX: usize = 384;

/// The last stage of a session.
fn stage<F: Future<Output = ()> + 'static>(future: F) -> Stage {
    const { assert!(size_of::<F>() <= STAGE_BYTES_MAX) };
    Box::pin(Last { future })
}

pin_project! {
    /// A stage that none follows.
    struct Last<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future<Output = ()>> Future for Last<F> {
    type Output = Option<Next>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Next>> {
        self.project().future.poll(context).map(|()| None)
    }
}

/// Whether bytes are the beginning of a TLS handshake record (RFC 8446 section 5.1).
fn begins_tls(bytes: &[u8]) -> bool {
    const RECORD: [u8; 2] = [0x16, 0x03];
    !bytes.is_empty() && RECORD.starts_with(&bytes[..bytes.len().min(RECORD.len())])
}
