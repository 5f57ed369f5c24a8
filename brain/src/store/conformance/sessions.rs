//! Session documents: creation, summary, lists, erasure.

use super::*;
use crate::store::{SessionCursor, StateFilter};

pub(super) async fn a_session_reads_back_as_it_was_written(store: &dyn Store) {
    let mut row = session_row("user");
    row.summary = Summary {
        seq: 12,
        last_at: Timestamp(1_700_000_000_123),
        ended_at: Some(Timestamp(1_700_000_000_456)),
        message_count: 8,
        model_id: "other".into(),
        admin_assisted: true,
        admin: Some(Person { id: UserId::new("admin"), name: None }),
        joined_seq: 5,
        help_requested_at: Some(Timestamp(1_700_000_000_000)),
    };
    row.read_seq = 11;
    row.usage = UsageSum { calls: 1, input: 2, cached: 3, output: 4, cost: 5_000_000_000 };
    row.responses = Responses { count: 6, ms_sum: 7, ms_max: 8_000_000_000 };
    assert!(store.create_session(&row).await.unwrap());
    assert_eq!(store.session(row.id).await.unwrap(), Some(row));

    let plain = SessionRow { name: Vec::new(), ..session_row("ünï\u{202e}\"'$codé") };
    assert!(store.create_session(&plain).await.unwrap());
    assert_eq!(store.session(plain.id).await.unwrap(), Some(plain));
    assert_eq!(store.session(SessionId::generate()).await.unwrap(), None);
}

pub(super) async fn an_id_is_given_once(store: &dyn Store) {
    let first = session_row("user");
    let second = SessionRow { id: first.id, ..session_row("other") };
    assert!(store.create_session(&first).await.unwrap());
    assert!(!store.create_session(&second).await.unwrap());
    assert_eq!(store.session(first.id).await.unwrap(), Some(first));

    let racing: Vec<_> = (0..8).map(|n| SessionRow { epoch: n.to_string(), ..session_row("user") }).collect();
    let racing: Vec<_> = racing.iter().map(|row| SessionRow { id: racing[0].id, ..row.clone() }).collect();
    let created = together(racing.iter().map(|row| store.create_session(row))).await;
    let winners: Vec<_> = (0..8).filter(|n| *created[*n].as_ref().unwrap()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(store.session(racing[0].id).await.unwrap().unwrap().epoch, winners[0].to_string());
}

pub(super) async fn each_key_in_use_has_one_sample(store: &dyn Store) {
    assert_eq!(store.key_samples(10).await.unwrap(), Vec::new());
    let mut erased = None;
    for kid in ["k2", "k10", "k2", "k1", "gone"] {
        let mut row = session_row("user");
        row.data_key = Some(WrappedKey { kid: kid.into(), wrapped: vec![9; 60] });
        assert!(store.create_session(&row).await.unwrap());
        erased = Some(row.id);
    }
    store.erase_session(erased.unwrap()).await.unwrap();
    let samples = store.key_samples(10).await.unwrap();
    assert_eq!(samples.iter().map(|(_, key)| key.kid.as_str()).collect::<Vec<_>>(), ["k1", "k10", "k2"]);
    for (session, key) in &samples {
        assert_eq!(store.session(*session).await.unwrap().unwrap().data_key.as_ref(), Some(key));
    }
    assert_eq!(store.key_samples(2).await.unwrap(), samples[..2]);
}

pub(super) async fn a_summary_never_goes_back(store: &dyn Store) {
    let row = session_row("user");
    store.create_session(&row).await.unwrap();
    let newer = Summary {
        ended_at: Some(Timestamp(5_000)),
        admin: Some(person("admin")),
        admin_assisted: true,
        help_requested_at: Some(Timestamp(4_000)),
        ..summary(7, 5_000)
    };
    store.save_summary(row.id, &newer).await.unwrap();
    store.save_summary(row.id, &summary(6, 4_000)).await.unwrap();
    assert_eq!(store.session(row.id).await.unwrap().unwrap(), SessionRow { summary: newer, ..row.clone() });
    // What is absent in a newer one is removed.
    store.save_summary(row.id, &summary(8, 6_000)).await.unwrap();
    assert_eq!(store.session(row.id).await.unwrap().unwrap().summary, summary(8, 6_000));

    let racing: Vec<_> = (10..30).map(|seq| summary(seq, 6_000)).collect();
    for saved in together(racing.iter().map(|summary| store.save_summary(row.id, summary))).await {
        saved.unwrap();
    }
    assert_eq!(store.session(row.id).await.unwrap().unwrap().summary.seq, 29);
    store.save_summary(SessionId::generate(), &summary(1, 1)).await.unwrap();
}

pub(super) async fn names_and_read_markers(store: &dyn Store) {
    let row = session_row("user");
    store.create_session(&row).await.unwrap();
    assert!(store.rename_session(row.id, &[4, 5, 6, 7]).await.unwrap());
    store.mark_read(row.id, 9).await.unwrap();
    store.mark_read(row.id, 3).await.unwrap();
    let expected = SessionRow { name: vec![4, 5, 6, 7], read_seq: 9, ..row.clone() };
    assert_eq!(store.session(row.id).await.unwrap(), Some(expected));
    assert!(!store.replace_name(row.id, &[1, 2, 3], &[8]).await.unwrap(), "it has another name by now");
    assert!(store.replace_name(row.id, &[4, 5, 6, 7], &[8, 9]).await.unwrap());
    assert_eq!(store.session(row.id).await.unwrap().unwrap().name, [8, 9]);
    assert!(store.rename_session(row.id, &[]).await.unwrap());
    assert!(!store.replace_name(row.id, &[8, 9], &[1]).await.unwrap());
    assert!(store.replace_name(row.id, &[], &[2]).await.unwrap(), "from none");
    assert!(!store.replace_name(row.id, &[], &[3]).await.unwrap());
    assert!(store.rename_session(row.id, &[]).await.unwrap());
    assert_eq!(store.session(row.id).await.unwrap().unwrap().name, Vec::<u8>::new());
    assert!(!store.rename_session(SessionId::generate(), &[1]).await.unwrap());
    store.mark_read(SessionId::generate(), 1).await.unwrap();
}

pub(super) async fn responses_are_counted(store: &dyn Store) {
    let row = session_row("user");
    store.create_session(&row).await.unwrap();
    for added in together((1..=20).map(|took_ms| store.add_response(row.id, took_ms))).await {
        added.unwrap();
    }
    let expected = Responses { count: 20, ms_sum: 210, ms_max: 20 };
    assert_eq!(store.session(row.id).await.unwrap(), Some(SessionRow { responses: expected, ..row }));
    store.add_response(SessionId::generate(), 1).await.unwrap();
}

pub(super) async fn lists_come_in_pages_latest_first(store: &dyn Store) {
    let mut rows = Vec::new();
    for n in 0..25_i64 {
        let mut row = session_row("user");
        // Several with one and the same time: the id decides.
        row.summary.last_at = Timestamp(1_000 + n / 4);
        row.summary.ended_at = (n % 3 == 0).then_some(Timestamp(2_000));
        store.create_session(&row).await.unwrap();
        rows.push(row);
    }
    store.create_session(&session_row("somebody else")).await.unwrap();
    let erased = session_row("user");
    store.create_session(&erased).await.unwrap();
    store.erase_session(erased.id).await.unwrap();
    rows.sort_by_key(|row| std::cmp::Reverse((row.summary.last_at, row.id)));

    for (filter, wanted) in
        [(StateFilter::Any, None), (StateFilter::Active, Some(false)), (StateFilter::Ended, Some(true))]
    {
        let expected: Vec<_> = rows
            .iter()
            .filter(|row| wanted.is_none_or(|ended| row.summary.ended_at.is_some() == ended))
            .cloned()
            .collect();
        for limit in [1, 7, 100] {
            let mut found: Vec<SessionRow> = Vec::new();
            loop {
                let after = found.last().map(|row| SessionCursor { last_at: row.summary.last_at, id: row.id });
                let page = store.list_sessions(&UserId::new("user"), filter, after, limit).await.unwrap();
                assert!(page.len() <= limit as usize);
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            assert_eq!(found, expected, "{filter:?} by {limit}");
        }
    }
    assert_eq!(store.list_sessions(&UserId::new("user"), StateFilter::Any, None, 0).await.unwrap(), []);
    assert_eq!(store.list_sessions(&UserId::new("nobody"), StateFilter::Any, None, 10).await.unwrap(), []);
}

pub(super) async fn an_erased_session_is_gone_but_its_id(store: &dyn Store) {
    let (row, other) = (session_row("user"), session_row("user"));
    for session in [&row, &other] {
        store.create_session(session).await.unwrap();
        for seq in 1..=1_203 {
            // Alternating, so that the deletion has more than one batch and meets every kind.
            let entry =
                if seq % 2 == 0 { ended(answer(session.id, seq, seq - 1, 0)) } else { message(session.id, seq) };
            if session.id == row.id || seq < 5 {
                store.append(&entry).await.unwrap();
            }
        }
    }
    store.erase_session(row.id).await.unwrap();
    store.erase_session(row.id).await.unwrap();
    let erased = store.session(row.id).await.unwrap().unwrap();
    assert_eq!((&erased.data_key, erased.name.as_slice()), (&None, [].as_slice()));
    assert_eq!(store.entries_after(row.id, 0, 10).await.unwrap(), []);
    assert_eq!(store.next_unanswered(row.id).await.unwrap(), None);
    let listed = store.list_sessions(&row.user, StateFilter::Any, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.id).collect::<Vec<_>>(), [other.id]);
    // It stays erased, whatever comes late.
    assert!(!store.create_session(&row).await.unwrap());
    assert!(!store.rename_session(row.id, &[1]).await.unwrap());
    store.save_summary(row.id, &summary(2_000, 9_000)).await.unwrap();
    assert_eq!(store.session(row.id).await.unwrap(), Some(erased));
    assert_eq!(store.list_sessions(&row.user, StateFilter::Any, None, 10).await.unwrap().len(), 1);
    assert_eq!(store.entries_after(other.id, 0, 10).await.unwrap().len(), 4);
    store.erase_session(SessionId::generate()).await.unwrap();
}

pub(super) async fn the_clock_goes_on(store: &dyn Store) {
    let first = store.now().await.unwrap();
    // Long after this test was written, and not in microseconds.
    assert!((1_700_000_000_000..10_000_000_000_000).contains(&first.0), "{first:?}");
    assert!(store.now().await.unwrap() >= first);
    store.migrate().await.unwrap();
}
