//! The HTTP side: connections in, and for each request the answer of its path.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::dialect::{Dialect, Names};
use super::fault::Fault;
use super::faulty_stream::{CloseMode, FaultyStream};
use super::journal::{End, Ending, Journal};
use super::plan::Plan;
use super::player::{Cut, Player};
use super::script::{Head, Script};
use super::stops::Stops;
use super::{admin, upload};

pub(super) type Body = UnsyncBoxBody<Bytes, Cut>;

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) journal: Journal,
    pub(super) plan: Plan,
    stops: Stops,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { journal: Journal::new(), plan: Plan::default(), stops: Stops::default() }
    }
}

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(serve(stream, client.port(), Arc::clone(&shared)));
                }
                // No more files: give other connections time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(stream: TcpStream, client_port: u16, shared: Arc<Shared>) {
    // Otherwise a delta may wait until the one before is acknowledged.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let close_mode = CloseMode::default();
    let line = TokioIo::new(FaultyStream::new(stream, close_mode.clone()));
    let service = service_fn(move |request| answer(request, client_port, close_mode.clone(), Arc::clone(&shared)));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(line, service);
    // Clients that leave are part of many tests; the journal records them.
    let _ended = connection.await;
}

async fn answer(
    request: Request<Incoming>,
    client_port: u16,
    close_mode: CloseMode,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let path = head.uri.path();
    if path == "/mock" || path.starts_with("/mock/") {
        return Ok(admin::answer(&shared, &head, &body, client_port));
    }
    let posted = head.method == Method::POST;
    if posted && path.ends_with("/files/upload") {
        let (status, reply, seen) = upload::receive(&head.headers, body).await;
        return Ok(whole(shared.journal.record(&head, &seen, client_port), "upload", status, &reply));
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let ending = shared.journal.record(&head, &body, client_port);
    if head.method == Method::GET && path.ends_with("/info") {
        let info = json!({"name": "Fake", "description": "", "tags": [], "mode": "chat"});
        return Ok(whole(ending, "info", StatusCode::OK, &info));
    }
    if let Some((_, task)) = path.strip_suffix("/stop").and_then(|rest| rest.rsplit_once("/chat-messages/"))
        && posted
    {
        return Ok(stop(&shared, ending, task, &body));
    }
    match Dialect::of(&head.method, path) {
        Some(dialect) => chat(dialect, &head, &body, ending, close_mode, &shared).await,
        None => {
            let fault = json!({"error": {"message": "no such path", "type": "not_found_error"}});
            Ok(whole(ending, "no such path", StatusCode::NOT_FOUND, &fault))
        }
    }
}

async fn chat(
    dialect: Dialect,
    head: &Parts,
    body: &Value,
    mut ending: Ending,
    close_mode: CloseMode,
    shared: &Shared,
) -> Result<Response<Body>, Cut> {
    let (script, random) = shared.plan.choose(dialect, &head.headers, body).unwrap_or_else(|message| {
        let fault = Fault { message: Some(message), ..Fault::status(400) };
        (Script::refuse(fault).named("refused"), None)
    });
    ending.note(|call| {
        call.script.clone_from(&script.name);
        call.random = random;
    });
    if !script.head_after.is_zero() {
        tokio::time::sleep(script.head_after).await;
    }
    let status = match script.head {
        Head::Reply(status) => status,
        Head::Stall => std::future::pending().await,
        Head::Close | Head::Reset => {
            if script.head == Head::Reset {
                close_mode.reset();
            }
            ending.tell(End::Cut);
            return Err(Cut);
        }
    };
    ending.note(|call| call.sent.status = status.as_u16());
    let mut headers = script.headers.clone();
    script.retry.write(&mut headers);
    let version = if script.close_delimited { Version::HTTP_10 } else { Version::HTTP_11 };
    let names = Names::new(dialect, body, ending.number());
    let stoppable = dialect == Dialect::Dify && !script.ignores_stop;
    let running = stoppable.then(|| shared.stops.enter(names.task()));
    let player = Player::new(script, names, ending, close_mode, running);
    let stream =
        futures_util::stream::unfold(player, |mut player| async move { Some((player.frame().await?, player)) });
    let mut response = response(status, &headers, StreamBody::new(stream).boxed_unsync());
    *response.version_mut() = version;
    Ok(response)
}

/// Dify accepts every stop call that names a user.
fn stop(shared: &Shared, ending: Ending, task: &str, body: &Value) -> Response<Body> {
    if body.get("user").and_then(Value::as_str).is_none() {
        let fault = json!({"code": "invalid_param", "message": "Missing required parameter: user", "status": 400});
        return whole(ending, "stop", StatusCode::BAD_REQUEST, &fault);
    }
    shared.stops.stop(task);
    whole(ending, "stop", StatusCode::OK, &json!({"result": "success"}))
}

/// A reply other than an answer of a model.
pub(super) fn whole(mut ending: Ending, what: &str, status: StatusCode, body: &Value) -> Response<Body> {
    let text = body.to_string();
    ending.note(|call| {
        call.script = what.to_owned();
        call.sent.status = status.as_u16();
        call.bytes_sent = text.len();
    });
    ending.tell(End::Finished);
    json_response(status, text)
}

/// A reply that is not recorded in the journal.
pub(super) fn json_response(status: StatusCode, text: String) -> Response<Body> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let never = |never: Infallible| match never {};
    response(status, &headers, Full::new(Bytes::from(text)).map_err(never).boxed_unsync())
}

fn response(status: StatusCode, headers: &HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().extend(headers.clone());
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), HeaderValue::from_static("req_fake"));
    response
}
