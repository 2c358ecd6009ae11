//! Peers that speak HTTP/2: a server outside, as gRPC services are, and a client. Both are h2, driven by tokio.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::{DEADLINE, wait_until};

/// A server in plain text, with prior knowledge, on a port of its own.
pub(crate) struct Server {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    /// Dropped, it ends the server.
    _stop: oneshot::Sender<()>,
}

/// What has reached a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// Requests under way at once, at most.
    pub(crate) most_at_once: usize,
    under_way: usize,
    /// Requests that were reset by the other side.
    pub(crate) given_up: usize,
    /// Names of the last trailers of `/echo`, in order.
    pub(crate) trailers: Vec<String>,
}

impl Server {
    /// With h2's settings.
    pub(crate) fn start() -> Self {
        Self::allowing(100)
    }

    /// A server that lets so many streams be open at once.
    pub(crate) fn allowing(streams: u32) -> Self {
        Self::listening((Ipv4Addr::LOCALHOST, 0).into(), streams)
    }

    /// A server at this address.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self::listening(address, 100)
    }

    fn listening(address: SocketAddr, streams: u32) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind(address)).expect("loopback has free ports");
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::<Mutex<Seen>>::default();
        let (stop, stopped) = oneshot::channel();
        let counted = Arc::clone(&seen);
        thread::spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = accept(listener, streams, counted) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, seen, _stop: stop }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("no panics").clone()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&Seen) -> bool) -> Seen {
        wait_until(what, || Some(self.seen()).filter(&condition))
    }
}

async fn accept(listener: TcpListener, streams: u32, seen: Arc<Mutex<Seen>>) {
    while let Ok((socket, _)) = listener.accept().await {
        seen.lock().expect("no panics").connections += 1;
        tokio::spawn(serve(socket, streams, Arc::clone(&seen)));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn serve(socket: TcpStream, streams: u32, seen: Arc<Mutex<Seen>>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut connection) = builder.handshake(socket).await else { return };
    while let Some(Ok((request, answer))) = connection.accept().await {
        {
            let mut seen = seen.lock().expect("no panics");
            seen.requests += 1;
            seen.under_way += 1;
            seen.most_at_once = seen.most_at_once.max(seen.under_way);
        }
        if request.uri().path() == "/crash" {
            return;
        }
        if request.uri().path() == "/goaway" {
            connection.graceful_shutdown();
        }
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let result = respond(request, answer, &seen).await;
            let mut seen = seen.lock().expect("no panics");
            seen.under_way -= 1;
            seen.given_up += usize::from(result.is_err());
        });
    }
}

/// | path | answer |
/// | --- | --- |
/// | `/echo` | what arrives, as it arrives; then `grpc-status: 0`, and the request's trailers |
/// | `/denied` | trailers only: `grpc-status: 7` |
/// | `/bytes/N` | N bytes |
/// | `/refuse` | refused unseen, every other time |
/// | `/break` | half an answer, then a reset |
/// | `/crash` | none: the connection ends |
/// | `/hang` | none, until the other side gives up |
/// | `/interim` | a 103 first |
/// | others | what was asked |
async fn respond(
    request: Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
    seen: &Mutex<Seen>,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_owned();
    let ok = || Response::builder().header("content-type", "application/grpc");
    match path.as_str() {
        "/echo" => {
            let mut stream = answer.send_response(ok().body(()).expect("valid"), false)?;
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let data = data?;
                let _ = body.flow_control().release_capacity(data.len());
                send(&mut stream, data).await?;
            }
            let mut trailers = body.trailers().await?.unwrap_or_default();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut names: Vec<_> = trailers.keys().map(ToString::to_string).collect();
            names.sort();
            seen.lock().expect("no panics").trailers = names;
            stream.send_trailers(trailers)
        }
        "/denied" => {
            let response = ok().header("grpc-status", "7").body(()).expect("valid");
            answer.send_response(response, true).map(drop)
        }
        "/refuse" if seen.lock().expect("no panics").requests % 2 == 1 => {
            answer.send_reset(Reason::REFUSED_STREAM);
            Ok(())
        }
        "/break" => {
            let mut stream = answer.send_response(ok().body(()).expect("valid"), false)?;
            send(&mut stream, Bytes::from_static(b"half")).await?;
            // What was sent has to leave before the reset overtakes it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        "/hang" => Err(std::future::poll_fn(|context| answer.poll_reset(context)).await?.into()),
        _ => {
            if path == "/interim" {
                let hints = Response::builder().status(103).header("link", "</style>").body(()).expect("valid");
                answer.send_informational(hints)?;
            }
            let length = path.strip_prefix("/bytes/").and_then(|length| length.parse().ok());
            let body = match length {
                Some(length) => Bytes::from(super::pattern::bytes(length)),
                None => format!("{} {}\n{:?}", request.method(), request.uri(), request.headers()).into(),
            };
            let head = Response::builder().header("content-length", body.len()).body(()).expect("valid");
            let ends = request.method() == http::Method::HEAD;
            let mut stream = answer.send_response(head, ends)?;
            if !ends {
                send(&mut stream, body).await?;
                stream.send_data(Bytes::new(), true)?;
            }
            Ok(())
        }
    }
}

/// Sends as the window allows.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let capacity = capacity.ok_or(Reason::CANCEL)??;
        stream.send_data(data.split_to(capacity.min(data.len())), false)?;
    }
    Ok(())
}

/// A client, with a connection to the gateway.
pub(crate) struct Client {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Whether the head was the end of it.
    pub(crate) is_head_only: bool,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = runtime();
        let (sender, connection) = runtime.block_on(async {
            let socket = TcpStream::connect(address).await.expect("the gateway listens");
            h2::client::handshake(socket).await.expect("the gateway speaks HTTP/2")
        });
        let driver = runtime.spawn(connection);
        Self { runtime, sender, driver }
    }

    /// Runs something on this client's thread, within the deadline.
    #[track_caller]
    pub(crate) fn run<T>(&mut self, work: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
        let sender = self.sender.clone();
        let work = async { tokio::time::timeout(DEADLINE, work(sender)).await };
        self.runtime.block_on(work).expect("an end within the deadline")
    }

    /// Asks without a body.
    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Result<Answer, h2::Error> {
        self.ask(request("GET", host, path), None)
    }

    /// Asks, with a body of one piece and trailers behind it.
    #[track_caller]
    pub(crate) fn ask(
        &mut self,
        request: Request<()>,
        body: Option<(&'static [u8], HeaderMap)>,
    ) -> Result<Answer, h2::Error> {
        self.run(async move |sender| {
            let mut sender = sender.ready().await?;
            let (response, mut stream) = sender.send_request(request, body.is_none())?;
            if let Some((data, trailers)) = body {
                send(&mut stream, Bytes::from_static(data)).await?;
                stream.send_trailers(trailers)?;
            }
            read(response.await?).await
        })
    }

    /// How the connection has ended, once it has.
    #[track_caller]
    pub(crate) fn end(mut self) -> Result<(), h2::Error> {
        let driver = &mut self.driver;
        let end = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, driver).await });
        end.expect("an end within the deadline").expect("no panics")
    }
}

/// A request of HTTP/2.
pub(crate) fn request(method: &str, host: &str, path: &str) -> Request<()> {
    let uri = format!("http://{host}{path}");
    Request::builder().method(method).uri(uri).version(http::Version::HTTP_2).body(()).expect("a valid request")
}

/// Reads an answer to its end.
pub(crate) async fn read(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let is_head_only = stream.is_end_stream();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers, is_head_only })
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).and_then(|value| value.to_str().ok())
    }
}
