//! HTTP/1: a loop, one turn per request; and single requests, which are streams of HTTP/2. What is forwarded may go out
//! in TLS that we open (origination).
//!
//! A turn, read in order: [`head::read`] → [`crate::route::decide`] → [`forward::forward`] (connect, exchange) or an
//! answer of our own → [`turn::Turn::tell`].

mod exchange;
pub(crate) mod facts;
mod fault;
mod forward;
mod head;
mod mirror;
mod obtain;
mod story;
mod turn;
mod upgrade;

use std::future::Future;
use std::rc::Rc;

use ::http::request;

use crate::failure::Failure;
use crate::net::within;
use crate::wire::http1::{HeadError, Version};
use crate::wire::http2::write_request;

use super::{Client, Context};

use head::Inbound;
pub(super) use obtain::originate;
use turn::Turn;
use upgrade::Upgraded;

/// Requests that are already there are answered this many at a time before others get their turn.
const TURNS_IN_A_ROW_MAX: u32 = 8;

/// Whether the client's connection can take another request.
#[derive(Debug)]
enum After {
    /// It can.
    Keep,
    /// It ends: politely, so that the client can read the whole answer.
    Close,
    /// It ends as the client has asked, who may send nothing more (RFC 9112 section 9.6).
    Finish,
    /// It ends with a reset: the answer was cut off, and must not look complete.
    Reset,
    /// It never will: client and upstream have agreed on another protocol.
    Upgrade(Box<Upgraded>),
}

/// Serves a client whose first bytes are `bytes`, until it or we close.
///
/// While the connection waits for a request it must cost no more than the wait: everything else is boxed, and an `async`
/// block, unlike an `async` function, keeps no second copy of its arguments.
pub(super) fn serve(context: Rc<Context>, client: Rc<Client>, bytes: Vec<u8>) -> impl Future<Output = ()> {
    let mut inbound = Inbound::new(bytes);
    async move {
        let mut turns: u32 = 0;
        let after = loop {
            if !head::awaken(&mut inbound, &client, &context).await {
                // Nothing was under way: the client is done, was silent for too long, or we are draining.
                break After::Close;
            }
            match Box::pin(take_turn(&context, &client, &mut inbound)).await {
                After::Keep if context.draining.get() => break After::Close,
                After::Keep => {}
                After::Upgrade(upgraded) => {
                    break Box::pin(upgrade::run(&context, &client, &mut inbound, *upgraded)).await;
                }
                after @ (After::Close | After::Finish | After::Reset) => break after,
            }
            turns += 1;
            let goes_on = !turns.is_multiple_of(TURNS_IN_A_ROW_MAX) || inbound.bytes().is_empty();
            if !goes_on && !Box::pin(give_way(&context, &client)).await {
                break After::Reset;
            }
        };
        match after {
            // Nothing is on its way that could turn the close into a reset: there is nothing to wait for.
            After::Finish if inbound.bytes().is_empty() && client.is_silent(&context.scratch) => {}
            After::Keep | After::Close | After::Finish | After::Upgrade(_) => Box::pin(client.linger(&context)).await,
            After::Reset => client.transport.reset_on_close(),
        }
    }
}

/// Serves the request of a stream, of which `ends` says that no body follows its head.
pub(super) async fn serve_stream(context: &Rc<Context>, client: &Client, parts: &request::Parts, ends: bool) {
    let mut head = Vec::new();
    if let Err(error) = write_request(parts, ends, &mut head) {
        turn::refuse_malformed(context, client, &head, &Failure::RequestMalformed(error));
        return;
    }
    let mut inbound = Inbound::new(head);
    // What is there of the body can be sent again if it must; a failure shows again.
    let _ = head::receive(&mut inbound, client, context);
    if let After::Reset = Box::pin(take_turn(context, client, &mut inbound)).await {
        client.transport.reset_on_close();
    }
}

/// Tells of a connection that broke its protocol before it came to a request.
pub(super) fn tell_malformed(context: &Rc<Context>, client: &Client, bytes: &[u8], failure: &Failure) {
    story::Story::new().tell_malformed(context, client, bytes, failure);
}

/// Tells of a request in HTTP/2 that has been refused, with this status or a reset, before anybody saw what it was.
pub(super) fn tell_unseen(context: &Rc<Context>, client: &Client, status: u16, error: HeadError) {
    story::Story { status, ..story::Story::new() }.tell_unseen(context, client, &Failure::RequestMalformed(error));
}

/// One request, under the configuration that is in force when its head is complete.
async fn take_turn(context: &Rc<Context>, client: &Client, inbound: &mut Inbound) -> After {
    let mut head = match head::read(inbound, client, context).await {
        Ok(head) => head,
        Err(failure) => return refuse(context, client, inbound, &failure),
    };
    if client.transport.stream().is_some() {
        head.version = Version::Http2;
    }
    let snapshot = context.snapshot();
    Turn::new(context, client, &snapshot, inbound, head).take().await
}

/// Lets other sessions have their turn. One read may bring thousands of small requests, and answering one that is
/// refused waits for nothing. False: the client has stopped reading.
async fn give_way(context: &Context, client: &Client) -> bool {
    let patience = context.snapshot().settings.limits.body_idle_timeout;
    matches!(within(patience, client.transport.give_way()).await, Some(Ok(())))
}

/// Answers bytes that are no request.
fn refuse(context: &Rc<Context>, client: &Client, inbound: &Inbound, failure: &Failure) -> After {
    turn::refuse_malformed(context, client, inbound.bytes(), failure);
    After::Close
}
