//! Values as protojson spells them: lists that may be null, enums by name or number, integers in quotes, durations.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A repeated field; absent and `null` are empty.
#[derive(Clone, Debug)]
pub struct List<T> {
    items: Vec<T>,
    is_written: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), is_written: false }
    }
}

impl<T> List<T> {
    /// Whether the field is there and holds nothing.
    pub fn is_written_empty(&self) -> bool {
        self.is_written && self.items.is_empty()
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self { is_written: !items.is_empty(), items }
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { items: Option::deserialize(deserializer)?.unwrap_or_default(), is_written: true })
    }
}

/// A map of few entries, in the order in which they are written; absent and `null` are empty.
#[derive(Clone, Debug)]
pub struct Map<V>(Vec<(String, V)>);

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Map<V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Map<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

struct Entries<V>(std::marker::PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
    type Value = Map<V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map")
    }

    /// No key comes twice: that is no YAML.
    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Map<V>, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        map.shrink_to_fit();
        Ok(Map(map))
    }
}

/// An enum of Istio's API: protojson takes its names and its numbers.
pub trait Enumeration: Copy + 'static {
    /// Name, number, value.
    const VALUES: &'static [(&'static str, i64, Self)];
}

/// Reads an [`Enumeration`]; absent and `null` are `None`.
///
/// # Errors
/// A value that the API does not define.
pub fn enumeration<'de, D: Deserializer<'de>, E: Enumeration>(deserializer: D) -> Result<Option<E>, D::Error> {
    let Some(scalar) = Option::<Scalar>::deserialize(deserializer)? else { return Ok(None) };
    let known = E::VALUES.iter().find(|(name, number, _)| match &scalar {
        Scalar::Text(text) => text == name,
        Scalar::Integer(integer) => integer == number,
    });
    known.map(|(_, _, value)| Some(*value)).ok_or_else(|| {
        let names: Vec<&str> = E::VALUES.iter().map(|(name, _, _)| *name).collect();
        de::Error::custom(format_args!("unknown value {scalar}; it must be one of {}", names.join(", ")))
    })
}

/// Reads an integer, in quotes or not; absent and `null` are `None`.
///
/// # Errors
/// A text that is no integer.
pub fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    match Option::<Scalar>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Scalar::Integer(integer)) => Ok(Some(integer)),
        Some(Scalar::Text(text)) => {
            text.parse().map(Some).map_err(|_| de::Error::custom(format_args!("{text:?} is not an integer")))
        }
    }
}

#[derive(Debug)]
enum Scalar {
    Integer(i64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => integer.fmt(formatter),
            Self::Text(text) => write!(formatter, "{text:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name or an integer")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                i64::try_from(value).map(Scalar::Integer).map_err(|_| E::custom("the integer is too large"))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// A duration as Go writes them (`1h30m`, `1.5s`, `10ms`), which protojson of golang/protobuf takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format_args!("{text:?} is not a duration such as 10s, 1.5s, 300ms or 1h30m"))
        })
    }
}

/// Reads a duration of Go's syntax without a sign.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest == "0" {
        return Some(total);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end =
            after.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total = total.checked_add(part(number, unit)?)?;
        rest = after;
    }
    Some(total)
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let nanoseconds: u64 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(nanoseconds)?;
    let mut digit_value = nanoseconds;
    for digit in fraction.bytes() {
        digit_value /= 10;
        total = total.checked_add(u64::from(digit.checked_sub(b'0')?) * digit_value)?;
    }
    Some(Duration::from_nanos(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_syntax_of_go() {
        let cases = [
            ("5s", 5000),
            ("1h", 3_600_000),
            ("1.5s", 1500),
            ("10ms", 10),
            ("1h30m", 5_400_000),
            ("0", 0),
            (".5s", 500),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "5x", "1..5s", "5s3", "99999999999999999999h", "9999999999h", "."] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
