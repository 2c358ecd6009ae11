//! What is asked: a URL, a method and headers, as the bytes that a client would send.

use std::net::SocketAddr;
use std::str::FromStr;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// A client that speaks TLS.
    Tls {
        /// The host of the URL; an address means that the client sends no SNI (RFC 6066 section 3).
        host: String,
        /// The service port.
        port: u16,
        /// The request head within, where the gateway gets to see it.
        head: Vec<u8>,
    },
    /// A plain HTTP request.
    Http {
        /// The host of the URL.
        host: String,
        /// The service port.
        port: u16,
        /// The request head.
        head: Vec<u8>,
    },
    /// A captured connection.
    Captured(SocketAddr),
}

/// `--header 'NAME: VALUE'`.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    name: String,
    value: String,
}

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("a header is 'NAME: VALUE'")?;
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err("the name of a header is made of letters, digits and !#$%&'*+-.^_`|~");
        }
        if text.contains(is_line_break) {
            return Err("a header is one line");
        }
        Ok(Self { name: name.to_owned(), value: value.trim().to_owned() })
    }
}

impl Question {
    /// Reads a URL (RFC 3986) as far as it names a host, a port, a path and a query.
    ///
    /// # Errors
    /// What cannot be asked.
    pub(crate) fn read(url: &str, method: &str, headers: &[Header]) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("a URL starts with https://, http:// or tcp://")?;
        if rest.contains(is_line_break) {
            return Err("a URL is one line".to_owned());
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err("credentials in a URL are not part of what is decided; leave them out".to_owned());
        }
        match scheme.to_ascii_lowercase().as_str() {
            "https" => {
                let (host, port) = split(authority, 443)?;
                let head = head(method, target, authority, headers)?;
                Ok(Self::Tls { host: host.trim_matches(['[', ']']).to_owned(), port, head })
            }
            "http" => {
                let (host, port) = split(authority, 80)?;
                Ok(Self::Http { host: host.to_owned(), port, head: head(method, target, authority, headers)? })
            }
            "tcp" => match authority.parse() {
                Ok(address) if target.is_empty() => Ok(Self::Captured(address)),
                Ok(_) | Err(_) => Err("a captured connection is tcp://IP:PORT".to_owned()),
            },
            other => Err(format!("the scheme {other:?} is not https, http or tcp")),
        }
    }
}

fn split(authority: &str, default: u16) -> Result<(&str, u16), String> {
    let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    let (host, port) = match colon {
        Some(colon) => (&authority[..colon], authority[colon + 1..].parse().ok().filter(|port| *port > 0)),
        None => (authority, Some(default)),
    };
    let port = port.ok_or("the port is not a number from 1 to 65535")?;
    if host.is_empty() { Err("the URL names no host".to_owned()) } else { Ok((host, port)) }
}

/// The head as a client sends it: a fragment stays with the client, and a Host among the headers replaces the URL's.
fn head(method: &str, target: &str, authority: &str, headers: &[Header]) -> Result<Vec<u8>, String> {
    if method.is_empty() || !method.bytes().all(is_token_byte) {
        return Err(format!("{method:?} is not a method"));
    }
    let target = target.split('#').next().unwrap_or_default();
    let slash = if target.starts_with('/') { "" } else { "/" };
    let target = if method == "CONNECT" { authority.to_owned() } else { format!("{slash}{target}") };
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {authority}\r\n"));
    }
    for Header { name, value } in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_line_break(character: char) -> bool {
    matches!(character, '\r' | '\n' | '\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Question, String> {
        Question::read(url, "GET", &[])
    }

    fn head_of(question: Result<Question, String>) -> String {
        match question {
            Ok(Question::Http { head, .. }) => String::from_utf8(head).expect("text"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn schemes_say_what_the_client_speaks() {
        for (url, name, number) in [
            ("https://a.example", "a.example", 443),
            ("https://a.example:8443/x", "a.example", 8443),
            ("HTTPS://[::1]/", "::1", 443),
        ] {
            let asked = read(url);
            assert!(
                matches!(&asked, Ok(Question::Tls { host, port, .. }) if host == name && *port == number),
                "{asked:?}"
            );
        }
        assert_eq!(read("tcp://192.0.2.1:5432"), Ok(Question::Captured(([192, 0, 2, 1], 5432).into())));
        assert!(matches!(read("http://a.example:8080/"), Ok(Question::Http { port: 8080, .. })));
    }

    #[test]
    fn a_plain_request_is_written_as_a_client_sends_it() {
        assert_eq!(head_of(read("http://a.example:80/x?y=1#z")), "GET /x?y=1 HTTP/1.1\r\nHost: a.example:80\r\n\r\n");
        assert_eq!(head_of(read("http://a.example?y")), "GET /?y HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let headers = ["Host: b.example".parse().expect("a header"), "X-Team:blue ".parse().expect("a header")];
        assert_eq!(
            head_of(Question::read("http://a.example", "POST", &headers)),
            "POST / HTTP/1.1\r\nHost: b.example\r\nX-Team: blue\r\n\r\n"
        );
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for url in [
            "a.example",
            "ftp://a.example",
            "http://",
            "https://:443",
            "http://a:0/",
            "http://a:70000/",
            "http://user@a.example/",
            "http://a.example/\r\nX: y",
            "tcp://a.example:5432",
            "tcp://192.0.2.1",
            "tcp://192.0.2.1:5432/x",
        ] {
            assert!(read(url).is_err(), "{url}");
        }
        assert!(Question::read("http://a.example", "GET /", &[]).is_err());
        for header in ["X", ": y", "X Y: z", "X: y\r\nZ: a"] {
            assert!(header.parse::<Header>().is_err(), "{header}");
        }
    }
}
