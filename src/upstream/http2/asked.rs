//! The requests that are under way on a connection, for the task that drives it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::Poll;

use bytes::Bytes;
use h2::client::Connection;

use crate::http2::{Meter, Wire};

use super::Stream;
use super::line::UpstreamLine;

/// By stream.
#[derive(Debug, Default)]
pub(super) struct Asked(RefCell<HashMap<u32, Weak<Stream>, foldhash::fast::RandomState>>);

impl Asked {
    pub(super) fn insert(&self, stream: u32, request: &Rc<Stream>) {
        self.0.borrow_mut().insert(stream, Rc::downgrade(request));
    }

    pub(super) fn remove(&self, stream: u32) {
        self.0.borrow_mut().remove(&stream);
    }

    fn find(&self, stream: u32) -> Option<Rc<Stream>> {
        self.0.borrow().get(&stream)?.upgrade()
    }
}

/// Drives a connection to its end. What its streams are sent is given up where it is too much, see
/// [`Unread`](crate::http2::Unread).
pub(super) async fn drive(mut connection: Connection<Wire<UpstreamLine>, Bytes>, meter: Rc<Meter>, asked: Rc<Asked>) {
    poll_fn(move |context| {
        loop {
            // However it has ended: whoever waits on one of its streams hears of it there.
            if Pin::new(&mut connection).poll(context).is_ready() {
                return Poll::Ready(());
            }
            let Some(stream) = meter.unread.dearest() else { return Poll::Pending };
            meter.unread.close(stream);
            asked.find(stream).inspect(|request| request.give_up());
        }
    })
    .await;
}
