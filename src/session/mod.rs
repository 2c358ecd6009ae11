//! The life of a session, and nothing but the order of its stages.
//!
//! ```text
//! accept ─▶ peek ─▶ route ─▶ upstream (choose, resolve, dial, originate) ─▶ relay ─▶ record
//!            ├─ ClientHello  ─▶ tunnel: bytes both ways, half-close kept
//!            └─ HTTP/1 head  ─▶ http: a loop, one turn per request
//! ```

mod client;
mod context;
pub(crate) mod http;
mod peek;
pub(crate) mod tunnel;

pub use client::{Client, Clients, Registration};
pub use context::Context;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::failure::Failure;

use peek::Opening;

/// Serves one client connection from accept to the last log line.
///
/// Its stages are boxed, so that a session holds the memory of the stage it is in, not of the largest.
#[expect(clippy::manual_async_fn, reason = "an async function keeps a second copy of its arguments")]
pub fn serve(context: Rc<Context>, client: Rc<Client>) -> impl Future<Output = ()> {
    async move {
        let opening = Box::pin(peek::peek(&client.socket, &context)).await;
        if let Some(stage) = after_peek(opening, context, client) {
            stage.await;
        }
    }
}

/// What follows from the first bytes. A function of its own: an async one would keep room for them to its end.
fn after_peek(
    opening: Result<Opening, Failure>,
    context: Rc<Context>,
    client: Rc<Client>,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    match opening {
        Ok(Opening::Tls(hello, bytes)) => Some(Box::pin(tunnel::serve(context, client, hello, bytes))),
        Ok(Opening::Http(bytes)) => Some(Box::pin(http::serve(context, client, bytes))),
        // A connection that brought nothing was neither a request nor a session.
        Ok(Opening::Nothing) => None,
        Err(failure) => Some(Box::pin(async move { tunnel::refuse(&context, &client, &failure).await })),
    }
}
