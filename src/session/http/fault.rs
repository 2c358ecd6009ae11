//! Failures that a route's `fault` asks for.

use std::time::Duration;

use crate::failure::Failure;
use crate::net::sleep;
use crate::route::http::Fault;

use super::turn::Turn;

/// How often a client is looked at whose request is held up.
const CLIENT_LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Turn<'_> {
    /// Lets a request suffer what befalls it; `timeout` is its route's.
    ///
    /// # Errors
    /// The failure to answer.
    pub(super) async fn suffer(&mut self, fault: &Fault, timeout: Option<Duration>) -> Result<(), Failure> {
        if let Some((share, delay)) = fault.delay
            && share.takes(self.context.balancer.random())
        {
            self.story.delayed = true;
            self.hold_up(timeout.map_or(delay, |timeout| timeout.min(delay))).await?;
            if timeout.is_some_and(|timeout| timeout <= delay) {
                return Err(Failure::RequestDeadline);
            }
        }
        match fault.abort {
            Some((share, status)) if share.takes(self.context.balancer.random()) => Err(Failure::FaultAbort(status)),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits, for as long as there is a client to wait for an answer.
    async fn hold_up(&self, mut wait: Duration) -> Result<(), Failure> {
        while !wait.is_zero() {
            let pause = wait.min(CLIENT_LOOK_INTERVAL);
            sleep(pause).await;
            wait -= pause;
            if self.client.transport.has_failed() {
                return Err(Failure::DownstreamClosed);
            }
            if self.context.drain_expired.get() {
                return Err(Failure::DrainTimeout);
            }
        }
        Ok(())
    }
}
