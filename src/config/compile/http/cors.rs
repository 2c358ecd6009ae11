//! `corsPolicy:` → [`Cors`].

use crate::config::compile::matching;
use crate::config::istio::http_action::{CorsPolicy, UnmatchedPreflights};
use crate::route::http::{Cors, TextMatch};

pub(super) fn cors(policy: &CorsPolicy) -> Cors {
    let exact = policy.allow_origin.iter().map(|origin| TextMatch::Exact(origin.as_str().into()));
    let origins = exact.chain(policy.allow_origins.iter().filter_map(matching::text)).collect();
    let list = |names: &[String]| (!names.is_empty()).then(|| names.join(",").into_boxed_str());
    Cors {
        origins,
        methods: list(&policy.allow_methods),
        headers: list(&policy.allow_headers),
        exposed: list(&policy.expose_headers),
        max_age: policy.max_age.map(|age| age.0.as_secs().to_string().into()),
        credentials: policy.allow_credentials == Some(true),
        answers_unmatched: policy.unmatched_preflights == Some(UnmatchedPreflights::Ignore),
    }
}
