//! A model provider for tests: an HTTP server on the loopback that speaks the exact bytes of OpenAI Chat Completions,
//! Anthropic Messages and Dify on one port, and does to its clients what the test tells it to. It is no mock: clients reach
//! it over real sockets and cannot tell it from the real thing, except by what it says.
//!
//! A test hands it one [`Script`] per request ([`ProviderDouble::script`]), or one for all others
//! ([`ProviderDouble::always`]); without any it answers with a short well-formed text. What arrived stands in the journal.

pub mod dialect;
mod journal;
mod player;
mod script;
pub mod stamp;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use self::dialect::{Dialect, Names};
use self::journal::Journal;
pub use self::journal::{Call, End};
pub use self::player::Cut;
use self::player::Player;
pub use self::script::{Driver, Gate, Script, Step};

/// How long a test waits for something in the journal before it fails.
const WAIT: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Cut>;

/// The running server. It ends when dropped, and cuts what it has open.
pub struct ProviderDouble {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    journal: Journal,
    scripts: Mutex<Scripts>,
}

#[derive(Default)]
struct Scripts {
    queue: VecDeque<Script>,
    always: Option<Script>,
}

impl ProviderDouble {
    /// Starts it on a free port of the loopback.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(0).await
    }

    /// Starts it on this port of the loopback.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn start_on(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { journal: Journal::default(), scripts: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, _tasks: tasks })
    }

    /// The base URL for all three protocols: `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next request that has no script yet is answered by this one.
    pub fn script(&self, script: Script) {
        self.shared.scripts.lock().queue.push_back(script);
    }

    /// Requests for which no script is queued are answered by this one.
    pub fn always(&self, script: Script) {
        self.shared.scripts.lock().always = Some(script);
    }

    /// Every request so far, oldest first, those for stopping and for information included.
    pub fn journal(&self) -> Vec<Call> {
        self.shared.journal.calls()
    }

    /// Waits until the journal is as it should be and returns it.
    ///
    /// # Errors
    /// With the journal as it is, if that takes more than ten seconds.
    pub async fn wait_until(&self, done: impl Fn(&[Call]) -> bool) -> anyhow::Result<Vec<Call>> {
        self.shared.journal.wait_until(done, WAIT).await
    }
}

impl fmt::Debug for ProviderDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderDouble").field("addr", &self.addr).finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(serve(stream, client.port(), Arc::clone(&shared)));
                }
                // Out of files: give the others time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(stream: TcpStream, client_port: u16, shared: Arc<Shared>) {
    // Without it a delta may wait for the acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request| answer(request, client_port, Arc::clone(&shared)));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A client that leaves is part of many tests; the journal has it.
    let _ended = connection.await;
}

async fn answer(request: Request<Incoming>, client_port: u16, shared: Arc<Shared>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = head.uri.path().to_owned();
    let ending = shared.journal.record(&head, &body, client_port);
    let last = path.rsplit('/').next().unwrap_or_default();
    if head.method == Method::GET && last == "info" {
        return Ok(whole(StatusCode::OK, &json!({"name": "Double", "description": "", "tags": [], "mode": "chat"})));
    }
    if head.method == Method::POST && last == "stop" && path.contains("/chat-messages/") {
        return Ok(stopped(&body));
    }
    let Some(dialect) = Dialect::of(&head.method, &path) else {
        return Ok(whole(
            StatusCode::NOT_FOUND,
            &json!({"error": {"message": "no such path", "type": "not_found_error"}}),
        ));
    };
    let script = {
        let mut scripts = shared.scripts.lock();
        scripts.queue.pop_front().or_else(|| scripts.always.clone())
    };
    let script = script.unwrap_or_else(|| Script::answer(["This is ", "the double."]));
    let (status, headers) = script.head.clone().ok_or(Cut)?;
    let player = Player::new(script, Names::new(dialect, &body, ending.number()), ending);
    let stream =
        futures_util::stream::unfold(player, |mut player| async move { Some((player.frame().await?, player)) });
    Ok(response(status, &headers, StreamBody::new(stream).boxed_unsync()))
}

/// Dify says yes to everything but a missing user.
fn stopped(body: &Value) -> Response<Body> {
    match body.get("user").and_then(Value::as_str) {
        Some(_) => whole(StatusCode::OK, &json!({"result": "success"})),
        None => {
            let fault = json!({"code": "invalid_param", "message": "Missing required parameter: user", "status": 400});
            whole(StatusCode::BAD_REQUEST, &fault)
        }
    }
}

fn whole(status: StatusCode, body: &Value) -> Response<Body> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let never = |never: Infallible| match never {};
    response(status, &headers, Full::new(Bytes::from(body.to_string())).map_err(never).boxed_unsync())
}

fn response(status: StatusCode, headers: &HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().extend(headers.clone());
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), HeaderValue::from_static("req_double"));
    response
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use futures_util::stream::FuturesUnordered;

    use super::*;

    async fn post(client: &reqwest::Client, double: &ProviderDouble) -> reqwest::Response {
        let body = json!({"model": "m", "stream_options": {"include_usage": true}});
        client.post(format!("{}/chat/completions", double.url())).json(&body).send().await.unwrap()
    }

    /// The delays in microseconds from the double to here, of every stamp of one answer.
    async fn delays(client: &reqwest::Client, double: &ProviderDouble) -> Vec<i128> {
        let (mut body, mut waiting, mut delays) = (post(client, double).await.bytes_stream(), Vec::new(), Vec::new());
        while let Some(bytes) = body.next().await {
            waiting.extend_from_slice(&bytes.unwrap());
            let now = stamp::micros();
            // Whole events only: a piece may end inside a character.
            if let Some(end) = waiting.windows(2).rposition(|pair| pair == b"\n\n") {
                let events: Vec<u8> = waiting.drain(..end + 2).collect();
                delays.extend(stamp::times(std::str::from_utf8(&events).unwrap()).map(|sent| now - sent));
            }
        }
        delays
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_paced_streams_arrive_whole_and_in_time() {
        let double = ProviderDouble::start().await.unwrap();
        double.always(Script::stamped(Duration::from_millis(40), 50));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let begin = std::time::Instant::now();
        let streams: FuturesUnordered<_> = (0..100).map(|_| delays(&client, &double)).collect();
        let mut delays: Vec<i128> = streams.concat().await;
        assert_eq!(delays.len(), 5000);
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(49 * 40) && took < Duration::from_secs(60), "{took:?}");
        delays.sort_unstable();
        println!("{took:?}, delays in µs: p50 {}, p99 {}", delays[2500], delays[4950]);
        let calls = double.wait_until(|calls| calls.iter().all(|call| call.end.is_some())).await.unwrap();
        assert!(calls.iter().all(|call| call.ended() == Some(End::Finished)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_no_bottleneck() {
        let double = ProviderDouble::start().await.unwrap();
        double.always(Script::stamped(Duration::ZERO, 20_000));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let begin = std::time::Instant::now();
        assert_eq!(delays(&client, &double).await.len(), 20_000);
        let rate = 20_000.0 / begin.elapsed().as_secs_f64();
        println!("{rate:.0} chunks/s in one stream");
        assert!(rate > 500.0, "{rate}");
    }

    #[tokio::test]
    async fn a_test_drives_it_step_by_step() {
        let double = ProviderDouble::start().await.unwrap();
        let (script, driver) = Script::live();
        double.script(script);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut response = post(&client, &double).await;
        driver.step(Step::Bytes(Bytes::from_static(b"gr\xC3")));
        assert_eq!(response.chunk().await.unwrap().unwrap(), b"gr\xC3".as_slice());
        driver.delta("x");
        let piece = response.chunk().await.unwrap().unwrap();
        assert!(piece.starts_with(b"data: {") && piece.ends_with(b"\n\n"), "{piece:?}");
        driver.step(Step::Cut);
        assert!(response.chunk().await.is_err());
        let calls = double.journal();
        assert_eq!((calls[0].ended(), calls[0].path.as_str()), (Some(End::Cut), "/v1/chat/completions"));
        double.script(Script::no_reply());
        assert!(client.post(double.url() + "/messages").body("{}").send().await.is_err());
    }
}
