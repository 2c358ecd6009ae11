//! A connection as h2 wants it: reads and writes that are polled.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{HTTP2_READS_IN_A_ROW_MAX, HTTP2_WRITE_BYTES};
use crate::net::{Received, Timer};
use crate::wire::http2::{Frames, PREFACE};

use super::meter::{Count, Meter};

/// What carries the frames: a socket, or TLS over one.
pub trait Line: Unpin {
    /// Receives without waiting.
    ///
    /// # Errors
    /// When the connection has failed, or was cut off.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Sends the beginning of `bytes` without waiting; 0: wait until it is writable.
    ///
    /// # Errors
    /// When the connection has failed.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Sends what was taken and is still kept. False: wait until it is writable.
    ///
    /// # Errors
    /// When the connection has failed.
    fn flush(&mut self) -> io::Result<bool>;

    /// Says that nothing more will be sent.
    fn finish(&mut self);

    /// Ready once there is something to receive.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()>;

    /// Ready once something can be sent.
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()>;

    /// Ready once others have had their turn.
    fn poll_others(&self, context: &mut Context<'_>) -> Poll<()>;
}

/// How long a connection waits for its peer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the end of a head.
    pub head: Duration,
    /// For room to send.
    pub send: Duration,
}

/// A [`Line`] under h2.
pub struct Wire<L> {
    line: L,
    /// What was received before.
    early: Vec<u8>,
    frames: Frames,
    /// Those that are sent.
    sent: Frames,
    meter: Rc<Meter>,
    /// Runs while a head is under way that has not ended.
    head: Option<Timer>,
    /// Whether the last read found nothing: the kernel need not be asked again before something has arrived.
    waits: bool,
    /// Reads since others had their turn.
    reads: u32,
    /// Runs while the peer takes nothing.
    stall: Option<Timer>,
    patience: Patience,
    /// Pieces that go out together.
    gathered: Vec<u8>,
}

impl<L: Line> Wire<L> {
    /// Over `line`, of which `early` has been received. Whoever asks sends the preface. `patience`: how long a head may take,
    /// and how long a peer may take nothing.
    pub fn new(line: L, early: Vec<u8>, meter: Rc<Meter>, patience: Patience) -> Self {
        let (asks, answers) = (Frames::after(PREFACE.len()), Frames::after(0));
        let (frames, sent) = if meter.asks { (asks, answers) } else { (answers, asks) };
        let (waits, reads, gathered) = (false, 0, Vec::new());
        Self { line, early, frames, sent, meter, head: None, waits, reads, stall: None, patience, gathered }
    }

    /// A head that has begun must end, however slowly it comes.
    fn poll_head(&mut self, context: &Context<'_>) -> Poll<io::Result<usize>> {
        if !self.frames.in_head() {
            self.head = None;
            return Poll::Pending;
        }
        let head = self.head.get_or_insert_with(|| Timer::new(self.patience.head));
        head.poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.early[..count]);
            self.early.drain(..count);
            if self.early.is_empty() {
                self.early = Vec::new();
            }
            return Poll::Ready(Ok(count));
        }
        if self.meter.unread.is_too_dear() {
            // Whoever drives the connection gives a stream up, and comes back.
            return Poll::Pending;
        }
        // h2 reads until there is nothing more: a peer that always has more would keep the worker for itself.
        if self.reads >= HTTP2_READS_IN_A_ROW_MAX {
            ready!(self.line.poll_others(context));
            self.reads = 0;
        }
        loop {
            if self.waits {
                if self.line.poll_readable(context).is_pending() {
                    return self.poll_head(context);
                }
                self.waits = false;
            }
            match self.line.receive(buffer)? {
                Received::Bytes(count) => {
                    self.reads += 1;
                    return Poll::Ready(Ok(count));
                }
                Received::End => return Poll::Ready(Ok(0)),
                Received::Pending => (self.waits, self.reads) = (true, 0),
            }
        }
    }

    /// Waits until the peer takes more; not for ever.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.line.poll_writable(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let stall = self.stall.get_or_insert_with(|| Timer::new(self.patience.send));
        stall.poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flushed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut was_stalled = false;
        while !self.line.flush()? {
            ready!(self.poll_stalled(context))?;
            was_stalled = true;
        }
        if was_stalled {
            self.stall = None;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_sent(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flushed(context))?;
        loop {
            match self.line.send(bytes)? {
                0 if !bytes.is_empty() => ready!(self.poll_stalled(context))?,
                count => {
                    self.stall = None;
                    let meter = &self.meter;
                    self.sent.follow(&bytes[..count], |frame| meter.left(frame));
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }
}

impl<L: Line> AsyncRead for Wire<L> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let count = ready!(this.receive(context, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        let (meter, mut received) = (&this.meter, Count::default());
        let bytes = &buffer.filled()[buffer.filled().len() - count..];
        this.frames.follow(bytes, |frame| meter.arrived(frame, &mut received));
        if received.heads > 0 {
            // The clock is for one head, however many follow each other.
            this.head = None;
        }
        if !this.meter.received(count, received) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer sends frames that carry no message",
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl<L: Line> AsyncWrite for Wire<L> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_sent(context, bytes)
    }

    /// A frame's head and its payload, in one call and one record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut gathered = std::mem::take(&mut this.gathered);
        gathered.clear();
        for piece in pieces {
            let room = HTTP2_WRITE_BYTES - gathered.len();
            gathered.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let sent = this.poll_sent(context, &gathered);
        if sent.is_ready() {
            this.gathered = gathered;
        }
        sent
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_flushed(context))?;
        // An idle connection keeps no buffer.
        this.gathered = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_flushed(context))?;
        this.line.finish();
        Poll::Ready(Ok(()))
    }
}
