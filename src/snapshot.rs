//! The one thing that crosses from the control thread to the workers: an immutable, numbered configuration.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::Limits;
use crate::route::address::AddressPolicy;
use crate::route::fields::FieldPolicy;
use crate::route::path::Normalization;
use crate::route::table::RouteTable;
use crate::telemetry::format::Format;

/// A generation of the configuration, as one worker holds it.
///
/// Cloning makes a worker's own copy of the host tries; the parts that a session does not walk are shared for
/// reading (see [`RouteTable`]). A session keeps the snapshot it began with.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts up from 1 with every reload that took force.
    pub generation: u64,
    /// Hosts, routes, clusters, policies.
    pub routes: RouteTable,
    /// What the settings of the bootstrap file and MeshConfig say; shared for reading.
    pub settings: Arc<Settings>,
}

/// Settings that sessions look at.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `meshConfig.outboundTrafficPolicy.mode`.
    pub outbound: Outbound,
    /// `addressPolicy`, with our own addresses.
    pub addresses: AddressPolicy,
    /// `meshConfig.pathNormalization`.
    pub normalization: Normalization,
    /// `headers`.
    pub fields: FieldPolicy,
    /// `tls.ech`.
    pub ech: Ech,
    /// Every bound of a session.
    pub limits: Limits,
    /// `meshConfig.connectTimeout`, for destinations that no cluster describes (ALLOW_ANY).
    pub connect_timeout: Duration,
    /// Whether and how sessions are logged.
    pub access_log: AccessLog,
    /// `meshConfig.accessLogFormat`, if there is one.
    pub log_format: Option<Format>,
}

/// What happens to hosts that no resource names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outbound {
    /// They are refused.
    #[default]
    RegistryOnly,
    /// They pass: TLS by its SNI, plain HTTP by its Host, resolved by us, under the address policy.
    AllowAny,
}

/// What happens to hellos that offer Encrypted ClientHello. Its GREASE form cannot be told from the real one (RFC 9849
/// section 6.2), so this is about the offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ech {
    /// They pass.
    Allow,
    /// They pass, and the access log says so.
    #[default]
    Log,
    /// They are refused.
    Deny,
}

/// The form of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nothing is written.
    #[default]
    Off,
    /// Istio's default text format.
    Text,
    /// Istio's default JSON format.
    Json,
    /// The format of [`Settings::log_format`].
    Custom,
}
