//! TLS that ends in this process, on either side: rustls, driven over the worker's buffers.
//!
//! rustls' unbuffered interface is used rather than monoio-rustls, whose stream holds 32 KiB of buffers while idle,
//! copies every byte three times, loses data when a read is dropped, and cannot be taken apart safely: bytes that
//! arrive behind the last flight of a handshake (session tickets, half-RTT data) stay in a buffer that `into_parts`
//! drops.

pub mod session;
