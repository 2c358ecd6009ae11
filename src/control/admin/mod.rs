//! The admin listener: one request per connection, few connections, short deadlines.
//!
//! Over TCP it answers to its own address only, so that no web page can reach it by a name of its own (DNS
//! rebinding), and changes need POST without a foreign `Origin` (cross-site requests). Over a Unix socket the file's
//! permissions decide.

mod answer;
pub(crate) mod client;
mod host;
mod json;
mod listener;
mod objects;
mod page;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_TIMEOUT, ADMIN_TIMEOUT};

use super::shared::{Command, Shared};

use answer::Admin;
pub(super) use listener::Listener;
use listener::Stream;

/// Serves for as long as the gateway lives.
pub(super) async fn serve(listener: Listener, shared: Rc<Shared>, commands: UnboundedSender<Command>) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, own) = listener.accept().await;
        let admin = Admin { shared: shared.clone(), commands: commands.clone(), own };
        tokio::task::spawn_local(async move {
            match stream {
                Stream::Tcp(stream) => connection(stream, admin).await,
                Stream::Unix(stream) => connection(stream, admin).await,
            }
            drop(place);
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, admin: Admin) {
    let admin = Rc::new(admin);
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(ADMIN_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("admin: {error}"),
        Err(_) => tracing::debug!("admin: a connection took too long"),
    }
}

#[cfg(test)]
mod tests;
