//! Plain HTTP/1: a loop, one turn per request. What is forwarded may go out in TLS that we open (origination).
//!
//! A turn, read in order: [`head::read`] → [`crate::route::decide`] → [`forward::forward`] (connect, exchange) or an
//! answer of our own → [`turn::Turn::tell`].

mod exchange;
pub(crate) mod facts;
mod forward;
mod head;
mod story;
mod turn;
mod upgrade;

use std::rc::Rc;

use crate::failure::Failure;
use crate::net::within;

use super::{Client, Context};

use head::Inbound;
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
    /// It ends with a reset: the answer was cut off, and must not look complete.
    Reset,
    /// It never will: client and upstream have agreed on another protocol.
    Upgrade(Box<Upgraded>),
}

/// Serves a client whose first bytes are `bytes`, until it or we close.
pub(super) async fn serve(context: &Rc<Context>, client: &Client, bytes: Vec<u8>) {
    let mut inbound = Inbound::new(bytes);
    let mut turns: u32 = 0;
    let after = loop {
        let head = match head::read(&mut inbound, client, context).await {
            Ok(Some(head)) => head,
            // Nothing was under way: the client is done, was silent for too long, or we are draining.
            Ok(None) => break After::Close,
            Err(failure) => break refuse(context, client, &inbound, &failure),
        };
        let snapshot = context.snapshot();
        // Boxed: while the connection waits for a request it must cost no more than the wait.
        let turn = Turn::new(context, client, &snapshot, &mut inbound, head);
        match Box::pin(turn.take()).await {
            After::Keep if context.draining.get() => break After::Close,
            After::Keep => {}
            After::Upgrade(upgraded) => {
                drop(snapshot); // What may last for hours must not keep an old configuration alive.
                break Box::pin(upgrade::run(context, client, inbound, *upgraded)).await;
            }
            after @ (After::Close | After::Reset) => break after,
        }
        turns += 1;
        if turns.is_multiple_of(TURNS_IN_A_ROW_MAX) && !inbound.bytes().is_empty() && !give_way(context, client).await {
            break After::Reset;
        }
    };
    match after {
        After::Keep | After::Close | After::Upgrade(_) => client.linger(&context.scratch).await,
        After::Reset => client.socket.reset_on_close(),
    }
}

/// Lets other sessions have their turn. One read may bring thousands of small requests, and answering one that is
/// refused waits for nothing. False: the client has stopped reading.
async fn give_way(context: &Context, client: &Client) -> bool {
    let patience = context.snapshot().settings.limits.body_idle_timeout;
    matches!(within(patience, client.socket.give_way()).await, Some(Ok(())))
}

/// Answers bytes that are no request.
fn refuse(context: &Rc<Context>, client: &Client, inbound: &Inbound, failure: &Failure) -> After {
    turn::refuse_malformed(context, client, inbound.bytes(), failure);
    After::Close
}
