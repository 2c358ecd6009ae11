//! A readiness poll that outlives the wait it was made for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Socket;

/// A socket whose poll for bytes stays armed until it fires.
///
/// The poll that waits for a response also watches the connection while it lies idle in a pool: an unexpected byte or
/// a close shows without a system call per reuse. And no poll is ever withdrawn from the ring because something else
/// happened first, which would cost two ring operations.
pub struct WatchedSocket {
    socket: Rc<Socket>,
    watch: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
    state: Rc<Cell<Watch>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// Nobody wants to know.
    Off,
    /// The poll is under way.
    Armed,
    /// It has fired, and nobody has taken notice yet.
    Fired,
}

impl WatchedSocket {
    /// Watches `socket` from the first poll on.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        let (socket, state) = (Rc::new(socket), Rc::new(Cell::new(Watch::Off)));
        let watch = RefCell::new(Box::pin(watch(Rc::clone(&socket), Rc::clone(&state))) as Pin<Box<_>>);
        Self { socket, watch, state }
    }

    /// Another handle to the socket.
    #[must_use]
    pub fn share(&self) -> Rc<Socket> {
        Rc::clone(&self.socket)
    }

    /// Polls for bytes, the end or an error. Once it was ready, the next poll asks the kernel anew.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.arm(context);
        if self.state.get() == Watch::Armed {
            return Poll::Pending;
        }
        self.state.set(Watch::Off);
        Poll::Ready(())
    }

    /// Starts watching, and says whether something has arrived since then. Costs no system call.
    pub fn has_fired(&self) -> bool {
        self.arm(&mut Context::from_waker(Waker::noop()));
        self.state.get() == Watch::Fired
    }

    /// Takes notice of what has arrived: the caller is about to receive it.
    pub fn clear(&self) {
        if self.state.get() == Watch::Fired {
            self.state.set(Watch::Off);
        }
    }

    fn arm(&self, context: &mut Context<'_>) {
        if self.state.get() == Watch::Off {
            self.state.set(Watch::Armed);
        }
        if self.state.get() == Watch::Armed {
            // It never ends: it fires, and waits to be armed again.
            let _ = self.watch.borrow_mut().as_mut().poll(context);
        }
    }
}

async fn watch(socket: Rc<Socket>, state: Rc<Cell<Watch>>) {
    loop {
        poll_fn(|_| if state.get() == Watch::Armed { Poll::Ready(()) } else { Poll::Pending }).await;
        // An error of the poll shows at the call that follows.
        let _ = socket.readable().await;
        state.set(Watch::Fired);
    }
}

impl Deref for WatchedSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl fmt::Debug for WatchedSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WatchedSocket").field("socket", &self.socket).field("state", &self.state).finish()
    }
}
