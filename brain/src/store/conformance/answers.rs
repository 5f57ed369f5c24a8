//! Answers: one per turn, one at a time, and only under its fence.

use chatbox_shared::failure::ErrorCode;

use super::*;
use crate::log::entry::{FinishReason, TokenUsage};
use crate::store::{AnswerVersion, Appended};

/// The version of a row that was written before.
fn version(row: &EntryRow) -> AnswerVersion {
    AnswerVersion::of(&row.meta).unwrap()
}

pub(super) async fn one_answer_per_message_and_generation(store: &dyn Store) {
    let session = SessionId::generate();
    store.append(&message(session, 1)).await.unwrap();
    let first = ended(answer(session, 2, 1, 0));
    assert_eq!(store.append(&first).await.unwrap(), Appended::Done);
    assert_eq!(store.append(&answer(session, 3, 1, 0)).await.unwrap(), Appended::AnswerExists);
    assert_eq!(store.latest_answer(session, 1).await.unwrap(), Some(first));
    let second = ended(answer(session, 3, 1, 1));
    let third = ended(answer(session, 4, 1, 10));
    let to_another = ended(answer(session, 5, 2, 99));
    for row in [&second, &third, &to_another] {
        assert_eq!(store.append(row).await.unwrap(), Appended::Done);
    }
    assert_eq!(store.append(&ended(answer(session, 6, 1, 1))).await.unwrap(), Appended::AnswerExists);
    assert_eq!(store.latest_answer(session, 1).await.unwrap(), Some(third));
    assert_eq!(store.latest_answer(session, 7).await.unwrap(), None);
    assert_eq!(store.latest_answer(SessionId::generate(), 1).await.unwrap(), None);
    // In another session the same numbers are free.
    assert_eq!(store.append(&answer(SessionId::generate(), 2, 1, 0)).await.unwrap(), Appended::Done);
}

pub(super) async fn one_streaming_answer_per_session(store: &dyn Store) {
    let session = SessionId::generate();
    let first = answer(session, 1, 1, 0);
    assert_eq!(store.streaming_answer(session).await.unwrap(), None);
    assert_eq!(store.append(&first).await.unwrap(), Appended::Done);
    assert_eq!(store.append(&answer(session, 2, 5, 0)).await.unwrap(), Appended::StreamingExists);
    assert_eq!(store.append(&ended(answer(session, 2, 6, 0))).await.unwrap(), Appended::Done);
    assert_eq!(store.streaming_answer(session).await.unwrap().as_ref(), Some(&first));
    assert!(store.update_answer(&ended(first.clone()), version(&first)).await.unwrap());
    assert_eq!(store.streaming_answer(session).await.unwrap(), None);

    let racing: Vec<_> = (0..8).map(|n| answer(session, 10 + n, 20 + n, 0)).collect();
    let outcomes = together(racing.iter().map(|row| store.append(row))).await;
    let done = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Appended::Done))).count();
    let late = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Appended::StreamingExists))).count();
    assert_eq!((done, late), (1, 7), "{outcomes:?}");
}

pub(super) async fn only_the_fence_may_write(store: &dyn Store) {
    let session = SessionId::generate();
    let claimed = answer(session, 1, 1, 0);
    store.append(&claimed).await.unwrap();
    let mut taken = claimed.clone();
    taken.meta.answer_mut().unwrap().fence = 2;
    taken.meta.answer_mut().unwrap().owner = "brain-2".into();
    taken.meta.answer_mut().unwrap().attempt = 2;
    taken.meta.rev = 2;
    let before = version(&claimed);
    let others = [
        AnswerVersion { fence: 0, ..before },
        AnswerVersion { rev: 2, ..before },
        AnswerVersion { lease_until: Timestamp(9_999), ..before },
    ];
    for seen in others {
        assert!(!store.update_answer(&taken, seen).await.unwrap(), "{seen:?}");
    }
    assert!(store.update_answer(&taken, before).await.unwrap());
    // The former owner, back from a pause, writes nothing any more: neither text nor an end.
    let late = EntryRow { content: vec![1; 50], ..claimed.clone() };
    assert!(!store.update_answer(&late, before).await.unwrap());
    assert!(!store.update_answer(&ended(late), before).await.unwrap());
    assert_eq!(store.entry(session, 1).await.unwrap().as_ref(), Some(&taken));
    // And nobody writes to a final one.
    let last = ended(taken.clone());
    assert!(store.update_answer(&last, version(&taken)).await.unwrap());
    assert!(!store.update_answer(&last, version(&taken)).await.unwrap());
    assert_eq!(store.entry(session, 1).await.unwrap(), Some(last));
    let elsewhere = answer(SessionId::generate(), 1, 1, 0);
    assert!(!store.update_answer(&elsewhere, version(&elsewhere)).await.unwrap());
}

pub(super) async fn one_of_many_takes_an_answer_over(store: &dyn Store) {
    let session = SessionId::generate();
    let claimed = answer(session, 1, 1, 0);
    store.append(&claimed).await.unwrap();
    let takers: Vec<_> = (0..8)
        .map(|n| {
            let mut row = claimed.clone();
            row.meta.answer_mut().unwrap().fence = 2;
            row.meta.answer_mut().unwrap().owner = format!("brain-{n}");
            row
        })
        .collect();
    let outcomes = together(takers.iter().map(|row| store.update_answer(row, version(&claimed)))).await;
    let winners: Vec<_> = (0..8).filter(|n| *outcomes[*n].as_ref().unwrap()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(store.entry(session, 1).await.unwrap().as_ref(), Some(&takers[winners[0]]));
}

pub(super) async fn an_update_replaces_everything_that_changes(store: &dyn Store) {
    let session = SessionId::generate();
    let mut row = answer(session, 1, 1, 0);
    store.append(&row).await.unwrap();
    let claimed = version(&row);
    row.content = vec![3; 100];
    row.meta.rev = 2;
    row.meta.state = EntryState::Failed;
    let part = row.meta.answer_mut().unwrap();
    part.model_id = "fallback".into();
    part.attempt = 2;
    part.next_index = 17;
    part.owner = "brain-9".into();
    part.fence = 8;
    part.lease_until = Timestamp(99_000);
    part.finish = Some(FinishReason::Interrupted);
    part.error = Some(ErrorCode::ProviderUnavailable);
    part.retry_at = Some(Timestamp(123_000));
    part.usage = Some(TokenUsage { input: 5, cached: 0, output: 6, estimated: false });
    part.first_token_ms = Some(12);
    part.total_ms = Some(34);
    part.conversation = Some("c".into());
    let full = row.clone();
    row.meta.state = EntryState::Streaming;
    assert!(store.update_answer(&row, claimed).await.unwrap());
    assert_eq!(store.entry(session, 1).await.unwrap().as_ref(), Some(&row));
    // A new attempt begins empty: what is absent is removed.
    let mut anew = answer(session, 1, 1, 0);
    anew.meta.id = row.meta.id;
    anew.meta.answer_mut().unwrap().fence = 9;
    assert!(store.update_answer(&anew, version(&row)).await.unwrap());
    assert_eq!(store.entry(session, 1).await.unwrap().as_ref(), Some(&anew));
    assert!(store.update_answer(&full, version(&anew)).await.unwrap());
    assert_eq!(store.entry(session, 1).await.unwrap(), Some(full));
}

pub(super) async fn leases_that_ended(store: &dyn Store) {
    let mut rows = Vec::new();
    for lease in [300_i64, 100, 200, 400] {
        let mut row = answer(SessionId::generate(), 1, 1, 0);
        row.meta.answer_mut().unwrap().lease_until = Timestamp(lease);
        store.append(&row).await.unwrap();
        rows.push(row);
    }
    let mut over = ended(answer(SessionId::generate(), 1, 1, 0));
    over.meta.answer_mut().unwrap().lease_until = Timestamp(1);
    store.append(&over).await.unwrap();
    let expired = |now, limit| async move { store.expired_answers(Timestamp(now), None, limit).await.unwrap().rows };
    assert_eq!(expired(301, 10).await, [rows[1].clone(), rows[2].clone(), rows[0].clone()]);
    assert_eq!(expired(300, 10).await, [rows[1].clone(), rows[2].clone()]);
    assert_eq!(expired(1_000, 1).await, [rows[1].clone()]);
    assert_eq!(expired(100, 10).await, []);
    // Renewed, it is no longer among them.
    let before = version(&rows[1]);
    rows[1].meta.answer_mut().unwrap().lease_until = Timestamp(5_000);
    assert!(store.update_answer(&rows[1], before).await.unwrap());
    assert_eq!(expired(301, 10).await, [rows[2].clone(), rows[0].clone()]);
}

pub(super) async fn expired_leases_come_in_pages(store: &dyn Store) {
    let mut expected = Vec::new();
    for n in 0..7 {
        let mut row = answer(SessionId::generate(), 1, 1, 0);
        // Several have the same lease, as answers that were handed over have.
        row.meta.answer_mut().unwrap().lease_until = Timestamp(n / 3);
        store.append(&row).await.unwrap();
        expected.push((n / 3, row.meta.id));
    }
    expected.sort_by_key(|(lease, id)| (*lease, id.0));
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.expired_answers(Timestamp(100), after, 2).await.unwrap();
        found.extend(page.rows.iter().map(|row| (row.meta.answer().unwrap().lease_until.0, row.meta.id)));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(found, expected);
}

pub(super) async fn an_event_of_a_newer_version_is_an_unknown_event(store: &dyn Store) {
    let session = SessionId::generate();
    let newer = event(session, 1, LogEvent::Unknown);
    store.append(&newer).await.unwrap();
    assert_eq!(store.entries_after(session, 0, 10).await.unwrap(), [newer]);
}

/// `damage` removes the fence of the streaming answer at this seq.
pub(in crate::store) async fn unreadable_rows(store: &dyn Store, damage: impl AsyncFn(SessionId, Seq)) {
    let session = SessionId::generate();
    let (first, broken, last) = (message(session, 1), answer(session, 2, 1, 0), message(session, 3));
    for row in [&first, &broken, &last] {
        store.append(row).await.unwrap();
    }
    let mut other = answer(SessionId::generate(), 1, 1, 0);
    other.meta.answer_mut().unwrap().lease_until = Timestamp(20_000);
    store.append(&other).await.unwrap();
    damage(session, 2).await;

    // The log has no gap: a failed answer stands where the row cannot be read.
    let log = store.entries_after(session, 0, 10).await.unwrap();
    assert_eq!(seqs(&log), [1, 2, 3]);
    let placeholder = &log[1].meta;
    assert_eq!((placeholder.id, placeholder.state), (broken.meta.id, EntryState::Failed));
    assert_eq!(placeholder.answer().unwrap().error, Some(ErrorCode::Internal));
    assert_eq!(store.entries_before(session, 4, 10).await.unwrap(), log);
    assert_eq!(store.entry(session, 2).await.unwrap().as_ref(), Some(&log[1]));
    assert_eq!(store.streaming_answer(session).await.unwrap(), None);

    // The sweep finds the rows behind it, also where a page has nothing else.
    let page = store.expired_answers(Timestamp(100_000), None, 1).await.unwrap();
    assert_eq!(page.rows, []);
    let page = store.expired_answers(Timestamp(100_000), page.next, 1).await.unwrap();
    assert_eq!(page.rows, [other]);

    let mut registry = prometheus_client::registry::Registry::default();
    store.unreadable_rows().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = "chatbox_brain_unreadable_rows_total{collection=\"messages\"} 1";
    assert!(text.lines().any(|it| it == line), "each row counts once: {text}");
}
