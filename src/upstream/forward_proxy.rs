//! Tunnels through another proxy: CONNECT (RFC 9110 section 9.3.6), and its answer read to the byte.

use std::time::Duration;

use crate::limits::{FORWARD_PROXY_ANSWER_BYTES_MAX, FORWARD_PROXY_INTERIM_MAX};
use crate::net::{Received, Socket, within};
use crate::wire::http1::{HeadLimits, Parsed, parse_response};

/// Fields of an answer; nobody looks at them.
const FIELDS_MAX: usize = 100;

/// Makes a tunnel to `target`, a host and a port, of a connection to a proxy. What the proxy sends behind its answer
/// stays in the socket: it comes from the target.
///
/// # Errors
/// What the log shows: the proxy's refusal, or an answer that is none.
pub async fn connect(socket: &Socket, target: &str, patience: Duration) -> Result<(), String> {
    let outcome = within(patience, ask(socket, target)).await;
    outcome.unwrap_or_else(|| Err(format!("CONNECT {target}: no answer within {patience:?}")))
}

async fn ask(socket: &Socket, target: &str) -> Result<(), String> {
    let explain = |error: std::io::Error| format!("CONNECT {target}: {error}");
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    socket.send_all(request.as_bytes()).await.map_err(explain)?;
    for _ in 0..=FORWARD_PROXY_INTERIM_MAX {
        match answer(socket).await.map_err(|reason| format!("CONNECT {target}: {reason}"))? {
            200..=299 => return Ok(()),
            // 101 would be the answer to another question.
            100 | 102..=199 => {}
            status => return Err(format!("CONNECT {target}: the proxy answered {status}")),
        }
    }
    Err(format!("CONNECT {target}: too many interim answers"))
}

/// The status of the next head, which alone is taken from the socket.
async fn answer(socket: &Socket) -> Result<u16, String> {
    let limits = HeadLimits { bytes: FORWARD_PROXY_ANSWER_BYTES_MAX, fields: FIELDS_MAX };
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        socket.readable().await.map_err(|error| error.to_string())?;
        let count = match socket.peek(&mut piece).map_err(|error| error.to_string())? {
            Received::Bytes(count) => count,
            Received::Pending => continue,
            Received::End => return Err("the proxy closed without an answer".to_owned()),
        };
        let before = head.len();
        head.extend_from_slice(&piece[..count]);
        // A success has no body, whatever its fields say (RFC 9110 section 9.3.6); those of a refusal are not read.
        let (taken, status) = match parse_response(&head, limits, true) {
            Parsed::Complete(response) => {
                ((response.head.len as usize).saturating_sub(before).max(1), Some(response.status))
            }
            Parsed::Incomplete => (count, None),
            Parsed::Rejected(error) => return Err(format!("the proxy's answer: {error}")),
        };
        // What has been looked at is there.
        socket.receive(&mut piece[..taken]).map_err(|error| error.to_string())?;
        if let Some(status) = status {
            return Ok(status);
        }
    }
}
