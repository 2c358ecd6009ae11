//! The access log: one line per request or session, formatted on the worker, written by a thread of its own.
//!
//! Both forms are Istio's defaults. An absent value is `-` in the text form and `null` in the JSON form.

use std::net::SocketAddr;

use crate::snapshot::AccessLog;

use super::record::{HttpRecord, Record};
use super::{escape, field};

/// Appends the line of `record`, newline included, in Istio's default text or JSON format.
///
/// Control characters, quotes and backslashes in texts that the client chose are escaped, so that a line is one
/// line and a field is one field.
pub fn format(record: &Record<'_>, form: AccessLog, out: &mut Vec<u8>) {
    match form {
        // A format of the operator's is written by itself.
        AccessLog::Off | AccessLog::Custom => {}
        AccessLog::Text => text(record, out),
        AccessLog::Json => json(record, out),
    }
}

/// The HTTP side of a session that has none.
const NO_HTTP: HttpRecord<'static> = HttpRecord {
    in_tls: false,
    method: b"",
    path: b"",
    protocol: "",
    status: 0,
    details: "",
    upstream_service_time: None,
    forwarded_for: None,
    user_agent: None,
    request_id: None,
    authority: None,
    head: None,
    answer_fields: &[],
};

fn text(record: &Record<'_>, out: &mut Vec<u8>) {
    let http = record.http.as_ref().unwrap_or(&NO_HTTP);
    out.push(b'[');
    field::time(record.start, out);
    out.extend_from_slice(b"] \"");
    bare_or_dash(Some(http.method), out);
    out.push(b' ');
    bare_or_dash(Some(http.path), out);
    out.push(b' ');
    bare_or_dash(Some(http.protocol.as_bytes()), out);
    out.extend_from_slice(b"\" ");
    field::number(u64::from(http.status), out);
    word(Some(record.flags), out);
    word(Some(http.details), out);
    word(record.termination, out);
    phrase(record.transport_failure.map(str::as_bytes), out);
    text_numbers(record, http, out);
    phrase(http.forwarded_for, out);
    phrase(http.user_agent, out);
    phrase(http.request_id, out);
    phrase(http.authority, out);
    text_addresses(record, out);
    word(record.server_name, out);
    word(record.route, out);
    out.push(b'\n');
}

fn text_numbers(record: &Record<'_>, http: &HttpRecord<'_>, out: &mut Vec<u8>) {
    out.push(b' ');
    field::number(record.bytes_received, out);
    out.push(b' ');
    field::number(record.bytes_sent, out);
    out.push(b' ');
    field::milliseconds(record.duration, out);
    out.push(b' ');
    match http.upstream_service_time {
        Some(duration) => field::milliseconds(duration, out),
        None => out.push(b'-'),
    }
}

fn text_addresses(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b" \"");
    address_or_dash(record.upstream, out);
    out.push(b'"');
    word(record.cluster, out);
    for address in [record.upstream_local, Some(record.downstream_local), Some(record.downstream_remote)] {
        out.push(b' ');
        address_or_dash(address, out);
    }
}

fn address_or_dash(address: Option<SocketAddr>, out: &mut Vec<u8>) {
    match address {
        Some(address) => field::address(address, out),
        None => out.push(b'-'),
    }
}

/// A space, and a value without quotes.
fn word(value: Option<&str>, out: &mut Vec<u8>) {
    out.push(b' ');
    bare_or_dash(value.map(str::as_bytes), out);
}

/// An empty value would make the fields behind it move up.
fn bare_or_dash(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None | Some([]) => out.push(b'-'),
        Some(value) => escape::bare(value, out),
    }
}

/// A space, and a value in quotes.
fn phrase(value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b" \"");
    escape::quoted(value.unwrap_or(b"-"), out);
    out.push(b'"');
}

fn json(record: &Record<'_>, out: &mut Vec<u8>) {
    let http = record.http.as_ref();
    out.extend_from_slice(b"{\"start_time\":\"");
    field::time(record.start, out);
    out.push(b'"');
    json_text(b"route_name", record.route.map(str::as_bytes), out);
    json_text(b"method", http.map(|http| http.method), out);
    json_text(b"path", http.map(|http| http.path), out);
    json_text(b"protocol", http.map(|http| http.protocol.as_bytes()), out);
    json_number(b"response_code", u64::from(http.map_or(0, |http| http.status)), out);
    json_text(b"response_flags", Some(record.flags.as_bytes()), out);
    json_text(b"response_code_details", http.map(|http| http.details.as_bytes()), out);
    json_text(b"connection_termination_details", record.termination.map(str::as_bytes), out);
    json_number(b"bytes_received", record.bytes_received, out);
    json_number(b"bytes_sent", record.bytes_sent, out);
    json_key(b"duration", out);
    field::milliseconds(record.duration, out);
    json_key(b"upstream_service_time", out);
    match http.and_then(|http| http.upstream_service_time) {
        Some(duration) => field::milliseconds(duration, out),
        None => out.extend_from_slice(b"null"),
    }
    json_text(b"x_forwarded_for", http.and_then(|http| http.forwarded_for), out);
    json_text(b"user_agent", http.and_then(|http| http.user_agent), out);
    json_text(b"request_id", http.and_then(|http| http.request_id), out);
    json_text(b"authority", http.and_then(|http| http.authority), out);
    json_address(b"upstream_host", record.upstream, out);
    json_text(b"upstream_cluster", record.cluster.map(str::as_bytes), out);
    json_address(b"upstream_local_address", record.upstream_local, out);
    json_address(b"downstream_local_address", Some(record.downstream_local), out);
    json_address(b"downstream_remote_address", Some(record.downstream_remote), out);
    json_text(b"requested_server_name", record.server_name.map(str::as_bytes), out);
    json_text(b"upstream_transport_failure_reason", record.transport_failure.map(str::as_bytes), out);
    out.extend_from_slice(b"}\n");
}

fn json_key(key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
}

/// Empty texts mean that there was none: a head that did not parse has no method.
fn json_text(key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    json_key(key, out);
    match value {
        None | Some([]) => out.extend_from_slice(b"null"),
        Some(value) => escape::json(value, out),
    }
}

fn json_number(key: &[u8], value: u64, out: &mut Vec<u8>) {
    json_key(key, out);
    field::number(value, out);
}

fn json_address(key: &[u8], value: Option<SocketAddr>, out: &mut Vec<u8>) {
    json_key(key, out);
    match value {
        None => out.extend_from_slice(b"null"),
        Some(address) => {
            out.push(b'"');
            field::address(address, out);
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn request() -> Record<'static> {
        Record {
            start: UNIX_EPOCH + Duration::from_millis(1_772_352_930_042),
            duration: Duration::from_micros(12_900),
            http: Some(HttpRecord {
                method: b"GET",
                path: b"/books/v1?q=x",
                protocol: "HTTP/1.1",
                status: 200,
                details: "via_upstream",
                upstream_service_time: Some(Duration::from_millis(11)),
                forwarded_for: None,
                user_agent: Some(b"curl/8.5.0"),
                request_id: Some(b"6f1c"),
                authority: Some(b"www.googleapis.com"),
                ..NO_HTTP
            }),
            flags: "-",
            termination: None,
            transport_failure: None,
            bytes_received: 0,
            bytes_sent: 5_120,
            upstream: Some("142.250.74.74:443".parse().unwrap()),
            cluster: Some("outbound|443||www.googleapis.com"),
            service: Some("www.googleapis.com"),
            upstream_local: Some("10.0.0.5:51234".parse().unwrap()),
            downstream_local: "127.0.0.1:8080".parse().unwrap(),
            downstream_remote: "127.0.0.1:40000".parse().unwrap(),
            server_name: None,
            route: Some("default"),
            originated_tls: true,
            audited: None,
        }
    }

    fn blocked_session() -> Record<'static> {
        Record {
            http: None,
            flags: "UH",
            termination: Some("host_not_listed"),
            bytes_received: 517,
            bytes_sent: 7,
            upstream: None,
            cluster: Some("BlackHoleCluster"),
            service: None,
            upstream_local: None,
            server_name: Some("www.example.com"),
            route: None,
            originated_tls: false,
            ..request()
        }
    }

    fn line(record: &Record<'_>, form: AccessLog) -> String {
        let mut out = Vec::new();
        format(record, form, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_a_line_in_istios_default_format() {
        assert_eq!(
            line(&request(), AccessLog::Text),
            "[2026-03-01T08:15:30.042Z] \"GET /books/v1?q=x HTTP/1.1\" 200 - via_upstream - \"-\" 0 5120 12 11 \
             \"-\" \"curl/8.5.0\" \"6f1c\" \"www.googleapis.com\" \"142.250.74.74:443\" \
             outbound|443||www.googleapis.com 10.0.0.5:51234 127.0.0.1:8080 127.0.0.1:40000 - default\n"
        );
    }

    #[test]
    fn a_blocked_session_is_a_line_with_its_server_name() {
        assert_eq!(
            line(&blocked_session(), AccessLog::Text),
            "[2026-03-01T08:15:30.042Z] \"- - -\" 0 UH - host_not_listed \"-\" 517 7 12 - \"-\" \"-\" \"-\" \"-\" \
             \"-\" BlackHoleCluster - 127.0.0.1:8080 127.0.0.1:40000 www.example.com -\n"
        );
    }

    #[test]
    fn a_client_cannot_add_a_line_or_a_field() {
        let mut record = request();
        record.server_name = Some("a b");
        record.http =
            Some(HttpRecord { method: b"GET", path: b"/\" 200\n[", user_agent: Some(b"x\" \"y\r\nz\xff"), ..NO_HTTP });
        let text = line(&record, AccessLog::Text);
        assert!(text.contains(r#""GET /\"\x20200\x0a[ -" 0 "#), "{text}");
        assert!(text.contains(r#""x\" \"y\x0d\x0az\xff""#), "{text}");
        assert!(text.ends_with(" a\\x20b default\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
        let json = line(&record, AccessLog::Json);
        assert_eq!(json.lines().count(), 1);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["user_agent"], "x\" \"y\r\nz\u{fffd}");
    }

    #[test]
    fn a_request_is_a_json_object_with_typed_numbers() {
        assert_eq!(
            line(&request(), AccessLog::Json),
            "{\"start_time\":\"2026-03-01T08:15:30.042Z\",\"route_name\":\"default\",\"method\":\"GET\",\
             \"path\":\"/books/v1?q=x\",\"protocol\":\"HTTP/1.1\",\"response_code\":200,\"response_flags\":\"-\",\
             \"response_code_details\":\"via_upstream\",\"connection_termination_details\":null,\
             \"bytes_received\":0,\"bytes_sent\":5120,\"duration\":12,\"upstream_service_time\":11,\
             \"x_forwarded_for\":null,\"user_agent\":\"curl/8.5.0\",\"request_id\":\"6f1c\",\
             \"authority\":\"www.googleapis.com\",\"upstream_host\":\"142.250.74.74:443\",\
             \"upstream_cluster\":\"outbound|443||www.googleapis.com\",\"upstream_local_address\":\"10.0.0.5:51234\",\
             \"downstream_local_address\":\"127.0.0.1:8080\",\"downstream_remote_address\":\"127.0.0.1:40000\",\
             \"requested_server_name\":null,\"upstream_transport_failure_reason\":null}\n"
        );
    }

    #[test]
    fn a_blocked_session_is_a_json_object_with_all_24_keys() {
        let read: serde_json::Value = serde_json::from_str(&line(&blocked_session(), AccessLog::Json)).unwrap();
        assert_eq!(read.as_object().unwrap().len(), 24);
        assert_eq!(read["method"], serde_json::Value::Null);
        assert_eq!(read["response_code"], 0);
        assert_eq!(read["response_flags"], "UH");
        assert_eq!(read["upstream_host"], serde_json::Value::Null);
        assert_eq!(read["requested_server_name"], "www.example.com");
    }

    #[test]
    fn nothing_is_written_while_the_log_is_off() {
        assert_eq!(line(&request(), AccessLog::Off), "");
    }
}
