//! TLS that the client encrypts end to end: the gateway reads the server name and passes the bytes on.

mod support;

#[test]
fn compiles() {
    let _ = support::gateway::Gateway::builder();
}
