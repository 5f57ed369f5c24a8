//! The log: its unique keys, its order, its pages, and the messages that wait for an answer.

use chatbox_shared::failure::ErrorCode;

use super::*;
use crate::log::entry::{FinishReason, TokenUsage};
use crate::store::{Appended, StoreError};

pub(super) async fn every_kind_of_entry_reads_back_as_it_was_written(store: &dyn Store) {
    let session = SessionId::generate();
    let mut full = answer(session, 1, 3, 2);
    full.content = (0..=255).collect();
    full.meta.rev = 7;
    full.meta.state = EntryState::Failed;
    let part = full.meta.answer_mut().unwrap();
    part.regenerates = Some(4);
    part.attempt = 3;
    part.next_index = 99;
    part.fence = 1 << 40;
    part.finish = Some(FinishReason::ContentFilter);
    part.error = Some(ErrorCode::ProviderTimeout);
    part.retry_at = Some(Timestamp(1_795_564_800_000));
    part.usage = Some(TokenUsage { input: 0, cached: 1, output: 12, estimated: true });
    part.first_token_ms = Some(0);
    part.total_ms = Some(1 << 35);
    part.conversation = Some("conversation".into());
    let nameless = Sender::Admin(Person { id: UserId::new("admin"), name: None });
    let body = Body::Message { client_msg_id: ClientMessageId::generate(), needs_answer: false };
    let rows = [
        full,
        message(session, 2),
        row(session, 3, EntryState::Final, nameless, body),
        event(session, 4, LogEvent::AdminJoined(person("admin"))),
        event(session, 5, LogEvent::AdminLeft(Person { id: UserId::new("admin"), name: None })),
        event(session, 6, LogEvent::HelpRequested { has_reason: false }),
        EntryRow { content: vec![1; 30], ..event(session, 7, LogEvent::HelpRequested { has_reason: true }) },
        event(session, 8, LogEvent::ModelChanged("gpt".into())),
        event(session, 9, LogEvent::SessionEnded),
        answer(session, 10, 2, 0),
    ];
    for row in &rows {
        assert_eq!(store.append(row).await.unwrap(), Appended::Done);
    }
    assert_eq!(store.entries_after(session, 0, 100).await.unwrap(), rows);
    for row in rows {
        assert_eq!(store.entry(session, row.meta.seq).await.unwrap(), Some(row));
    }
    assert_eq!(store.entry(session, 11).await.unwrap(), None);
    assert_eq!(store.entry(SessionId::generate(), 1).await.unwrap(), None);
}

pub(super) async fn a_place_is_taken_once(store: &dyn Store) {
    let session = SessionId::generate();
    let first = message(session, 1);
    assert_eq!(store.append(&first).await.unwrap(), Appended::Done);
    assert_eq!(store.append(&message(session, 1)).await.unwrap(), Appended::SeqTaken);
    assert_eq!(store.append(&event(session, 1, LogEvent::SessionEnded)).await.unwrap(), Appended::SeqTaken);
    assert_eq!(store.append(&message(SessionId::generate(), 1)).await.unwrap(), Appended::Done);
    assert_eq!(store.entries_after(session, 0, 10).await.unwrap(), [first]);
}

pub(super) async fn a_client_message_is_stored_once_per_sender(store: &dyn Store) {
    let session = SessionId::generate();
    let first = message(session, 1);
    let Body::Message { client_msg_id, .. } = first.meta.body else { panic!("a message") };
    store.append(&first).await.unwrap();
    let same = |seq, session, sender| row(session, seq, EntryState::Final, sender, first.meta.body.clone());
    let user = || Sender::User(person("user"));
    assert_eq!(store.append(&same(2, session, user())).await.unwrap(), Appended::DuplicateMessage);
    // Another sender and another session have ids of their own.
    let of_admin = same(2, session, Sender::Admin(person("admin")));
    assert_eq!(store.append(&of_admin).await.unwrap(), Appended::Done);
    assert_eq!(store.append(&same(1, SessionId::generate(), user())).await.unwrap(), Appended::Done);

    let found = |sender: &str, id| {
        let sender = UserId::new(sender);
        async move { store.entry_by_client_id(session, &sender, id).await.unwrap() }
    };
    assert_eq!(found("user", client_msg_id).await, Some(first));
    assert_eq!(found("admin", client_msg_id).await, Some(of_admin));
    assert_eq!(found("nobody", client_msg_id).await, None);
    assert_eq!(found("user", ClientMessageId::generate()).await, None);
}

pub(super) async fn the_same_row_again_is_done_again(store: &dyn Store) {
    let session = SessionId::generate();
    let rows = [message(session, 1), answer(session, 2, 1, 0), event(session, 3, LogEvent::SessionEnded)];
    for row in &rows {
        assert_eq!(store.append(row).await.unwrap(), Appended::Done);
        assert_eq!(store.append(row).await.unwrap(), Appended::Done);
    }
    let elsewhere = |row: &EntryRow| EntryRow { meta: EntryMeta { seq: 9, ..row.meta.clone() }, ..row.clone() };
    let [message, answer, event] = &rows;
    assert_eq!(store.append(&elsewhere(message)).await.unwrap(), Appended::DuplicateMessage);
    assert!(matches!(
        store.append(&elsewhere(answer)).await.unwrap(),
        Appended::AnswerExists | Appended::StreamingExists
    ));
    assert!(matches!(store.append(&elsewhere(event)).await, Err(StoreError::Refused(_))));
    assert_eq!(store.entries_after(session, 0, 10).await.unwrap(), rows);
}

pub(super) async fn a_duplicate_at_a_taken_place_is_found_at_a_higher_one(store: &dyn Store) {
    let session = SessionId::generate();
    let first = message(session, 1);
    store.append(&first).await.unwrap();
    store.append(&message(session, 2)).await.unwrap();
    let again = |seq| row(session, seq, EntryState::Final, first.meta.sender.clone(), first.meta.body.clone());
    let mut seq = 1;
    let outcome = loop {
        match store.append(&again(seq)).await.unwrap() {
            Appended::SeqTaken => seq += 1,
            other => break other,
        }
    };
    assert_eq!(outcome, Appended::DuplicateMessage);
    assert_eq!(seqs(&store.entries_after(session, 0, 10).await.unwrap()), [1, 2]);
}

/// The loop of a writer: at last + 1, and on a conflict at the next.
async fn append_at_end(store: &dyn Store, mut row: EntryRow) -> Appended {
    loop {
        match store.append(&row).await.unwrap() {
            Appended::SeqTaken => row.meta.seq += 1,
            other => return other,
        }
    }
}

pub(super) async fn racing_writers_leave_no_gap(store: &dyn Store) {
    let session = SessionId::generate();
    let writers = (0..8).map(|_| async {
        for _ in 0..10 {
            let last = store.entries_before(session, u64::MAX, 1).await.unwrap();
            let next = last.first().map_or(1, |row| row.meta.seq + 1);
            assert_eq!(append_at_end(store, message(session, next)).await, Appended::Done);
        }
    });
    together(writers).await;
    assert_eq!(seqs(&store.entries_after(session, 0, 100).await.unwrap()), (1..=80).collect::<Vec<_>>());
}

pub(super) async fn racing_duplicates_store_one(store: &dyn Store) {
    let session = SessionId::generate();
    let first = message(session, 1);
    let copies = (0..8).map(|_| row(session, 1, EntryState::Final, first.meta.sender.clone(), first.meta.body.clone()));
    let outcomes = together(copies.map(|copy| append_at_end(store, copy))).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Appended::Done).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Appended::DuplicateMessage).count(), 7, "{outcomes:?}");
    assert_eq!(store.entries_after(session, 0, 10).await.unwrap().len(), 1);
}

pub(super) async fn pages_of_a_log(store: &dyn Store) {
    let (session, other) = (SessionId::generate(), SessionId::generate());
    for seq in 1..=150 {
        store.append(&message(session, seq)).await.unwrap();
    }
    store.append(&message(other, 1)).await.unwrap();
    let after = |seq, limit| async move { seqs(&store.entries_after(session, seq, limit).await.unwrap()) };
    let before = |seq, limit| async move { seqs(&store.entries_before(session, seq, limit).await.unwrap()) };
    let range = |range: std::ops::RangeInclusive<Seq>| range.collect::<Vec<_>>();
    assert_eq!(after(0, 3).await, [1, 2, 3]);
    assert_eq!(after(0, 500).await, range(1..=150));
    assert_eq!(after(147, 10).await, [148, 149, 150]);
    assert!(after(150, 10).await.is_empty());
    assert!(after(0, 0).await.is_empty());
    assert_eq!(before(4, 10).await, [1, 2, 3]);
    assert_eq!(before(1_000, 2).await, [149, 150]);
    assert_eq!(before(151, 130).await, range(21..=150));
    assert!(before(1, 10).await.is_empty());
    assert!(before(10, 0).await.is_empty());
}

pub(super) async fn messages_that_need_an_answer(store: &dyn Store) {
    let (session, other) = (SessionId::generate(), SessionId::generate());
    let rows: Vec<_> = (1..=4).map(|seq| message(session, seq)).collect();
    let mut late = message(other, 1);
    late.meta.created_at = Timestamp(5_000);
    let mut early = message(other, 2);
    early.meta.created_at = Timestamp(500);
    for row in rows.iter().chain([&late, &early]) {
        store.append(row).await.unwrap();
    }
    assert_eq!(store.next_unanswered(session).await.unwrap().as_ref(), Some(&rows[0]));
    store.clear_need(session, rows[0].meta.id, 1).await.unwrap();
    // An id that does not belong to the place changes nothing.
    store.clear_need(session, rows[0].meta.id, 2).await.unwrap();
    assert_eq!(store.next_unanswered(session).await.unwrap().as_ref(), Some(&rows[1]));
    let Some(Body::Message { needs_answer, .. }) = store.entry(session, 1).await.unwrap().map(|row| row.meta.body)
    else {
        panic!("it is a message");
    };
    assert!(!needs_answer);

    let between = |from, before, limit| async move {
        store.unanswered_between(Timestamp(from), Timestamp(before), limit).await.unwrap()
    };
    let waiting = |before, limit| between(0, before, limit);
    // Created at 500 (other session), 1,002, 1,003, 1,004 and 5,000.
    assert_eq!(waiting(1_004, 10).await, [early.clone(), rows[1].clone(), rows[2].clone()]);
    assert_eq!(waiting(10_000, 2).await, [early.clone(), rows[1].clone()]);
    assert_eq!(waiting(10_000, 10).await.len(), 5);
    assert!(waiting(500, 10).await.is_empty());
    assert_eq!(between(1_003, 1_004, 10).await, [rows[2].clone()]);
    for row in &rows {
        store.clear_need(session, row.meta.id, row.meta.seq).await.unwrap();
    }
    assert_eq!(store.next_unanswered(session).await.unwrap(), None);
    assert_eq!(waiting(10_000, 10).await, [early, late]);
}
