//! The bound of the queue, its order, and the merging of deltas.

use std::sync::Arc;

use chatbox_shared::proto::{self, AiDelta, ServerMessage};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const LINK: u64 = 3;

fn new_queue(limit: usize) -> SendQueue {
    let queue = SendQueue::new(limit);
    queue.rebind(LINK, |_| ());
    queue
}

fn delta(session: &str, seq: u64, attempt: u32, index: u64, text: &str) -> Message {
    Message::AiDelta(AiDelta { session_id: session.into(), seq, attempt, index, count: 1, delta: text.into() })
}

fn event(message: Message) -> Arc<SharedEvent> {
    Arc::new(SharedEvent::decode(&ServerMessage { message: Some(message) }.encode_to_vec().into()).expect("an event"))
}

fn ready(seq: u64) -> Arc<SharedEvent> {
    event(Message::SessionReady(proto::SessionReady { session_id: "s".into(), seq }))
}

/// A queue with so many items that deltas are merged.
fn under_pressure() -> SendQueue {
    let queue = new_queue(1 << 20);
    for _ in 0..MERGE_FROM {
        queue.push_own(Item::Ping);
    }
    queue
}

fn take_all(queue: &SendQueue) -> Vec<Item> {
    std::iter::from_fn(|| queue.pop()).filter(|item| !matches!(item, Item::Ping)).collect()
}

fn signal(queue: &SendQueue) -> Option<Signal> {
    queue.poll_signal(&Context::from_waker(std::task::Waker::noop()))
}

#[test]
fn an_empty_queue_owns_no_memory() {
    let queue = new_queue(1 << 20);
    for seq in 0..1000 {
        queue.push_event(LINK, &ready(seq), 0, &Metrics::default());
    }
    assert_eq!(take_all(&queue).len(), 1000);
    let state = queue.state.lock();
    assert_eq!((state.queue.capacity(), state.event_bytes, state.other_bytes), (0, 0, 0));
}

#[test]
fn one_event_too_many_closes_and_drops_what_waited() {
    let metrics = Metrics::default();
    let queue = new_queue(1000);
    let mut pushed = 0;
    while signal(&queue).is_none() {
        queue.push_event(LINK, &ready(1), 0, &metrics);
        pushed += 1;
        assert!(pushed < 100, "the bound is never reached");
    }
    assert!(pushed > 5, "the bound is reached after {pushed}");
    assert_eq!(metrics.slow_closes.get(), 1);
    assert_eq!(take_all(&queue).len(), 0);
    queue.push_event(LINK, &ready(1), 0, &metrics);
    queue.push_reply(LINK, 1, None, &Metrics::default());
    assert_eq!(take_all(&queue).len(), 0, "nothing is taken after the close");
}

#[test]
fn one_event_alone_may_be_larger_than_the_bound() {
    let queue = new_queue(100);
    queue.push_event(LINK, &event(delta("s", 1, 1, 0, &"x".repeat(500))), 0, &Metrics::default());
    assert_eq!(signal(&queue), None);
    assert_eq!(take_all(&queue).len(), 1);
}

#[test]
fn replies_and_own_frames_are_not_dropped_but_make_it_full() {
    let queue = new_queue(1000);
    for no in 0..50 {
        queue.push_reply(LINK, no, None, &Metrics::default());
    }
    assert!(queue.is_full());
    queue.push_event(LINK, &ready(1), 0, &Metrics::default());
    assert_eq!(signal(&queue), None, "a large reply must not make the next event one too many");
    assert_eq!(take_all(&queue).len(), 51);
    assert!(!queue.is_full());
}

#[test]
fn replies_beyond_all_measure_close_but_one_alone_does_not() {
    let (queue, metrics) = (new_queue(1000), Metrics::default());
    let reply = |bytes| {
        let entry = proto::Entry { content: "x".repeat(bytes), ..Default::default() };
        let page = proto::Entries { session_id: "s".into(), entries: vec![entry] };
        Some(ServerMessage { message: Some(Message::Entries(page)) })
    };
    queue.push_reply(LINK, 1, reply(10_000), &metrics);
    assert_eq!((queue.is_full(), signal(&queue)), (true, None));
    assert_eq!(take_all(&queue).len(), 1);
    for no in 2..=4 {
        queue.push_reply(LINK, no, reply(1100), &metrics);
    }
    assert_eq!((queue.is_full(), signal(&queue)), (true, None));
    queue.push_reply(LINK, 5, reply(1100), &metrics);
    assert_eq!(signal(&queue), Some(Signal::Close(CloseCode::TOO_SLOW)));
    assert_eq!((take_all(&queue).len(), metrics.slow_closes.get()), (0, 1));
}

#[test]
fn events_and_replies_together_make_it_full() {
    let queue = new_queue(1000);
    while queue.state.lock().event_bytes < 500 {
        queue.push_event(LINK, &ready(1), 0, &Metrics::default());
    }
    while !queue.is_full() {
        queue.push_reply(LINK, 1, None, &Metrics::default());
    }
    assert!(queue.state.lock().other_bytes < 1000);
    assert_eq!(signal(&queue), None);
}

#[test]
fn another_link_is_not_heard() {
    let queue = new_queue(1000);
    queue.push_event(LINK + 1, &ready(1), 0, &Metrics::default());
    queue.push_reply(LINK - 1, 1, None, &Metrics::default());
    queue.close_from(LINK + 1, CloseCode(4002), None);
    assert_eq!((take_all(&queue).len(), signal(&queue)), (0, None));
    queue.push_event(LINK, &ready(1), 0, &Metrics::default());
    assert_eq!(queue.rebind(LINK + 1, |waiting| waiting.count()), 1, "the new link knows what waits");
}

#[test]
fn receipts_are_not_given_to_another_link() {
    let queue = new_queue(1000);
    queue.push_event(LINK, &ready(1), 7, &Metrics::default());
    queue.rebind(LINK + 1, |_| ());
    queue.push_event(LINK + 1, &ready(2), 1, &Metrics::default());
    let items = take_all(&queue);
    assert!(matches!(&items[..], [Item::Event { receipt: 0, .. }, Item::Event { receipt: 1, .. }]), "{items:?}");
}

#[test]
fn a_close_follows_what_waits_and_its_notice() {
    let queue = new_queue(1000);
    queue.push_reply(LINK, 1, None, &Metrics::default());
    queue.close_from(LINK, CloseCode(4002), Some("notice".into()));
    queue.close(CloseCode::RESTART, Some("late".into()));
    assert_eq!(signal(&queue), Some(Signal::Close(CloseCode(4002))));
    assert_eq!(signal(&queue), None);
    let items = take_all(&queue);
    assert!(
        matches!(&items[..], [Item::Reply { no: 1, .. }, Item::Text(text)] if text.as_str() == "notice"),
        "{items:?}"
    );
}

#[test]
fn only_connections_without_a_good_link_are_told_to_look() {
    let queue = new_queue(1000);
    queue.relink_unless(|link| link == LINK);
    assert_eq!(signal(&queue), None);
    queue.relink_unless(|link| link != LINK);
    assert_eq!(signal(&queue), Some(Signal::Relink));
}

#[test]
fn without_pressure_deltas_stay_as_they_are() {
    let queue = new_queue(1 << 20);
    for index in 0..4 {
        queue.push_event(LINK, &event(delta("s", 1, 1, index, "x")), 0, &Metrics::default());
    }
    assert_eq!(take_all(&queue).len(), 4);
}

#[test]
fn deltas_are_merged_only_with_what_they_continue() {
    let (queue, metrics) = (under_pressure(), Metrics::default());
    let push = |message| queue.push_event(LINK, &event(message), 0, &metrics);
    push(delta("a", 1, 1, 0, "a0"));
    push(delta("b", 9, 1, 0, "b0"));
    push(delta("a", 1, 1, 1, "a1"));
    push(delta("b", 9, 1, 1, "b1"));
    push(delta("a", 1, 1, 3, "a3")); // after a gap
    push(delta("a", 1, 2, 4, "x0")); // another attempt
    push(delta("b", 9, 1, 2, "b2"));
    queue.push_event(LINK, &event(delta("b", 9, 1, 3, "b3")), 7, &metrics); // has a receipt
    push(delta("b", 9, 1, 4, "b4")); // must not pass the receipt
    let seen: Vec<String> = take_all(&queue)
        .iter()
        .map(|item| match item {
            Item::Merged(delta) => format!("{}:{}+{}", delta.delta, delta.index, delta.count),
            Item::Event { event, receipt } => match event.message() {
                Message::AiDelta(delta) => format!("{}:{} r{receipt}", delta.delta, delta.index),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, ["a0a1:0+2", "b0b1b2:0+3", "a3:3 r0", "x0:4 r0", "b3:3 r7", "b4:4 r0"]);
    assert_eq!(metrics.merged_deltas.get(), 3);
}

proptest! {
    /// At any speed of the socket the deltas of each answer come out in order, without a gap and with their whole
    /// text, and the counts add up.
    #[test]
    fn merging_loses_nothing(script in proptest::collection::vec((0_usize..3, 0_usize..3, "[a-zé😀]{0,4}"), 1..200)) {
        let queue = under_pressure();
        let mut next = [0_u64; 3];
        let mut sent = [const { String::new() }; 3];
        let mut items = Vec::new();
        for (answer, take, text) in script {
            let message = delta(&answer.to_string(), 1, 1, next[answer], &text);
            queue.push_event(LINK, &event(message), 0, &Metrics::default());
            next[answer] += 1;
            sent[answer].push_str(&text);
            items.extend((0..take).filter_map(|_| queue.pop()));
        }
        items.extend(take_all(&queue));
        let mut received = [const { String::new() }; 3];
        let mut expected = [0_u64; 3];
        for item in &items {
            if let Some(delta) = item.mergeable() {
                let answer: usize = delta.session_id.parse().expect("a number");
                prop_assert_eq!(delta.index, expected[answer]);
                expected[answer] += u64::from(delta.count.max(1));
                received[answer].push_str(&delta.delta);
            }
        }
        prop_assert_eq!(expected, next);
        prop_assert_eq!(received, sent);
        let state = queue.state.lock();
        prop_assert_eq!((state.event_bytes, state.other_bytes), (0, 0));
    }
}
