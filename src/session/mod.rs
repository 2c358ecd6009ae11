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

use std::rc::Rc;

use peek::Opening;

/// Serves one client connection from accept to the last log line.
///
/// Its stages are boxed, so that a session holds the memory of the stage it is in, not of the largest.
pub async fn serve(context: Rc<Context>, client: Rc<Client>) {
    match peek::peek(&client.socket, &context).await {
        Ok(Opening::Tls(hello, bytes)) => Box::pin(tunnel::serve(&context, &client, hello, bytes)).await,
        Ok(Opening::Http(bytes)) => Box::pin(http::serve(&context, &client, bytes)).await,
        // A connection that brought nothing was neither a request nor a session.
        Ok(Opening::Nothing) => {}
        Err(failure) => Box::pin(tunnel::refuse(&context, &client, &failure)).await,
    }
}

/// Tells of a session that a bug has ended.
pub fn tell_panic(context: &Rc<Context>, client: &Client) {
    tunnel::tell_panic(context, client);
}
