//! The ops listener over real sockets: its pages, its limits and its end.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use serde_json::Value;

use super::*;
use crate::clock::Timestamp;

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn bind() -> (Ops, SocketAddr) {
    Ops::bind("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn alive_and_ready_are_two_things() {
    let lifecycle = Lifecycle::new();
    let up = Arc::new(AtomicBool::new(false));
    let (ops, address) = bind().await;
    let store = up.clone();
    ops.check("store", LIMIT, move || {
        let up = store.load(Ordering::SeqCst);
        async move { if up { Ok(()) } else { Err("connection refused".to_owned()) } }
    })
    .check("bus", LIMIT, || async { Ok(()) })
    .serve(&lifecycle);

    assert_eq!(get(address, "/healthz").await, (200, "ok\n".to_owned()));
    let (status, body) = get(address, "/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"]), (503, &Value::Bool(false)));
    assert_eq!(body["checks"]["store"]["ok"], false);
    assert_eq!(body["checks"]["store"]["reason"], "connection refused");
    assert_eq!(body["checks"]["bus"]["ok"], true);

    up.store(true, Ordering::SeqCst);
    let (status, body) = get(address, "/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"]), (200, &Value::Bool(true)));
    assert!(body["checks"]["store"]["ms"].is_u64());
}

#[tokio::test]
async fn a_check_that_hangs_or_panics_is_a_failed_one_and_holds_up_no_other() {
    let lifecycle = Lifecycle::new();
    let (ops, address) = bind().await;
    ops.check("hangs", Duration::from_millis(50), std::future::pending)
        .check("hangs too", Duration::from_millis(50), std::future::pending)
        .check("panics", LIMIT, || async { panic!("on purpose") })
        .check("works", LIMIT, || async { Ok(()) })
        .serve(&lifecycle);
    let (status, body) = get(address, "/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 503);
    assert_eq!(body["checks"]["hangs"]["reason"], "no answer within 50 ms");
    assert_eq!(body["checks"]["hangs too"]["ok"], false);
    assert_eq!(body["checks"]["panics"]["ok"], false);
    assert_eq!(body["checks"]["works"]["ok"], true);
}

#[tokio::test]
async fn it_answers_during_the_drain_and_ends_with_the_stop() {
    let lifecycle = Lifecycle::new();
    let (ops, address) = bind().await;
    ops.serve(&lifecycle);
    assert_eq!(get(address, "/readyz").await.0, 200);
    lifecycle.drain();
    let (status, body) = get(address, "/readyz").await;
    assert_eq!((status, body.trim()), (503, r#"{"checks":{},"draining":true,"ready":false}"#));
    assert_eq!(get(address, "/healthz").await.0, 200);
    assert!(lifecycle.shut_down(LIMIT).await);
    tokio::time::timeout(LIMIT, async { while TcpStream::connect(address).await.is_ok() {} }).await.unwrap();
}

#[tokio::test]
async fn metrics_are_openmetrics_text_with_the_services_prefix() {
    let lifecycle = Lifecycle::new();
    let (ops, address) = bind().await;
    let mut registry = Registry::with_prefix("chatbox_brain");
    let messages: Counter = Counter::default();
    registry.register("messages", "Messages stored", messages.clone());
    register_process_metrics(&mut registry, Timestamp(1_700_000_000_123));
    messages.inc();
    ops.metrics(registry).serve(&lifecycle);
    let (status, text) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("\nchatbox_brain_messages_total 1\n"), "{text}");
    assert!(text.contains("\nchatbox_brain_process_start_time_seconds 1700000000\n"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    for name in ["chatbox_brain_process_resident_memory_bytes ", "chatbox_brain_process_open_fds "] {
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        assert!(value.parse::<u64>().unwrap() > 0, "{text}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let lifecycle = Lifecycle::new();
    let (ops, address) = bind().await;
    ops.serve(&lifecycle);
    assert_eq!(get(address, "/").await.0, 404);
    let response = reqwest::Client::new().post(format!("http://{address}/readyz")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
}
