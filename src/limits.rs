//! Every bound and timeout: its unit, its default, its upper bound, and why.
//!
//! The fields of [`Limits`] are the keys of `limits:` in the bootstrap file. Constants are bounds that no
//! operator needs to turn.

use std::time::Duration;

/// What `limits:` in the bootstrap file sets. [`Limits::default`] holds the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `helloTimeout`: from accept to the end of the ClientHello (or the first byte of HTTP). Absolute, so that
    /// a byte a second does not extend it. Default 10 s, at most 1 h.
    pub hello_timeout: Duration,
    /// `helloBytes`: most bytes buffered for a ClientHello. Post-quantum key shares make hellos of several KiB in
    /// several records; larger than this is an attack or a mistake. Default and most 64 KiB.
    pub hello_bytes: usize,
    /// `requestHeadTimeout`: from the first byte of a request to the end of its head. Absolute. Default 10 s.
    pub request_head_timeout: Duration,
    /// `requestHeadBytes`: most bytes of a request or response head. Default 64 KiB, at most 1 MiB.
    pub request_head_bytes: usize,
    /// `requestHeaders`: most fields of a request or response head. Default 100, at most 1,000.
    pub request_headers: usize,
    /// `bodyIdleTimeout`: longest silence while a body is under way, in either direction. Default 60 s.
    pub body_idle_timeout: Duration,
    /// `httpIdleTimeout`: longest wait for the next request of a client connection. Default 1 h, as Istio's.
    pub http_idle_timeout: Duration,
    /// `tunnelIdleTimeout`: longest silence of a tunnel in both directions. Default 1 h, as Istio's.
    pub tunnel_idle_timeout: Duration,
    /// `sessionsPerWorker`: most client connections of one worker; each further request at once on one in HTTP/2 counts as
    /// another. Default 100,000, at most 1,000,000.
    pub sessions_per_worker: usize,
    /// `sessionsPerSource`: most of them from one source address. Default off.
    pub sessions_per_source: Option<usize>,
    /// `interimResponses`: most 1xx responses before the final one. Default 16, at most 100.
    pub interim_responses: usize,
    /// `trailerBytes`: most bytes of a trailer section. Default 8 KiB, at most 64 KiB.
    pub trailer_bytes: usize,
    /// `chunkExtensionBytes`: most bytes of chunk extensions in one body. Default 4 KiB, at most 64 KiB.
    pub chunk_extension_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(10),
            hello_bytes: HELLO_BYTES_MAX,
            request_head_timeout: Duration::from_secs(10),
            request_head_bytes: 64 * 1024,
            request_headers: 100,
            body_idle_timeout: Duration::from_secs(60),
            http_idle_timeout: Duration::from_secs(3600),
            tunnel_idle_timeout: Duration::from_secs(3600),
            sessions_per_worker: 100_000,
            sessions_per_source: None,
            interim_responses: 16,
            trailer_bytes: 8 * 1024,
            chunk_extension_bytes: 4 * 1024,
        }
    }
}

/// Upper bound of `helloBytes`: one handshake message of this size spans at least four records.
pub const HELLO_BYTES_MAX: usize = 64 * 1024;

/// Upper bound of `requestHeadBytes`.
pub const HEAD_BYTES_MAX: usize = 1024 * 1024;

/// Upper bound of `requestHeaders`; the parser's slots for one head are a fixed array of this many.
pub const HEADERS_MAX: usize = 1000;

/// Upper bound of `spin`: a worker that finds nothing for a millisecond saves nobody any time by looking on.
pub const SPIN_MAX: Duration = Duration::from_millis(1);

/// Bytes of AUDIT rules' names in a log line, behind which further names are left out: a name has a few dozen, and few
/// policies audit at once.
pub const AUDITED_BYTES_MAX: usize = 1024;

/// Upper bound of every timeout: a day. A limit that never ends is none.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Most memory of a session that holds no data: one that waits for a hello, a head, the next request, or the bytes of a
/// tunnel. Beside it stand the kernel's socket buffers, and [`HTTP2_CONNECTION_BYTES_MAX`]. Kept under load by
/// `tests/hostile/memory.rs`.
pub const SESSION_IDLE_BYTES_MAX: usize = 16 * 1024;

/// Most memory of a session, whatever its peers send and do not read: what one read brings, once for each direction,
/// encrypted or framed anew, in buffers that have grown by doubling. Kept as the former is.
pub const SESSION_BYTES_MAX: usize = 5 * SCRATCH_BYTES;

/// Bytes of a worker's scratch buffer: one read takes at most this much. Bulk transfers wake the worker once per
/// read, so a larger buffer means fewer wake-ups per byte.
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// Bytes that an upstream may gather of an answer whose length is known before they are read: four TLS records. Reading
/// record by record would cost a wake-up and two system calls for each.
pub const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Below this many missing bytes it does not pay to say so.
pub const GATHERED_BYTES_MIN: usize = 16 * 1024;

/// How long such bytes may lie (up to two ticks of the workers' timers more); an upstream that takes longer is read as it
/// comes for the rest of the answer.
pub const GATHER_TIMEOUT: Duration = Duration::from_millis(1);

/// Size asked for the pipes of the splice path, in bytes. The kernel caps what one user may pin
/// (`fs.pipe-user-pages-soft`, pipe(7)); a smaller pipe only costs more calls.
pub const PIPE_BYTES: usize = 1024 * 1024;

/// Most idle pipes that a worker keeps. Beyond the quota of pipe(7) the kernel shrinks new pipes to one page.
pub const PIPES_IDLE_MAX: usize = 16;

/// Idle upstream connections that a worker keeps per destination.
pub const POOL_IDLE_PER_DESTINATION: usize = 2048;

/// Idle upstream connections that a worker keeps in all.
pub const POOL_IDLE_MAX: usize = 4096;

/// Longest an upstream connection waits in a pool, as Istio's default for HTTP.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Requests that wait in one worker for a connection to a cluster at its `maxConnections`, unless a DestinationRule says
/// `http1MaxPendingRequests`. Istio sets no bound; each of them is a client that waits.
pub const PENDING_REQUESTS_MAX: usize = 1024;

/// Endpoints of one cluster that a worker keeps outlier statistics of; more are never ejected.
pub const OUTLIER_ENDPOINTS_MAX: usize = 4096;

/// Most bytes of a forward proxy's answer to CONNECT.
pub const FORWARD_PROXY_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Most 1xx answers of a forward proxy before the one that counts.
pub const FORWARD_PROXY_INTERIM_MAX: usize = 4;

/// Most bytes of a peer's part of a TLS handshake. rustls takes messages of up to 64 KiB, and certificates are one.
pub const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;

/// Longest wait for the TLS handshake with an upstream, after the connection was made.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most memory of a connection in HTTP/2 beside what its streams hold, each of which may hold [`SESSION_BYTES_MAX`], and what
/// small frames cost ([`HTTP2_SMALL_DATA_BYTES_MAX`]): h2's buffers and tables. Kept as the former is.
pub const HTTP2_CONNECTION_BYTES_MAX: usize = 64 * 1024;

/// Streams of a connection in HTTP/2, of a client or to an upstream: as many requests are under way on it as RFC 9113
/// section 6.5.2 wants allowed at least. An upstream may allow fewer.
pub const HTTP2_STREAMS_MAX: u32 = 100;

/// Window of a stream of a client, in bytes: what it may send of a body before the upstream takes any. Clients are near.
pub const HTTP2_CLIENT_WINDOW_BYTES: u32 = 64 * 1024;

/// Window of a stream of an upstream: what waits for a client that is slow, and what crosses a long way in one round trip.
pub const HTTP2_UPSTREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// Bytes that a stream hands over to be sent before its connection has sent any; what is more stays with the session.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Most bytes that a session takes from one side at once where the other is a stream: what the stream has no room for, it
/// has to keep.
pub const HTTP2_SESSION_READ_BYTES: usize = 64 * 1024;

/// Largest frame that is taken (RFC 9113 section 4.2: no smaller one may be asked for).
pub const HTTP2_FRAME_BYTES_MAX: u32 = 16 * 1024;

/// What a frame of data costs at least while nobody takes it: what h2 keeps for it, beside bytes. A smaller one costs the
/// difference.
pub const HTTP2_SMALL_DATA_BYTES: usize = 256;

/// What small frames of data may cost beyond their bytes on one connection. A client's that costs more is closed; of an
/// upstream's, which many clients share, the stream is given up that costs the most.
pub const HTTP2_SMALL_DATA_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Streams that were reset by us and are remembered for a moment, so that what is still on its way to them is no fault.
pub const HTTP2_RESET_STREAMS_REMEMBERED: usize = 1024;

/// Streams that a client may open and reset before anybody has looked at them.
pub const HTTP2_UNSEEN_RESETS_MAX: usize = 32;

/// Streams that a client may have reset by its own faults over the life of a connection (CVE-2025-8671, "MadeYouReset").
/// Streams beyond [`HTTP2_STREAMS_MAX`] count as well, which a client may open before it knows that number.
pub const HTTP2_FAULTS_MAX: usize = 1024;

/// Requests that a client may take back before it is looked at whether it takes back most of them (CVE-2023-44487, "Rapid
/// Reset"): then its connection is closed. A connection to an upstream of which as many were taken back, by whatever clients,
/// carries no further ones.
pub const HTTP2_RESETS_MAX: u32 = 256;

/// Copies of requests (`mirror`) of one worker that may be under way at once. Nobody waits for their answers, so nothing else
/// would bound them.
pub const COPIES_MAX: usize = 256;

/// Most bytes of a body that is copied, framing included: it is kept until it is whole, as the copy is sent then.
pub const COPIED_BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes that a worker keeps of requests that are to be copied and have not been sent whole yet, heads included. With those of
/// the copies under way, copies cost a worker at most this and [`COPIES_MAX`] times a head and [`COPIED_BODY_BYTES_MAX`]: some
/// 24 MiB, and as much again for mirrors that take nothing.
pub const COPIED_BYTES_PER_WORKER: usize = 8 * 1024 * 1024;

/// The same of one client address: an eighth, so that clients who never end their requests leave room for others.
pub const COPIED_BYTES_PER_SOURCE: usize = COPIED_BYTES_PER_WORKER / 8;

/// Most bytes that are read of the answer to a copy, its head included, for the sake of the connection: it is thrown away, and
/// what a longer one would cost is more than another connection.
pub const COPY_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Longest that a copy of a request may take, its answer included. The route's `timeout` may be shorter.
pub const COPY_TIMEOUT: Duration = Duration::from_secs(30);

/// Frames that carry no message (pings, settings, priorities, resets, windows, empty ones) which a connection may bring at
/// once; each makes work and none is of use. More are earned by time, heads, and data in either direction.
pub const HTTP2_IDLE_FRAMES_MAX: u64 = 10_000;

/// More of them for each second.
pub const HTTP2_IDLE_FRAMES_PER_SECOND: u64 = 10;

/// More of them for each request: windows, a priority, a reset, and of an upstream its heads, interim ones among them.
pub const HTTP2_IDLE_FRAMES_PER_HEAD: u64 = 16;

/// More of them for each frame of data, in either direction: two windows, and the pings by which gRPC measures its way.
pub const HTTP2_IDLE_FRAMES_PER_DATA: u64 = 4;

/// Reads of a connection before others get their turn.
pub const HTTP2_READS_IN_A_ROW_MAX: u32 = 16;

/// Bytes of a connection that are sent in one call.
pub const HTTP2_WRITE_BYTES: usize = 32 * 1024;

/// Bytes of TLS that a connection takes from its socket at once, for frames to be read from: four records.
pub const HTTP2_LINE_BYTES: usize = 64 * 1024;

/// How long session tickets are sealed with one key. They are good for that long and for another such period, which
/// bounds how long a client is believed to be who its certificate said it was.
pub const TICKET_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// Most bytes that a TLS client may make us owe it, by key updates, while it takes nothing.
pub const TLS_ANSWERS_BYTES_MAX: usize = 4 * 1024;

/// Longest wait for an answer of the resolver thread.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Names that a worker keeps resolved; beyond it the cache starts afresh.
pub const RESOLVED_NAMES_MAX: usize = 16 * 1024;

/// Names that a worker may be waiting for at once; beyond it a session is refused.
pub const RESOLVING_NAMES_MAX: usize = 1024;

/// Addresses that are kept of one answer.
pub const ADDRESSES_PER_NAME_MAX: usize = 64;

/// Addresses that are tried for one session before it fails.
pub const DIAL_ATTEMPTS_MAX: usize = 4;

/// Batches of access-log lines that wait for the writer; beyond it they are dropped and counted.
pub const LOG_QUEUE_BATCHES: usize = 1024;

/// A worker hands its access-log lines over when they fill this many bytes…
pub const LOG_BATCH_BYTES: usize = 32 * 1024;

/// …or when the oldest has waited this long.
pub const LOG_BATCH_DELAY: Duration = Duration::from_millis(10);

/// Rows of the table of denied destinations that a worker keeps.
pub const DENIED_ROWS_MAX: usize = 1024;

/// Connections that one wake-up of the accept task takes before others get their turn.
pub const ACCEPT_BATCH: usize = 64;

/// Length of the kernel's accept queue; capped by `net.core.somaxconn`.
pub const ACCEPT_BACKLOG: i32 = 4096;

/// Rounds that one direction of a relay, or an exchange of HTTP, makes before it gives way to other sessions.
pub const RELAY_ROUNDS_MAX: usize = 16;

/// A body that a denied request still sends is read and thrown away up to here, so that the client can read its
/// answer; beyond it the connection is closed.
pub const DRAINED_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Rows of one metric that a worker keeps (hosts, statuses and flags multiply); beyond it new label sets are counted
/// as `unknown`.
pub const METRIC_ROWS_MAX: usize = 16 * 1024;

/// Names that the control thread remembers; about twice the size of what one worker keeps.
pub const DNS_NAMES_MAX: usize = 32 * 1024;

/// DNS look-ups that run at once; each is two queries, each with a socket of its own.
pub const DNS_LOOKUPS_MAX: usize = 64;

/// Names that may wait for DNS; beyond it a session is refused.
pub const DNS_WAITING_MAX: usize = 4096;

/// DNS look-ups that run at once for names of one domain: a quarter, so that name servers that never answer for one
/// domain leave room for others.
pub const DNS_LOOKUPS_PER_DOMAIN: usize = DNS_LOOKUPS_MAX / 4;

/// Names of one domain that may wait for DNS. Less than [`RESOLVING_NAMES_MAX`], so that they leave room in a worker, too.
pub const DNS_WAITING_PER_DOMAIN: usize = 512;

/// Longest wait for one answer of one name server.
pub const DNS_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Attempts after the first, for each name.
pub const DNS_ATTEMPTS: usize = 2;

/// Longest look-up of a name, all attempts and servers together.
pub const DNS_LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest wait for the addresses of the second family once there are some of the first. RFC 8305 section 3 would wait
/// 50 ms; an answer without one family is asked for again after [`DNS_FAILURE_TTL`], so this may be more patient.
pub const DNS_SECOND_FAMILY_TIMEOUT: Duration = Duration::from_millis(300);

/// Shortest use of an answer: a validity of 0 would mean a look-up per session.
pub const DNS_TTL_MIN: Duration = Duration::from_secs(1);

/// Longest use of an answer: a day, as unbound's default.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Longest belief in a name's absence (RFC 2308 section 5 recommends one to three hours; deployments mend sooner).
pub const DNS_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);

/// How long a failed look-up is not repeated.
pub const DNS_FAILURE_TTL: Duration = Duration::from_secs(5);

/// How long an expired answer may serve while name servers fail (RFC 8767 section 5 suggests one to three days; an
/// address of the outside world that is hours old is likely somebody else's).
pub const DNS_STALE_MAX: Duration = Duration::from_secs(3600);

/// How long an expired answer serves before the name servers are tried again (RFC 8767 section 4: 30 s).
pub const DNS_STALE_TTL: Duration = Duration::from_secs(30);

/// Longest start: workers that are neither accepting nor failed by then never will be.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the control thread looks whether its workers live.
pub const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);

/// How often watched files are looked at; a change takes force after two looks.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Files that are watched.
pub const WATCH_FILES_MAX: usize = 100_000;

/// Levels of folders that are watched: `credentials/NAME/tls.crt` has two.
pub const WATCH_DEPTH_MAX: usize = 3;

/// Longest wait for workers to put a new configuration in force. They do so between two events.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How much longer than `drain.timeout` the control thread waits for workers to end.
pub const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// Longest wait for the access log to be written at the end of a drain.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The same where the operator said to exit at once.
pub const LOG_FLUSH_TIMEOUT_AT_ONCE: Duration = Duration::from_millis(100);

/// Admin connections at a time; more wait in the kernel's queue.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Longest wait for the head of an admin request.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest admin request, answer included. `POST /reload` waits for the reload.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait for the workers' counters.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes that `portcullis get` reads of an answer.
pub const ADMIN_ANSWER_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Longest wait for the first bytes of a captured client on a port of which no resource speaks. A client that speaks
/// first does so within a moment, and its server name or its requests are logged; where the server speaks first this is
/// all that it costs to be let through (ALLOW_ANY), or refused.
pub const UNLISTED_PEEK_TIMEOUT: Duration = Duration::from_millis(300);

const _: () = assert!(DNS_LOOKUP_TIMEOUT.as_millis() < RESOLVE_TIMEOUT.as_millis()); // The worker hears the reason.
const _: () = assert!(DNS_ATTEMPT_TIMEOUT.as_millis() * (DNS_ATTEMPTS as u128 + 1) <= DNS_LOOKUP_TIMEOUT.as_millis());
const _: () = assert!(DNS_WAITING_PER_DOMAIN < RESOLVING_NAMES_MAX); // A domain cannot fill a worker's table.
const _: () = assert!(HELLO_BYTES_MAX <= SCRATCH_BYTES); // A peeked hello is replayed from the scratch.
const _: () = assert!(LOG_BATCH_BYTES < SCRATCH_BYTES);
const _: () = assert!(HANDSHAKE_BYTES_MAX < SCRATCH_BYTES); // What comes with a handshake, plus a read, is read from the scratch.
const _: () = assert!(COPIED_BODY_BYTES_MAX * 2 < COPIED_BYTES_PER_SOURCE); // The largest body has room while it grows.
const _: () = assert!(GATHERED_BYTES_MAX <= SCRATCH_BYTES); // One read takes what was gathered.
// A stream that nobody reads must not stop the others of its connection.
const _: () = assert!(HTTP2_STREAMS_MAX as u64 * (HTTP2_UPSTREAM_WINDOW_BYTES as u64) < 1 << 31);
// A stream costs no more than a session of its own would.
const _: () = assert!(
    HTTP2_UPSTREAM_WINDOW_BYTES as usize + 2 * HTTP2_SESSION_READ_BYTES + HTTP2_SEND_BUFFER_BYTES < SESSION_BYTES_MAX
);
