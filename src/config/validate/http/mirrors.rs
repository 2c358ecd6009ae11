//! `mirror` and `mirrors`: where copies of requests go.

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::virtual_service::HttpRule;
use crate::config::validate::virtual_service::{destination, destination_at};

pub(super) fn mirrors(rule: &HttpRule, field: &str, scope: &mut Scope<'_>) {
    if let Some(mirror) = &rule.mirror {
        destination_at(mirror, &format!("{field}.mirror"), scope);
    }
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        destination(mirror.destination.as_ref(), &format!("{field}.mirrors[{index}]"), scope);
        let percentage = mirror.percentage.map(|percentage| percentage.value);
        percent(percentage, &format!("{field}.mirrors[{index}].percentage"), scope);
    }
    percent(rule.mirror_percent.map(|percent| percent as f64), &format!("{field}.mirrorPercent"), scope);
    let percentage = rule.mirror_percentage.map(|percentage| percentage.value);
    percent(percentage, &format!("{field}.mirrorPercentage"), scope);
    let mirrors = rule.mirror.is_some() || !rule.mirrors.is_empty();
    if mirrors && rule.route.is_empty() && rule.delegate.is_none() {
        let message = "only what is forwarded is mirrored: without `route` this has no effect";
        scope.warning(code::UNSUPPORTED, format!("{field}.mirror"), message);
    }
}

fn percent(percent: Option<f64>, field: &str, scope: &mut Scope<'_>) {
    if percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        scope.error(field, "a percentage is from 0 to 100");
    }
}
