//! Waiting with an end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Waits for `future`, at most `duration`. `None`: the time has passed and the future was dropped.
pub async fn within<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(duration, future).await.ok()
}

/// Which of two futures was ready first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first, which wins a tie.
    First(A),
    /// The second.
    Second(B),
}

/// Waits for the first of two futures and drops the other.
pub async fn either<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> Either<A, B> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if let Poll::Ready(value) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}
