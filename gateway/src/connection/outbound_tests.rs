//! The queue's bound, its order and its merging.

use std::sync::Arc;

use chatbox_shared::proto::{self, ServerMessage};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const LINK: u64 = 3;

fn queue(limit: usize) -> Outbound {
    let outbound = Outbound::new(limit);
    outbound.switch(LINK, |_| ());
    outbound
}

fn delta(session: &str, seq: u64, attempt: u32, index: u64, text: &str) -> Message {
    Message::AiDelta(AiDelta { session_id: session.into(), seq, attempt, index, count: 1, delta: text.into() })
}

fn event(message: Message) -> Arc<Event> {
    Arc::new(Event::decode(&ServerMessage { message: Some(message) }.encode_to_vec().into()).expect("an event"))
}

fn ready(seq: u64) -> Arc<Event> {
    event(Message::SessionReady(proto::SessionReady { session_id: "s".into(), seq }))
}

/// Fills the queue until deltas are merged.
fn pressed() -> Outbound {
    let outbound = queue(1 << 20);
    for _ in 0..MERGE_FROM {
        outbound.push_own(Item::Ping);
    }
    outbound
}

fn drain(outbound: &Outbound) -> Vec<Item> {
    std::iter::from_fn(|| outbound.pop()).filter(|item| !matches!(item, Item::Ping)).collect()
}

fn signal(outbound: &Outbound) -> Option<Signal> {
    outbound.poll_signal(&Context::from_waker(std::task::Waker::noop()))
}

#[test]
fn an_empty_queue_owns_no_memory() {
    let outbound = queue(1 << 20);
    for seq in 0..1000 {
        outbound.push_event(LINK, &ready(seq), 0, &Metrics::default());
    }
    assert_eq!(drain(&outbound).len(), 1000);
    let state = outbound.state.lock();
    assert_eq!((state.queue.capacity(), state.event_bytes, state.other_bytes), (0, 0, 0));
}

#[test]
fn one_event_too_many_closes_and_drops_what_waited() {
    let metrics = Metrics::default();
    let outbound = queue(1000);
    let mut pushed = 0;
    while signal(&outbound).is_none() {
        outbound.push_event(LINK, &ready(1), 0, &metrics);
        pushed += 1;
        assert!(pushed < 100, "the bound is never reached");
    }
    assert!(pushed > 5, "the bound is reached after {pushed}");
    assert_eq!(metrics.slow_closes.get(), 1);
    assert_eq!(drain(&outbound).len(), 0);
    outbound.push_event(LINK, &ready(1), 0, &metrics);
    outbound.push_reply(LINK, 1, None, &Metrics::default());
    assert_eq!(drain(&outbound).len(), 0, "nothing is taken after the close");
}

#[test]
fn one_event_alone_may_be_larger_than_the_bound() {
    let outbound = queue(100);
    outbound.push_event(LINK, &event(delta("s", 1, 1, 0, &"x".repeat(500))), 0, &Metrics::default());
    assert_eq!(signal(&outbound), None);
    assert_eq!(drain(&outbound).len(), 1);
}

#[test]
fn replies_and_own_frames_are_not_dropped_but_make_it_full() {
    let outbound = queue(1000);
    for no in 0..50 {
        outbound.push_reply(LINK, no, None, &Metrics::default());
    }
    assert!(outbound.is_full());
    outbound.push_event(LINK, &ready(1), 0, &Metrics::default());
    assert_eq!(signal(&outbound), None, "a large reply must not make the next event one too many");
    assert_eq!(drain(&outbound).len(), 51);
    assert!(!outbound.is_full());
}

#[test]
fn replies_beyond_all_measure_close_but_one_alone_does_not() {
    let (outbound, metrics) = (queue(1000), Metrics::default());
    let reply = |bytes| {
        let entry = proto::Entry { content: "x".repeat(bytes), ..Default::default() };
        let page = proto::Entries { session_id: "s".into(), entries: vec![entry] };
        Some(ServerMessage { message: Some(Message::Entries(page)) })
    };
    outbound.push_reply(LINK, 1, reply(10_000), &metrics);
    assert_eq!((outbound.is_full(), signal(&outbound)), (true, None));
    assert_eq!(drain(&outbound).len(), 1);
    for no in 2..=4 {
        outbound.push_reply(LINK, no, reply(1100), &metrics);
    }
    assert_eq!((outbound.is_full(), signal(&outbound)), (true, None));
    outbound.push_reply(LINK, 5, reply(1100), &metrics);
    assert_eq!(signal(&outbound), Some(Signal::Close(CloseCode::TOO_SLOW)));
    assert_eq!((drain(&outbound).len(), metrics.slow_closes.get()), (0, 1));
}

#[test]
fn events_and_replies_together_make_it_full() {
    let outbound = queue(1000);
    while outbound.state.lock().event_bytes < 500 {
        outbound.push_event(LINK, &ready(1), 0, &Metrics::default());
    }
    while !outbound.is_full() {
        outbound.push_reply(LINK, 1, None, &Metrics::default());
    }
    assert!(outbound.state.lock().other_bytes < 1000);
    assert_eq!(signal(&outbound), None);
}

#[test]
fn another_link_is_not_heard() {
    let outbound = queue(1000);
    outbound.push_event(LINK + 1, &ready(1), 0, &Metrics::default());
    outbound.push_reply(LINK - 1, 1, None, &Metrics::default());
    outbound.close_from(LINK + 1, CloseCode(4002), None);
    assert_eq!((drain(&outbound).len(), signal(&outbound)), (0, None));
    outbound.push_event(LINK, &ready(1), 0, &Metrics::default());
    assert_eq!(outbound.switch(LINK + 1, |waiting| waiting.count()), 1, "the new link knows what waits");
}

#[test]
fn receipts_are_not_given_to_another_link() {
    let outbound = queue(1000);
    outbound.push_event(LINK, &ready(1), 7, &Metrics::default());
    outbound.switch(LINK + 1, |_| ());
    outbound.push_event(LINK + 1, &ready(2), 1, &Metrics::default());
    let items = drain(&outbound);
    assert!(matches!(&items[..], [Item::Event { receipt: 0, .. }, Item::Event { receipt: 1, .. }]), "{items:?}");
}

#[test]
fn a_close_follows_what_waits_and_its_notice() {
    let outbound = queue(1000);
    outbound.push_reply(LINK, 1, None, &Metrics::default());
    outbound.close_from(LINK, CloseCode(4002), Some("notice".into()));
    outbound.close(CloseCode::RESTART, Some("late".into()));
    assert_eq!(signal(&outbound), Some(Signal::Close(CloseCode(4002))));
    assert_eq!(signal(&outbound), None);
    let items = drain(&outbound);
    assert!(
        matches!(&items[..], [Item::Reply { no: 1, .. }, Item::Text(text)] if text.as_str() == "notice"),
        "{items:?}"
    );
}

#[test]
fn only_connections_without_a_good_link_are_told_to_look() {
    let outbound = queue(1000);
    outbound.relink_unless(|link| link == LINK);
    assert_eq!(signal(&outbound), None);
    outbound.relink_unless(|link| link != LINK);
    assert_eq!(signal(&outbound), Some(Signal::Relink));
}

#[test]
fn without_pressure_deltas_stay_as_they_are() {
    let outbound = queue(1 << 20);
    for index in 0..4 {
        outbound.push_event(LINK, &event(delta("s", 1, 1, index, "x")), 0, &Metrics::default());
    }
    assert_eq!(drain(&outbound).len(), 4);
}

#[test]
fn deltas_are_merged_only_with_what_they_continue() {
    let (outbound, metrics) = (pressed(), Metrics::default());
    let push = |message| outbound.push_event(LINK, &event(message), 0, &metrics);
    push(delta("a", 1, 1, 0, "a0"));
    push(delta("b", 9, 1, 0, "b0"));
    push(delta("a", 1, 1, 1, "a1"));
    push(delta("b", 9, 1, 1, "b1"));
    push(delta("a", 1, 1, 3, "a3")); // a gap
    push(delta("a", 1, 2, 4, "x0")); // another attempt
    push(delta("b", 9, 1, 2, "b2"));
    outbound.push_event(LINK, &event(delta("b", 9, 1, 3, "b3")), 7, &metrics); // bears a receipt
    push(delta("b", 9, 1, 4, "b4")); // not past it
    let seen: Vec<String> = drain(&outbound)
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
    /// However fast the socket takes them: the deltas of each answer come out in order, without a gap, with their
    /// whole text, and the counts add up.
    #[test]
    fn merging_loses_nothing(script in proptest::collection::vec((0_usize..3, 0_usize..3, "[a-zé😀]{0,4}"), 1..200)) {
        let outbound = pressed();
        let mut next = [0_u64; 3];
        let mut sent = [const { String::new() }; 3];
        let mut items = Vec::new();
        for (answer, take, text) in script {
            let message = delta(&answer.to_string(), 1, 1, next[answer], &text);
            outbound.push_event(LINK, &event(message), 0, &Metrics::default());
            next[answer] += 1;
            sent[answer].push_str(&text);
            items.extend((0..take).filter_map(|_| outbound.pop()));
        }
        items.extend(drain(&outbound));
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
        let state = outbound.state.lock();
        prop_assert_eq!((state.event_bytes, state.other_bytes), (0, 0));
    }
}
