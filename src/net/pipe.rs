//! Pipes for splice(2): bytes move from socket to socket as page references, never through user space.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::limits::{PIPE_BYTES, PIPES_IDLE_MAX};

use super::Socket;

/// A pipe with the count of bytes inside.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Most bytes that one call asks for; the kernel may hold fewer.
    size: usize,
    held: usize,
}

/// The outcome of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This many bytes, at least one.
    Bytes(usize),
    /// The source has finished sending.
    End,
    /// Nothing at the moment.
    Pending,
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Pipe {
    fn open() -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused beyond the user's quota (pipe(7)); then the pipe keeps the size it has.
        let size = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES)
            .or_else(|_| rustix::pipe::fcntl_getpipe_size(&writer))?;
        Ok(Self { reader, writer, size, held: 0 })
    }

    /// Bytes inside.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes bytes from `source`. With bytes inside, [`Moved::Pending`] may also mean that the pipe is full.
    ///
    /// # Errors
    /// What splice(2) reports.
    pub fn fill(&mut self, source: &Socket) -> io::Result<Moved> {
        let moved = splice(source.fd(), &self.writer, self.size)?;
        if let Moved::Bytes(count) = moved {
            self.held += count;
        }
        Ok(moved)
    }

    /// Gives bytes to `target`; call only with bytes inside.
    ///
    /// # Errors
    /// What splice(2) reports.
    pub fn empty(&mut self, target: &Socket) -> io::Result<Moved> {
        debug_assert!(self.held > 0, "an empty pipe has nothing to give");
        let moved = splice(&self.reader, target.fd(), self.held)?;
        if let Moved::Bytes(count) = moved {
            self.held = self.held.saturating_sub(count);
        }
        Ok(moved)
    }
}

fn splice(source: impl std::os::fd::AsFd, target: impl std::os::fd::AsFd, length: usize) -> io::Result<Moved> {
    loop {
        return match rustix::pipe::splice(&source, None, &target, None, length, FLAGS) {
            Ok(0) => Ok(Moved::End),
            Ok(count) => Ok(Moved::Bytes(count)),
            Err(Errno::AGAIN) => Ok(Moved::Pending),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// A worker's idle pipes. Opening one costs three calls and pins kernel memory, so transfers borrow them.
#[derive(Debug, Default)]
pub struct Pipes {
    idle: RefCell<Vec<Pipe>>,
}

impl Pipes {
    /// An empty pipe.
    ///
    /// # Errors
    /// When the process or the user has no descriptors left; the caller then copies instead.
    pub fn take(&self) -> io::Result<Pipe> {
        match self.idle.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::open(),
        }
    }

    /// Gives a pipe back. One that still holds bytes is closed: they belong to a session that is over.
    pub fn give(&self, pipe: Pipe) {
        let mut idle = self.idle.borrow_mut();
        if pipe.held == 0 && idle.len() < PIPES_IDLE_MAX {
            idle.push(pipe);
        }
    }
}
