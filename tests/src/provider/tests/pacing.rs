//! Pace, speed, and answers that a test drives step by step.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use bytes::Bytes;
use serde_json::json;

use crate::provider::*;

async fn post(client: &reqwest::Client, provider: &FakeProvider) -> reqwest::Response {
    let body = json!({"model": "m", "stream_options": {"include_usage": true}});
    client.post(format!("{}/chat/completions", provider.url())).json(&body).send().await.unwrap()
}

/// The delays in microseconds from the fake provider to here, of every stamp of one answer.
async fn delays(client: &reqwest::Client, provider: &FakeProvider) -> Vec<i128> {
    let (mut body, mut waiting, mut delays) = (post(client, provider).await.bytes_stream(), Vec::new(), Vec::new());
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
    let provider = FakeProvider::start().await.unwrap();
    provider.always(Script::stamped(Duration::from_millis(40), 50));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let begin = std::time::Instant::now();
    let streams: FuturesUnordered<_> = (0..100).map(|_| delays(&client, &provider)).collect();
    let mut delays: Vec<i128> = streams.concat().await;
    assert_eq!(delays.len(), 5000);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(49 * 40) && took < Duration::from_secs(60), "{took:?}");
    delays.sort_unstable();
    println!("{took:?}, delays in µs: p50 {}, p99 {}", delays[2500], delays[4950]);
    let calls = provider.wait_until(|calls| calls.iter().all(|call| call.end.is_some())).await.unwrap();
    assert!(calls.iter().all(|call| call.ended() == Some(End::Finished)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_no_bottleneck() {
    let provider = FakeProvider::start().await.unwrap();
    provider.always(Script::stamped(Duration::ZERO, 20_000));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(delays(&client, &provider).await.len(), 20_000);
    let rate = 20_000.0 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} chunks/s in one stream");
    assert!(rate > 500.0, "{rate}");
}

#[tokio::test]
async fn a_test_drives_it_step_by_step() {
    let provider = FakeProvider::start().await.unwrap();
    let (script, driver) = Script::live();
    provider.script(script);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut response = post(&client, &provider).await;
    driver.step(Step::Bytes(Bytes::from_static(b"gr\xC3")));
    assert_eq!(response.chunk().await.unwrap().unwrap(), b"gr\xC3".as_slice());
    driver.delta("x");
    let piece = response.chunk().await.unwrap().unwrap();
    assert!(piece.starts_with(b"data: {") && piece.ends_with(b"\n\n"), "{piece:?}");
    driver.step(Step::Cut);
    assert!(response.chunk().await.is_err());
    let calls = provider.journal();
    assert_eq!((calls[0].ended(), calls[0].path.as_str()), (Some(End::Cut), "/v1/chat/completions"));
    provider.script(Script::no_reply());
    assert!(client.post(provider.url() + "/messages").body("{}").send().await.is_err());
}
