//! portcullis: a node-level egress gateway.
//!
//! Workloads reach only those external services that an operator has named in Istio's own resources. A client that
//! speaks TLS is passed through: its ClientHello is read, its bytes are relayed untouched; or its TLS ends at a Gateway's
//! server. A client that speaks plain HTTP has its requests judged by host, method and path, and the gateway opens verified
//! TLS for it. TCP goes where its port and address are listed. Everything else is refused, named, logged and counted.
//!
//! ```text
//!                 control thread (tokio)                        one worker per CPU (monoio, io_uring or epoll)
//!  ┌────────────────────────────────────────────┐         ┌──────────────────────────────────────────────────┐
//!  │ control   signals, reload, DNS, admin      │  Order  │ worker    binds, accepts, obeys its inbox        │
//!  │    │                                       │ ──────▶ │   │                                              │
//!  │ config    files → findings or a Snapshot   │         │ session   peek ─▶ decide ─▶ connect ─▶ relay     │
//!  │ telemetry log writer, exposition           │ ◀────── │   │ uses route, wire, upstream, relay, net,      │
//!  └────────────────────────────────────────────┘  Event  │   │ and tells telemetry once                     │
//!                                                         └──────────────────────────────────────────────────┘
//! ```
//!
//! # Life of a session
//!
//! 1. [`worker`] accepts a connection and spawns [`session::serve`].
//! 2. `session::peek` reads until it is clear whether the client speaks TLS ([`wire::client_hello`]), HTTP/1, HTTP/2, or else TCP.
//! 3. TLS goes to `session::tunnel`: the server name is looked up in the worker's own [`route::trie`], policies are
//!    asked, a cluster is chosen, its name resolved, its address judged and dialled ([`upstream`]); the hello is sent on
//!    and [`relay`] moves bytes until both sides have finished. At a server of a Gateway at which TLS ends,
//!    `session::terminate` does the handshake ([`tls`]) and HTTP follows inside it, or TCP, which is a tunnel again.
//! 4. HTTP goes to `session::http`, a loop with one turn per request: read a head ([`wire::http1`]), decide, take an
//!    upstream connection from the pool or open one ([`upstream::tls`]), stream both bodies, and keep what can be kept.
//!    A client that opens with the preface of HTTP/2 gets a task per request ([`http2`], `session::http2`); each is served by
//!    that code as a connection that carries one request. Upstreams that speak HTTP/2 share connections ([`upstream::http2`]).
//! 5. Either way `session::Context::finish` is called exactly once, and from it come the access-log line and the
//!    counters ([`telemetry`]). Copies of requests for mirrors (`session::http`) are only counted.
//!
//! A session that ends early ends with a [`failure::Failure`], which alone says what the client gets (status, alert),
//! what the log shows (flag, reason) and what is counted.
//!
//! # Who may use whom
//!
//! `session` uses `route`, `wire`, `upstream`, `relay`, `http2`, `tls`, `net` and `telemetry`; these do not know it, nor `control`,
//! `config` or `worker`. `upstream` uses `http2`, too, and both sides use `tls`. `route` and `wire` do no I/O. Only `config` knows
//! Istio's vocabulary. Only [`snapshot`] crosses from the control thread to the workers, and workers share nothing that is ever
//! written.
//!
//! # Words
//!
//! *Downstream* is the client's side, *upstream* the service's. A *listener* accepts; a *route* says which *cluster* a
//! session goes to; a cluster is a set of *endpoints* with one policy. A *tunnel* is a TLS session relayed untouched; a
//! *turn* is one request of an HTTP connection, or of a *stream* of HTTP/2; a *link* is an upstream connection that many
//! streams share; a *copy* is a request that goes to a *mirror* as well, which answers nobody; to *originate* is to open TLS for a client that spoke none, to *terminate* to end a client's own. A
//! *generation* is one configuration that took force.

pub mod cli;
pub mod config;
pub mod control;
pub mod failure;
pub mod http2;
pub mod limits;
pub mod net;
pub mod relay;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod wire;
pub mod worker;
