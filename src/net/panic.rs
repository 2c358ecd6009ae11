//! Panics that end one task, and nothing else: in monoio they would end the worker.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// Runs a task; the error is that it has panicked, which the panic hook has reported.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct CatchPanic<F> {
        #[pin]
        task: F,
    }
}

impl<F> CatchPanic<F> {
    /// Around `task`.
    pub fn new(task: F) -> Self {
        Self { task }
    }
}

impl<F: Future<Output = ()>> Future for CatchPanic<F> {
    type Output = Result<(), ()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.project().task;
        match catch_unwind(AssertUnwindSafe(|| task.poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(())),
        }
    }
}
