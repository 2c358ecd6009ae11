//! Wire formats, sans-io: bytes in, facts out. No socket, no clock, no policy.

pub mod alert;
pub mod certificate;
pub mod client_hello;
pub mod fuzz;
pub mod http1;
pub mod http2;
pub mod proxy_protocol;
