//! `limits:`: every key with the bounds that [`crate::limits`] documents.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_yaml::Value;

use super::Scope;
use crate::config::istio::scalar::parse_duration;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, HELLO_BYTES_MAX, Limits, TIMEOUT_MAX};

/// Where the value of a key goes, and its bounds.
enum Slot<'a> {
    Time(&'a mut Duration, Duration),
    Bytes(&'a mut usize, usize, usize),
    Count(&'a mut usize, usize, usize),
    OptionalCount(&'a mut Option<usize>, usize),
}

const HOUR: Duration = Duration::from_secs(3600);
const KIB: usize = 1024;

fn slot<'a>(limits: &'a mut Limits, key: &str) -> Option<Slot<'a>> {
    Some(match key {
        "helloTimeout" => Slot::Time(&mut limits.hello_timeout, HOUR),
        "helloBytes" => Slot::Bytes(&mut limits.hello_bytes, KIB, HELLO_BYTES_MAX),
        "requestHeadTimeout" => Slot::Time(&mut limits.request_head_timeout, HOUR),
        "requestHeadBytes" => Slot::Bytes(&mut limits.request_head_bytes, KIB, HEAD_BYTES_MAX),
        "requestHeaders" => Slot::Count(&mut limits.request_headers, 1, HEADERS_MAX),
        "bodyIdleTimeout" => Slot::Time(&mut limits.body_idle_timeout, TIMEOUT_MAX),
        "httpIdleTimeout" => Slot::Time(&mut limits.http_idle_timeout, TIMEOUT_MAX),
        "tunnelIdleTimeout" => Slot::Time(&mut limits.tunnel_idle_timeout, TIMEOUT_MAX),
        "sessionsPerWorker" => Slot::Count(&mut limits.sessions_per_worker, 1, 1_000_000),
        "sessionsPerSource" => Slot::OptionalCount(&mut limits.sessions_per_source, 1_000_000),
        "interimResponses" => Slot::Count(&mut limits.interim_responses, 0, 100),
        "trailerBytes" => Slot::Bytes(&mut limits.trailer_bytes, 0, 64 * KIB),
        "chunkExtensionBytes" => Slot::Bytes(&mut limits.chunk_extension_bytes, 0, 64 * KIB),
        _ => return None,
    })
}

/// Reads the keys that are present over the defaults.
pub(super) fn check(keys: &BTreeMap<String, Value>, scope: &mut Scope<'_>) -> Limits {
    let mut limits = Limits::default();
    for (key, value) in keys {
        let field = format!("limits.{key}");
        let outcome = match slot(&mut limits, key) {
            Some(slot) => fill(slot, value),
            None => Err(format!("unknown key {key:?}")),
        };
        if let Err(message) = outcome {
            scope.error(&field, message);
        }
    }
    limits
}

fn fill(slot: Slot<'_>, value: &Value) -> Result<(), String> {
    match slot {
        Slot::Time(target, most) => *target = time(value, most)?,
        Slot::Bytes(target, least, most) => {
            *target = within(bytes(value), least, most, "a size such as 65536 or 64KiB")?
        }
        Slot::Count(target, least, most) => *target = within(count(value), least, most, "a number")?,
        Slot::OptionalCount(target, most) => {
            let off = value.is_null() || value.as_str() == Some("off");
            *target = if off { None } else { Some(within(count(value), 1, most, "a number, or off")?) };
        }
    }
    Ok(())
}

fn time(value: &Value, most: Duration) -> Result<Duration, String> {
    let duration = value.as_str().and_then(parse_duration).ok_or("must be a duration such as 10s or 1h")?;
    if duration < Duration::from_millis(1) || duration > most {
        return Err(format!("must be from 1ms to {}s", most.as_secs()));
    }
    Ok(duration)
}

fn within(number: Option<usize>, least: usize, most: usize, form: &str) -> Result<usize, String> {
    let number = number.ok_or_else(|| format!("must be {form}"))?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(format!("must be from {least} to {most}")) }
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

fn bytes(value: &Value) -> Option<usize> {
    let Some(text) = value.as_str() else { return count(value) };
    let units = [("KiB", KIB), ("MiB", KIB * KIB), ("", 1)];
    let (digits, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    digits.trim_end().parse::<usize>().ok()?.checked_mul(unit)
}
