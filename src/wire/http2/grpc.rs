//! What the gateway itself answers to a request of gRPC: its clients look for a status among the fields, and do not expect
//! text (gRPC over HTTP/2, "Trailers-Only"; Envoy does the same).

use std::fmt::Write;

use crate::wire::http1::{FieldEdits, Head};

/// Whether a request is one of gRPC.
#[must_use]
pub fn is_grpc(head: &Head, bytes: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    head.find(bytes, "content-type").is_some_and(|value| {
        let (kind, rest) = value.split_at(value.len().min(TYPE.len()));
        kind.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';'))
    })
}

/// The fields that say what `status` and `text` say in HTTP, in addition to `fields`.
#[must_use]
pub fn grpc_fields(status: u16, text: &str, fields: &FieldEdits) -> FieldEdits {
    let mut fields = fields.clone();
    fields.set("content-type", "application/grpc");
    fields.set("grpc-status", grpc_status(status));
    let message = text.trim_end();
    if !message.is_empty() {
        fields.set("grpc-message", &percent_encoded(message));
    }
    fields
}

/// The table of gRPC for answers that are not of gRPC.
fn grpc_status(status: u16) -> &'static str {
    match status {
        400 => "13",                   // INTERNAL
        401 => "16",                   // UNAUTHENTICATED
        403 => "7",                    // PERMISSION_DENIED
        404 => "12",                   // UNIMPLEMENTED
        429 | 502 | 503 | 504 => "14", // UNAVAILABLE
        _ => "2",                      // UNKNOWN
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'%' | 0..b' ' | 0x7f.. => drop(write!(encoded, "%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_visible_text_alone() {
        assert_eq!(percent_encoded("50% off\r\né"), "50%25 off%0D%0A%C3%A9");
    }

    #[test]
    fn statuses_are_those_of_the_table() {
        let fields = grpc_fields(403, "RBAC: access denied\n", &FieldEdits::new());
        let (_, added) = fields.changes();
        let added: Vec<_> = added.collect();
        let expected =
            [("content-type", "application/grpc"), ("grpc-status", "7"), ("grpc-message", "RBAC: access denied")];
        assert_eq!(added, expected);
    }
}
