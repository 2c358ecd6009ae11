//! A request head as the matchers see it.

use std::borrow::Cow;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::failure::Failure;
use crate::route::decide::Source;
use crate::route::host::{Authority, AuthorityHost, HostName};
use crate::route::http::RequestFacts;
use crate::route::path::{self, Normalization};
use crate::snapshot::Snapshot;
use crate::wire::http1::{HeadError, RequestHead, Span, TargetForm};

use super::forward::Target;

/// What the decision is about. What is matched here is what is forwarded.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    head: &'a RequestHead,
    bytes: &'a [u8],
    /// The normalised path.
    path: Cow<'a, str>,
    /// The authority in lower case.
    authority: SmallVec<[u8; 64]>,
    /// The host that was asked for; `None`: an IP address.
    pub(crate) host: Option<HostName>,
    address: Option<IpAddr>,
    in_tls: bool,
}

impl<'a> Facts<'a> {
    /// Reads the facts off a head.
    ///
    /// # Errors
    /// [`Failure::RequestMalformed`] for a path or an authority that cannot be judged.
    pub(crate) fn new(head: &'a RequestHead, bytes: &'a [u8], normalization: Normalization) -> Result<Self, Failure> {
        let authority = head.authority.of(bytes);
        let parsed = Authority::parse(authority).map_err(|_| Failure::RequestMalformed(HeadError::Authority))?;
        let (host, address) = match parsed.host {
            AuthorityHost::Name(name) => (Some(name), None),
            AuthorityHost::Address(address) => (None, Some(address)),
        };
        let path = match head.form {
            TargetForm::Asterisk => Cow::Borrowed("*"),
            TargetForm::Origin | TargetForm::Absolute | TargetForm::Authority => {
                let path = head.path.text(bytes);
                let path = if path.is_empty() { "/" } else { path };
                path::normalize(path, normalization).map_err(|_| Failure::RequestMalformed(HeadError::Target))?
            }
        };
        let mut authority = SmallVec::from_slice(authority);
        authority.make_ascii_lowercase();
        Ok(Self { head, bytes, path, authority, host, address, in_tls: false })
    }

    /// Notes where the request has come to: a ServiceEntry may have put a host in the place of an address (`addresses`).
    pub(crate) fn arrive(&mut self, snapshot: &Snapshot, source: Source) {
        self.in_tls = source.tls.is_some();
        if let Some(address) = self.address.filter(|_| !source.gateway) {
            self.host = snapshot.routes.alias(source.port, address).cloned();
        }
    }

    /// Path and query in origin form, as they are forwarded; `rewritten` takes the place of the path.
    pub(super) fn target(&self, rewritten: Option<&str>) -> Target {
        let head = self.head;
        let is_as_sent =
            rewritten.is_none() && matches!(self.path, Cow::Borrowed(_)) && head.path.start < head.path.end;
        if is_as_sent {
            let end = if head.has_query { head.query.end } else { head.path.end };
            return Target::Sent(Span { start: head.path.start, end });
        }
        let path = rewritten.unwrap_or(&self.path);
        Target::Written(match head.has_query {
            true => [path, "?", self.query()].concat(),
            false => path.to_owned(),
        })
    }
}

impl RequestFacts for Facts<'_> {
    fn method(&self) -> &str {
        self.head.method.text(self.bytes)
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> &str {
        self.head.query.text(self.bytes)
    }

    fn scheme(&self) -> &str {
        if self.in_tls { "https" } else { "http" }
    }

    fn authority(&self) -> &str {
        std::str::from_utf8(&self.authority).unwrap_or_default()
    }

    /// Bytes that are not UTF-8 become replacement characters: they equal nothing that a condition can name, and what
    /// stands around them is still seen.
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let named = self.head.head.fields.iter().filter(|field| {
            let field = field.name.of(self.bytes);
            field.eq_ignore_ascii_case(name.as_bytes())
        });
        let values = named.map(|field| String::from_utf8_lossy(field.value.of(self.bytes)));
        values.reduce(|joined, value| joined + "," + value)
    }
}
