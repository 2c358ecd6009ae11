//! What a route does to a request besides leading it somewhere, in words.

use std::time::Duration;

use crate::route::http::{Edits, Fault, Matched};
use crate::wire::http1::FieldEdits;

/// Of a route that answers by itself.
pub(super) fn of_answer(matched: Matched<'_>, fields: &FieldEdits) -> Option<Vec<String>> {
    let mut notes = Vec::new();
    faults(matched.route.fault.as_deref(), &mut notes);
    changes("answer", fields, &mut notes);
    (!notes.is_empty()).then_some(notes)
}

/// Of a route whose CORS policy answers a preflight.
pub(super) fn of_preflight(fields: &FieldEdits) -> Option<Vec<String>> {
    let mut notes = Vec::new();
    changes("answer", fields, &mut notes);
    (!notes.is_empty()).then_some(notes)
}

/// Of a route that forwards; `path` is the rewritten one, `copies` say where else its requests go.
pub(super) fn of_request(
    matched: Matched<'_>,
    path: Option<&str>,
    edits: &Edits,
    copies: Vec<String>,
) -> Option<Vec<String>> {
    let mut notes = Vec::new();
    faults(matched.route.fault.as_deref(), &mut notes);
    notes.extend(path.map(|path| format!("request: path {path}")));
    notes.extend(edits.authority.as_ref().map(|authority| format!("request: Host {authority}")));
    changes("request", &edits.request, &mut notes);
    changes("answer", &edits.response, &mut notes);
    notes.extend(copies);
    (!notes.is_empty()).then_some(notes)
}

fn faults(fault: Option<&Fault>, notes: &mut Vec<String>) {
    let Some(Fault { delay, abort }) = fault else { return };
    notes.extend(delay.map(|(share, delay): (_, Duration)| {
        format!("fault: {}% of the requests wait for {delay:?}", share.as_percent())
    }));
    notes.extend(
        abort.map(|(share, status)| {
            format!("fault: {}% of the requests are answered with {status}", share.as_percent())
        }),
    );
}

fn changes(what: &str, fields: &FieldEdits, notes: &mut Vec<String>) {
    let (dropped, added) = fields.changes();
    notes.extend(dropped.map(|name| format!("{what}: without {name}")));
    notes.extend(added.map(|(name, value)| format!("{what}: with {name}: {value}")));
}
