//! The writer of the access log: a thread of its own, so that a full disk or a FIFO without a reader holds up nothing
//! but itself. Workers drop and count what its queue does not take; it counts what it could not write.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::Duration;

use crate::limits::LOG_QUEUE_BATCHES;

use super::batch::LogBatch;

/// The control thread's end of the writer.
#[derive(Debug)]
pub struct LogWriter {
    batches: SyncSender<LogBatch>,
    commands: Sender<Command>,
    dropped: Arc<AtomicU64>,
    ended: Receiver<()>,
}

/// What the control thread asks of the writer.
#[derive(Debug)]
enum Command {
    /// Close the file and open this path (again).
    Open(Option<PathBuf>),
    /// Write what is queued, and end.
    Finish,
}

impl LogWriter {
    /// Starts the thread, which opens the file.
    ///
    /// # Errors
    /// When no thread is to be had.
    pub fn spawn(path: Option<PathBuf>) -> io::Result<Self> {
        let (batches, queue) = mpsc::sync_channel(LOG_QUEUE_BATCHES);
        let (commands, orders) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let mut sink = Sink { path, file: None, torn: false, failing: false, dropped: dropped.clone() };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            serve(&queue, &orders, &mut sink);
            drop(end);
        })?;
        Ok(Self { batches, commands, dropped, ended })
    }

    /// Where workers send their batches.
    #[must_use]
    pub fn batches(&self) -> SyncSender<LogBatch> {
        self.batches.clone()
    }

    /// Lines that reached the writer and could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Closes the file and opens `path`: after a rotation the same one, after a reload maybe another.
    pub fn reopen(&self, path: Option<PathBuf>) {
        self.command(Command::Open(path));
    }

    /// Writes what is queued and ends. Gives up after `deadline`: a log that is stuck must not keep the process.
    /// Returns whether everything was written in time.
    #[must_use]
    pub fn finish(&self, deadline: Duration) -> bool {
        self.command(Command::Finish);
        // The thread sends nothing; it drops its end.
        matches!(self.ended.recv_timeout(deadline), Err(mpsc::RecvTimeoutError::Disconnected))
    }

    /// An empty batch wakes the writer. If the queue is full it is awake, and looks for commands after every batch.
    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.batches.try_send(LogBatch::default());
        }
    }
}

fn serve(queue: &Receiver<LogBatch>, orders: &Receiver<Command>, sink: &mut Sink) {
    sink.prepare();
    while let Ok(batch) = queue.recv() {
        sink.write(&batch);
        for command in orders.try_iter() {
            match command {
                Command::Open(path) => sink.reopen(path),
                Command::Finish => return queue.try_iter().for_each(|batch| sink.write(&batch)),
            }
        }
    }
}

/// The file, and what went wrong with it.
#[derive(Debug)]
struct Sink {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Whether the last line was written in part, so that the next write must end it first.
    torn: bool,
    /// Whether the last write failed; the diagnostics tell of the first failure only.
    failing: bool,
    dropped: Arc<AtomicU64>,
}

impl Sink {
    fn reopen(&mut self, path: Option<PathBuf>) {
        self.file = None;
        self.torn &= self.path == path;
        self.path = path;
        self.prepare();
    }

    /// Opens the file before there are lines, so that the operator hears of a wrong path now.
    fn prepare(&mut self) {
        match self.path.as_deref().map(open).transpose() {
            Ok(file) => self.file = file,
            Err(error) => self.failed(&error, b"", 0),
        }
    }

    /// Writes a batch, or counts its lines as dropped. After a failure the file is opened afresh.
    fn write(&mut self, batch: &LogBatch) {
        if batch.bytes.is_empty() || self.path.is_none() {
            return;
        }
        let mut written = 0;
        match self.write_from(&batch.bytes, &mut written) {
            Ok(()) => self.recovered(),
            Err(error) => self.failed(&error, &batch.bytes, written),
        }
    }

    fn write_from(&mut self, bytes: &[u8], written: &mut usize) -> io::Result<()> {
        if self.file.is_none() {
            self.file = self.path.as_deref().map(open).transpose()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        while *written < bytes.len() {
            match file.write(&bytes[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until_writable(file)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            let dropped = self.dropped.load(Ordering::Relaxed);
            tracing::info!(dropped_lines = dropped, "access log: writing again");
        }
    }

    fn failed(&mut self, error: &io::Error, bytes: &[u8], written: usize) {
        self.file = None;
        self.torn |= written > 0 && bytes[written - 1] != b'\n';
        let lost = memchr::memchr_iter(b'\n', &bytes[written..]).count() as u64;
        self.dropped.fetch_add(lost, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            let path = self.path.as_deref().unwrap_or(Path::new("")).display();
            tracing::error!("access log: cannot write {path}: {error}; lines are dropped until it works again");
        }
    }
}

/// Opens for appending. The standard streams are duplicated, since their paths do not open when they are sockets.
/// Blocks on a FIFO until somebody reads it.
fn open(path: &Path) -> io::Result<File> {
    let stream: OwnedFd = match path.to_str() {
        Some("/dev/stdout") => io::stdout().as_fd().try_clone_to_owned()?,
        Some("/dev/stderr") => io::stderr().as_fd().try_clone_to_owned()?,
        _ => return OpenOptions::new().append(true).create(true).open(path),
    };
    Ok(stream.into())
}

/// A standard stream may be non-blocking, if whoever started us made it so.
fn wait_until_writable(file: &File) -> io::Result<()> {
    let mut polled = [rustix::event::PollFd::new(file, rustix::event::PollFlags::OUT)];
    match rustix::event::poll(&mut polled, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn batch(text: &str) -> LogBatch {
        LogBatch { bytes: text.as_bytes().to_vec(), lines: text.lines().count() as u32 }
    }

    #[test]
    fn batches_are_appended_and_finish_waits_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let writer = LogWriter::spawn(Some(path.clone())).unwrap();
        let workers = writer.batches();
        for number in 0..100 {
            workers.send(batch(&format!("line {number}\n"))).unwrap();
        }
        assert!(writer.finish(DEADLINE));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 101);
        assert!(text.starts_with("before\nline 0\n") && text.ends_with("line 99\n"));
    }

    #[test]
    fn a_rotated_file_is_left_alone_after_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let mut sink =
            Sink { path: Some(path.clone()), file: None, torn: false, failing: false, dropped: Arc::default() };
        sink.write(&batch("one\n"));
        std::fs::rename(&path, &rotated).unwrap();
        sink.write(&batch("two\n"));
        sink.reopen(Some(path.clone()));
        sink.write(&batch("three\n"));
        assert_eq!(std::fs::read_to_string(rotated).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    }

    #[test]
    fn a_fifo_without_a_reader_blocks_neither_start_nor_finish() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let writer = LogWriter::spawn(Some(path.clone())).unwrap();
        writer.batches().send(batch("one\n")).unwrap();
        assert!(!writer.finish(Duration::from_millis(50)));
        // Opening it lets the thread go on and end.
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\n");
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let mut sink =
            Sink { path: Some("/dev/full".into()), file: None, torn: false, failing: false, dropped: Arc::default() };
        sink.write(&batch("one\ntwo\n"));
        sink.write(&batch("three\n"));
        assert_eq!(sink.dropped.load(Ordering::Relaxed), 3);
        assert!(sink.failing);
    }

    #[test]
    fn a_line_that_was_cut_short_is_ended_before_the_next() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let file = File::from(OwnedFd::from(ours));
        let mut sink = Sink {
            path: Some("unused".into()),
            file: Some(file),
            torn: false,
            failing: false,
            dropped: Arc::default(),
        };
        sink.failed(&io::ErrorKind::StorageFull.into(), b"one\ntwo\n", 6);
        assert_eq!((sink.torn, sink.dropped.load(Ordering::Relaxed)), (true, 1));
        let (ours, mut fresh) = UnixStream::pair().unwrap();
        sink.file = Some(File::from(OwnedFd::from(ours)));
        sink.write(&batch("three\n"));
        sink.file = None;
        let (mut lost, mut text) = (String::new(), String::new());
        theirs.read_to_string(&mut lost).unwrap();
        fresh.read_to_string(&mut text).unwrap();
        assert_eq!((lost.as_str(), text.as_str()), ("", "\nthree\n"));
    }

    #[test]
    fn nothing_is_written_without_a_path() {
        let mut sink = Sink { path: None, file: None, torn: false, failing: false, dropped: Arc::default() };
        sink.write(&batch("one\n"));
        assert!(!sink.failing && sink.file.is_none());
    }
}
