//! From a request to its answer.

use std::rc::Rc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::control::shared::{Command, Phase, Shared};
use crate::telemetry::{exposition, report};

use super::host::Own;
use super::{json, objects, page};

/// An answer; bodies are whole.
type Answer = Response<Full<Bytes>>;

/// What a connection's requests are answered from.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) shared: Rc<Shared>,
    pub(super) commands: UnboundedSender<Command>,
    pub(super) own: Own,
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Page,
    Ready,
    ServerInfo,
    Metrics,
    ConfigDump,
    Objects(&'static str),
    Denied,
    Reload,
    Drain,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/ready" => Self::Ready,
            "/server_info" => Self::ServerInfo,
            "/metrics" | "/stats/prometheus" => Self::Metrics,
            "/config_dump" => Self::ConfigDump,
            "/denied" => Self::Denied,
            "/reload" => Self::Reload,
            "/drain" => Self::Drain,
            _ => {
                let name = path.strip_prefix('/')?;
                let (_, kind) = objects::KINDS.into_iter().find(|(known, _)| *known == name)?;
                Self::Objects(kind)
            }
        })
    }

    /// Methods, as the Allow header lists them.
    fn methods(self) -> &'static str {
        if matches!(self, Self::Reload | Self::Drain) { "POST" } else { "GET, HEAD" }
    }

    fn allows(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }
}

impl Admin {
    /// Answers a request. Its body, if any, is not read.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Answer {
        if let Err(reason) = admit(self.own, &request) {
            return text(StatusCode::FORBIDDEN, reason);
        }
        let Some(endpoint) = Endpoint::of(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "no such path; GET / lists them\n");
        };
        if !endpoint.allows(request.method()) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "another method is needed here\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(endpoint.methods()));
            return answer;
        }
        match endpoint {
            Endpoint::Page => content(StatusCode::OK, "text/html; charset=utf-8", page::page(&self.shared)),
            Endpoint::Ready => self.ready(),
            Endpoint::ServerInfo => json(StatusCode::OK, &json::server_info(&self.shared)),
            Endpoint::Metrics => self.metrics().await,
            Endpoint::ConfigDump => self.objects(None).await,
            Endpoint::Objects(kind) => self.objects(Some(kind)).await,
            Endpoint::Denied => json(StatusCode::OK, &json::denied(&self.shared.reports().await)),
            Endpoint::Reload => self.reload().await,
            Endpoint::Drain => self.drain(),
        }
    }

    fn ready(&self) -> Answer {
        let phase = self.shared.status.borrow().phase;
        let status = if phase == Phase::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, format!("{}\n", phase.as_str()))
    }

    /// Big texts are made on another thread: names are resolved on this one.
    async fn metrics(&self) -> Answer {
        let (facts, reports) = (self.shared.facts(), self.shared.reports().await);
        let made = tokio::task::spawn_blocking(move || report::exposition(&facts, &reports)).await;
        made.map_or_else(failed, |text| content(StatusCode::OK, exposition::CONTENT_TYPE, text))
    }

    async fn objects(&self, kind: Option<&'static str>) -> Answer {
        let (objects, generation) = {
            let status = self.shared.status.borrow();
            (status.objects.clone(), status.generation)
        };
        let made = tokio::task::spawn_blocking(move || match kind {
            Some(kind) => objects::list(&objects, kind).to_string(),
            None => serde_json::json!({ "generation": generation, "objects": objects::dump(&objects) }).to_string(),
        });
        made.await.map_or_else(failed, |text| content(StatusCode::OK, JSON, text + "\n"))
    }

    /// Answers when the reload has ended: 200 if it took force, 422 if it was refused.
    async fn reload(&self) -> Answer {
        let (sender, result) = oneshot::channel();
        // If the gateway is ending nobody takes the command, and the result never comes.
        let _ = self.commands.send(Command::Reload(sender));
        let Ok(result) = result.await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n");
        };
        let status = if result.successful { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
        json(status, &json::reload(&result))
    }

    fn drain(&self) -> Answer {
        let _ = self.commands.send(Command::Drain);
        text(StatusCode::OK, "DRAINING\n")
    }
}

/// Whether the request names us, and comes from none of a foreign web page's.
fn admit<B>(own: Own, request: &Request<B>) -> Result<(), &'static str> {
    let foreign = "this Host is not ours; name the admin address or localhost, with the port\n";
    if let (Own::Tcp { .. }, None) = (own, only(request.headers(), header::HOST)) {
        return Err(foreign);
    }
    let host = only(request.headers(), header::HOST);
    let authority = request.uri().authority().map(hyper::http::uri::Authority::as_str);
    if !host.into_iter().chain(authority).all(|name| own.is_host(name)) {
        return Err(foreign);
    }
    let origin = request.headers().get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null"));
    match origin {
        Some(origin) if !own.is_origin(origin) => Err("requests of other sites are refused\n"),
        Some(_) | None => Ok(()),
    }
}

/// The value of a field that may be there once.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Media type of the JSON answers.
const JSON: &str = "application/json";

fn json(status: StatusCode, value: &Value) -> Answer {
    content(status, JSON, value.to_string() + "\n")
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    content(status, "text/plain; charset=utf-8", body.into())
}

fn failed(error: tokio::task::JoinError) -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

fn content(status: StatusCode, media_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let fields = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fields {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
