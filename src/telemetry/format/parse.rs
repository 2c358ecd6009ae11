//! The syntax of formats.

use super::Slot;
use super::operator::Operator;

/// Why a format is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// An operator that is not known, or not with these arguments.
    #[error("the command operator %{0}% is not supported")]
    Operator(String),
    /// A percent sign that starts nothing.
    #[error("a single % starts no command operator; %% is a percent sign")]
    Percent,
    /// No JSON.
    #[error("not a JSON format: {0}")]
    Json(String),
}

/// A part of a format.
#[derive(Debug)]
pub(super) enum Part {
    Literal(String),
    Slot(Slot),
}

/// Reads a format; literals do not follow each other.
pub(super) fn parse(format: &str) -> Result<Vec<Part>, FormatError> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        literal.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let end = operator_end(rest).ok_or(FormatError::Percent)?;
        let slot = slot(&rest[..end]).ok_or_else(|| FormatError::Operator(rest[..end].to_owned()))?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(Part::Slot(slot));
        rest = &rest[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Where the percent sign is that ends the operator; those between parentheses are arguments.
fn operator_end(text: &str) -> Option<usize> {
    let arguments_end = match text.find(['(', '%']) {
        Some(open) if text.as_bytes()[open] == b'(' => open + text[open..].find(')')?,
        Some(_) | None => 0,
    };
    text[arguments_end..].find('%').map(|end| arguments_end + end)
}

/// `NAME`, `NAME(arguments)`, and a length behind either.
fn slot(text: &str) -> Option<Slot> {
    let (name, arguments, rest) = match text.split_once('(') {
        Some((name, rest)) => {
            let (arguments, rest) = rest.rsplit_once(')')?;
            (name, Some(arguments), rest)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (&text[..end], None, &text[end..])
        }
    };
    let operator = Operator::named(name, arguments)?;
    let length = match rest.strip_prefix(':') {
        Some(length) if operator.is_text() => Some(length.parse().ok()?),
        Some(_) => return None,
        None if rest.is_empty() => None,
        None => return None,
    };
    Some(Slot { operator, length })
}
