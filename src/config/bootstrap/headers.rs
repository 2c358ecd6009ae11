//! `headers:`: what becomes of the request fields in which a client speaks for others.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use super::check::choice;
use super::{Scope, file};
use crate::route::fields::{FieldPolicy, Underscores};
use crate::wire::http1::Claims;

/// Longest pseudonym: a host name.
const PSEUDONYM_BYTES_MAX: usize = 253;

/// This process in Via, unless the file gives it a name: two gateways in a row are no loop, so each needs its own. It
/// stays through reloads, since a request may be on its way round when one happens.
static PSEUDONYM: LazyLock<Box<str>> =
    LazyLock::new(|| format!("portcullis-{:08x}", RandomState::new().hash_one("via") >> 32).into());

const SANITIZE_OR_FORWARD: [(&str, bool); 2] = [("SANITIZE", true), ("FORWARD", false)];

pub(super) fn check(keys: &file::Headers, scope: &mut Scope<'_>) -> FieldPolicy {
    let mut sanitized = |word: &Option<String>, key: &str, kind: Claims| {
        let sanitized = choice(word.as_deref(), &format!("headers.{key}"), &SANITIZE_OR_FORWARD, true, scope);
        if sanitized { kind } else { Claims::NONE }
    };
    let forwarded = sanitized(&keys.forwarded, "forwarded", Claims::FORWARDED);
    let mesh = sanitized(&keys.mesh, "mesh", Claims::MESH);
    let method = sanitized(&keys.method_override, "methodOverride", Claims::METHOD);
    let underscores =
        [("ALLOW", Underscores::Allow), ("REJECT_REQUEST", Underscores::Reject), ("DROP_HEADER", Underscores::Drop)];
    FieldPolicy {
        withheld: forwarded.with(mesh),
        withheld_with_methods: method,
        underscores: choice(
            keys.underscores.as_deref(),
            "headers.underscores",
            &underscores,
            Underscores::Allow,
            scope,
        ),
        via: via(keys.via.as_deref(), scope),
    }
}

fn via(name: Option<&str>, scope: &mut Scope<'_>) -> Option<Box<str>> {
    match name {
        None | Some("auto") => Some(PSEUDONYM.clone()),
        Some("") => None,
        Some(name) if is_pseudonym(name) => Some(name.into()),
        Some(name) => {
            let message =
                format!("{name:?} is not a name of letters, digits and -._ such as egress-1; \"\" adds no Via");
            scope.error("headers.via", message);
            None
        }
    }
}

fn is_pseudonym(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    name.len() <= PSEUDONYM_BYTES_MAX && name.bytes().all(is_plain)
}
