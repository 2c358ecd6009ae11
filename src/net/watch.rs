//! A readiness poll that outlives the wait it was made for.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Socket;

/// A wait that is armed once, stays armed until it fires, and may be looked at without being withdrawn.
pub struct Watch {
    wait: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
    state: Rc<Cell<State>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody wants to know.
    Off,
    /// The poll is under way.
    Armed,
    /// It has fired, and nobody has taken notice yet.
    Fired,
}

impl Watch {
    /// Waits as `wait` does, from the first poll on.
    #[must_use]
    pub fn new(wait: impl AsyncFn() + 'static) -> Self {
        let state = Rc::new(Cell::new(State::Off));
        let wait = RefCell::new(Box::pin(watch(wait, Rc::clone(&state))) as Pin<Box<_>>);
        Self { wait, state }
    }

    /// Ready once what is waited for has happened; then the next poll waits anew.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        self.arm(context);
        if self.state.get() == State::Armed {
            return Poll::Pending;
        }
        self.state.set(State::Off);
        Poll::Ready(())
    }

    /// Starts watching, and says whether it has happened since then. Costs no system call.
    pub fn has_fired(&self) -> bool {
        self.arm(&mut Context::from_waker(Waker::noop()));
        self.state.get() == State::Fired
    }

    /// Takes notice of what has happened.
    pub fn clear(&self) {
        if self.state.get() == State::Fired {
            self.state.set(State::Off);
        }
    }

    fn arm(&self, context: &mut Context<'_>) {
        if self.state.get() == State::Off {
            self.state.set(State::Armed);
        }
        if self.state.get() == State::Armed {
            // It never ends: it fires, and waits to be armed again.
            let _ = self.wait.borrow_mut().as_mut().poll(context);
        }
    }
}

async fn watch(wait: impl AsyncFn(), state: Rc<Cell<State>>) {
    loop {
        poll_fn(|_| if state.get() == State::Armed { Poll::Ready(()) } else { Poll::Pending }).await;
        wait().await;
        state.set(State::Fired);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Watch").field(&self.state).finish()
    }
}

/// A socket whose poll for bytes stays armed until it fires.
///
/// The poll that waits for a response also watches the connection while it lies idle in a pool: an unexpected byte or
/// a close shows without a system call per reuse. And no poll is ever withdrawn from the ring because something else
/// happened first, which would cost two ring operations.
#[derive(Debug)]
pub struct WatchedSocket {
    socket: Rc<Socket>,
    bytes: Watch,
}

impl WatchedSocket {
    /// Watches `socket` from the first poll on.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        let socket = Rc::new(socket);
        let watched = Rc::clone(&socket);
        // An error of the poll shows at the call that follows.
        let bytes = Watch::new(async move || drop(watched.readable().await));
        Self { socket, bytes }
    }

    /// Another handle to the socket.
    #[must_use]
    pub fn share(&self) -> Rc<Socket> {
        Rc::clone(&self.socket)
    }

    /// Polls for bytes, the end or an error. Once it was ready, the next poll asks the kernel anew.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bytes.poll(context)
    }

    /// Starts watching, and says whether something has arrived since then. Costs no system call.
    pub fn has_fired(&self) -> bool {
        self.bytes.has_fired()
    }

    /// Takes notice of what has arrived: the caller is about to receive it.
    pub fn clear(&self) {
        self.bytes.clear();
    }
}

impl Deref for WatchedSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}
