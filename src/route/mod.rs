//! Pure decisions: which objects allow a session, and where it goes.
//!
//! No I/O, no clock, no async, and no word of Istio's YAML: [`crate::config`] turns resources into these tables, a
//! worker asks them through [`decide`], and `portcullis explain` asks the same functions.
//!
//! # The life of a decision
//!
//! ```text
//!  what the client said                 asked                                     refused with
//!
//!  Host, :authority or SNI ───────────▶ Authority / HostName::parse               400 DPE, or close DPE
//!  path ──────────────────────────────▶ path::normalize                           400 DPE
//!                                          │  from here on everyone, the upstream
//!                                          │  included, sees these very bytes
//!  service port, host ────────────────▶ RouteTable::http or ::tls                 502, or alert UH
//!  or port, captured address              │  the host trie of the port: most specific pattern first; or
//!                                          │  RouteTable::tcp: the longest range, where clients are captured
//!  peer, method, path, fields, SNI ───▶ Authorization::evaluate                   403, or alert
//!                                          │  DENY, then ALLOW
//!  method, path, query, fields ───────▶ VirtualHost::decide                       404 NR, or alert NR
//!                                          │  the first route of which a match holds
//!  a random ticket ───────────────────▶ Weighted::pick → RouteTable::cluster      503 NC
//!                                          │
//!  (resolved by the control thread) ──▶ AddressPolicy::judge_resolved             503 UH
//!                                          ▼
//!                                       an address to dial
//! ```
//!
//! The order is fixed: registry, authorization, routes. A host that no resource names is refused before any policy
//! is looked at, so the answer to it tells nothing about policies; and a policy is looked at before any route, so
//! that no route can lead around it.
//!
//! Whatever is missing on the way refuses: a host that does not parse, a policy that asks for what is not known
//! ([`authorization`]), a route to a cluster that does not exist, an address of no known class.
//!
//! # Who owns what
//!
//! A [`table::RouteTable`] belongs to one generation of the configuration. Its tries are copied to every worker,
//! because every session walks one; what they lead to, [`table::Tables`], is shared and never changes. A session
//! keeps the table it began with, so nothing here is ever seen half replaced.

pub mod address;
pub mod authorization;
pub mod cluster;
pub mod decide;
pub mod few;
pub mod fields;
pub mod fuzz;
pub mod host;
pub mod http;
pub mod path;
pub mod subnets;
pub mod table;
pub mod termination;
pub mod traffic;
pub mod trie;
