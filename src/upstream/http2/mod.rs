//! Connections to upstreams in HTTP/2: many requests on each, each a [`Stream`] that looks like a connection of its own.
//!
//! A [`Link`] is one connection. It has a task that drives it and ends with it, or soon after the last that needs it: the
//! [`Links`] of the worker and the streams under way. What must agree for two requests to share one is the same as for
//! connections of HTTP/1.1 that follow each other, see [`PoolKey`](super::pool::PoolKey).

mod asked;
mod line;
mod link;
mod links;
mod stream;

pub use link::{Link, LinkError};
pub use links::{Driver, Links, Opening, Outcome, Ticket};
pub use stream::Stream;
