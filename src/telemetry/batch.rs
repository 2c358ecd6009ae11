//! Access-log lines on their way off a worker.

use std::cell::RefCell;
use std::sync::mpsc::SyncSender;

use crate::limits::LOG_BATCH_BYTES;
use crate::snapshot::AccessLog;

use super::access_log;
use super::record::Record;

/// Lines of the access log on their way to the writer.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// Whole lines.
    pub bytes: Vec<u8>,
    /// How many.
    pub lines: u32,
}

/// Collects a worker's lines, so that the queue to the writer is touched once per batch.
#[derive(Debug)]
pub struct Batch {
    lines: RefCell<LogBatch>,
    queue: SyncSender<LogBatch>,
}

/// What the caller must do after [`Batch::push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Nothing.
    Kept,
    /// This was the first line of a batch: call [`Batch::flush`] within [`crate::limits::LOG_BATCH_DELAY`].
    Started,
    /// The batch is full: call [`Batch::flush`] now.
    Full,
}

impl Batch {
    /// Batches for `queue`.
    #[must_use]
    pub fn new(queue: SyncSender<LogBatch>) -> Self {
        Self { lines: RefCell::default(), queue }
    }

    /// Keeps a line in one of the default formats.
    pub fn push(&self, record: &Record<'_>, form: AccessLog) -> Pushed {
        self.push_with(|bytes| access_log::format(record, form, bytes))
    }

    /// Keeps the line that `write` appends.
    pub fn push_with(&self, write: impl FnOnce(&mut Vec<u8>)) -> Pushed {
        let mut batch = self.lines.borrow_mut();
        write(&mut batch.bytes);
        batch.lines += 1;
        match batch.lines {
            _ if batch.bytes.len() >= LOG_BATCH_BYTES => Pushed::Full,
            1 => Pushed::Started,
            _ => Pushed::Kept,
        }
    }

    /// Hands the batch to the writer; returns how many lines were dropped because its queue is full.
    pub fn flush(&self) -> u32 {
        let batch = std::mem::take(&mut *self.lines.borrow_mut());
        let lines = batch.lines;
        if lines == 0 || self.queue.try_send(batch).is_ok() { 0 } else { lines }
    }
}
