//! What a connection remembers of the logs of its sessions, and what it asks a new brain for.

use chatbox_shared::proto::EntryState;

use super::*;

const S: &str = "0190f3c0-0000-7000-8000-000000000001";

fn entry(seq: u64, state: EntryState, attempt: u32, next_index: u64) -> Message {
    Message::Entry(proto::EntryEvent {
        session_id: S.into(),
        entry: Some(proto::Entry {
            seq,
            state: state.into(),
            answer: Some(proto::Answer { attempt, next_index, ..Default::default() }),
            ..Default::default()
        }),
    })
}

fn revised(seq: u64, state: EntryState, rev: u32, attempt: u32, next_index: u64) -> Message {
    let mut message = entry(seq, state, attempt, next_index);
    if let Message::Entry(proto::EntryEvent { entry: Some(entry), .. }) = &mut message {
        entry.rev = rev;
        // The first attempt of an answer is 1.
        entry.answer.take_if(|answer| answer.attempt == 0);
    }
    message
}

fn delta(seq: u64, attempt: u32, index: u64, count: u32) -> Message {
    Message::AiDelta(proto::AiDelta { session_id: S.into(), seq, attempt, index, count, delta: "x".into() })
}

fn opened(after_seq: u64, info: proto::SessionInfo) -> Sessions {
    let mut sessions = Sessions::default();
    let open = Request::SessionOpen(proto::SessionOpen { session_id: S.into(), after_seq, ..Default::default() });
    let session = Some(proto::Session { epoch: "e1".into(), ..Default::default() });
    sessions.replied(&open, Some(&Message::Session(proto::SessionInfo { session, ..info })));
    sessions
}

fn resume(sessions: &Sessions) -> proto::Resume {
    sessions.resume().pop().expect("one open session")
}

#[test]
fn a_session_starts_where_its_replay_starts() {
    assert_eq!(resume(&opened(5, proto::SessionInfo::default())).after_seq, 5);
    assert_eq!(resume(&opened(5, proto::SessionInfo { truncated_before: 40, ..Default::default() })).after_seq, 39);
    assert_eq!(resume(&opened(5, proto::SessionInfo { reset: true, ..Default::default() })).after_seq, 0);
    let resumed = resume(&opened(0, proto::SessionInfo::default()));
    assert_eq!((resumed.session_id.as_str(), resumed.epoch.as_str(), resumed.watch), (S, "e1", false));
}

#[test]
fn a_streaming_answer_holds_the_mark_until_it_is_final() {
    let mut sessions = opened(0, proto::SessionInfo::default());
    sessions.observe(&entry(1, EntryState::Final, 0, 0));
    sessions.observe(&entry(2, EntryState::Streaming, 1, 0));
    sessions.observe(&entry(3, EntryState::Final, 0, 0));
    assert_eq!(sessions.observe(&delta(2, 1, 0, 1)), Verdict::Send);
    assert_eq!(sessions.observe(&delta(2, 1, 1, 4)), Verdict::Send);
    let resumed = resume(&sessions);
    assert_eq!(
        (resumed.after_seq, resumed.streaming_seq, resumed.streaming_attempt, resumed.streaming_next_index),
        (1, 2, 1, 5)
    );
    sessions.observe(&entry(2, EntryState::Final, 1, 5));
    let resumed = resume(&sessions);
    assert_eq!((resumed.after_seq, resumed.streaming_seq), (3, 0));
}

#[test]
fn deltas_that_are_over_are_dropped_and_gaps_are_not() {
    let mut sessions = opened(0, proto::SessionInfo::default());
    assert_eq!(sessions.observe(&delta(1, 1, 0, 1)), Verdict::Send, "nothing is known of it yet");
    sessions.observe(&entry(1, EntryState::Streaming, 2, 3));
    assert_eq!(sessions.observe(&delta(1, 1, 3, 1)), Verdict::Drop, "an older attempt");
    assert_eq!(sessions.observe(&delta(1, 2, 1, 2)), Verdict::Drop, "received before");
    assert_eq!(sessions.observe(&delta(1, 2, 5, 1)), Verdict::Send, "a gap");
    assert_eq!(resume(&sessions).streaming_next_index, 3, "a gap is no progress");
    assert_eq!(sessions.observe(&delta(1, 2, 3, 1)), Verdict::Send);
    sessions.observe(&entry(1, EntryState::Streaming, 3, 0));
    assert_eq!(sessions.observe(&delta(1, 2, 4, 1)), Verdict::Drop, "the answer began anew");
    assert_eq!(sessions.observe(&delta(1, 3, 0, 1)), Verdict::Send);
    sessions.observe(&entry(1, EntryState::Failed, 3, 1));
    assert_eq!(sessions.observe(&delta(1, 3, 1, 1)), Verdict::Drop, "it is final");
}

#[test]
fn an_answer_that_is_sent_whole_again_is_passed_on_only_where_it_has_grown() {
    let mut sessions = opened(0, proto::SessionInfo::default());
    sessions.observe(&revised(1, EntryState::Final, 1, 0, 0));
    sessions.observe(&revised(2, EntryState::Streaming, 1, 1, 0));
    sessions.observe(&delta(2, 1, 0, 5));
    for known in [0, 4, 5] {
        assert_eq!(sessions.observe(&revised(2, EntryState::Streaming, 1, 1, known)), Verdict::Drop, "{known}");
        assert_eq!(resume(&sessions).streaming_next_index, 5, "what is known is not set back");
    }
    assert_eq!(sessions.observe(&delta(2, 1, 4, 1)), Verdict::Drop);
    assert_eq!(sessions.observe(&revised(2, EntryState::Streaming, 1, 1, 8)), Verdict::Send);
    assert_eq!(sessions.observe(&delta(2, 1, 7, 1)), Verdict::Drop, "it is in the entry");
    assert_eq!(sessions.observe(&delta(2, 1, 8, 1)), Verdict::Send);
    assert_eq!(sessions.observe(&revised(2, EntryState::Streaming, 2, 2, 0)), Verdict::Send, "another attempt");
    assert_eq!(sessions.observe(&revised(2, EntryState::Streaming, 1, 1, 20)), Verdict::Drop, "the one before");
    let resumed = resume(&sessions);
    assert_eq!((resumed.after_seq, resumed.streaming_attempt, resumed.streaming_next_index), (1, 2, 0));
}

#[test]
fn what_was_received_whole_is_not_sent_again() {
    let mut sessions = opened(10, proto::SessionInfo::default());
    sessions.observe(&revised(11, EntryState::Final, 1, 0, 0));
    sessions.observe(&revised(12, EntryState::Streaming, 1, 1, 0));
    sessions.observe(&revised(13, EntryState::Final, 1, 0, 0));
    for seq in [11, 13] {
        assert_eq!(sessions.observe(&revised(seq, EntryState::Final, 1, 0, 0)), Verdict::Drop, "{seq}");
    }
    assert_eq!(sessions.observe(&revised(12, EntryState::Final, 2, 1, 3)), Verdict::Send);
    assert_eq!(sessions.observe(&revised(12, EntryState::Final, 2, 1, 3)), Verdict::Drop);
    assert_eq!(sessions.observe(&revised(12, EntryState::Streaming, 1, 1, 2)), Verdict::Drop, "it is over");
    assert_eq!(sessions.observe(&revised(12, EntryState::Final, 3, 1, 3)), Verdict::Send, "it was changed");
    assert_eq!(sessions.observe(&revised(10, EntryState::Final, 1, 0, 0)), Verdict::Send, "from before the open");
    assert_eq!(sessions.observe(&revised(14, EntryState::Final, 1, 0, 0)), Verdict::Send);
    assert_eq!(resume(&sessions).after_seq, 14);
}

#[test]
fn a_replay_ends_once() {
    let ready = Message::SessionReady(proto::SessionReady { session_id: S.into(), seq: 0 });
    let mut sessions = opened(0, proto::SessionInfo::default());
    assert_eq!(sessions.observe(&ready), Verdict::Send);
    assert_eq!(sessions.observe(&ready), Verdict::Drop);
    let open = Request::SessionOpen(proto::SessionOpen { session_id: S.into(), ..Default::default() });
    sessions.replied(&open, Some(&Message::Session(proto::SessionInfo::default())));
    assert_eq!(sessions.observe(&ready), Verdict::Send, "it was opened again");
}

#[test]
fn closing_and_deleting_forget_and_errors_change_nothing() {
    let close = Request::SessionClose(proto::SessionClose { session_id: S.into() });
    let mut sessions = opened(0, proto::SessionInfo::default());
    sessions.replied(&close, Some(&Message::Error(proto::Error::default())));
    assert_eq!(sessions.resume().len(), 1);
    sessions.replied(&close, None);
    assert_eq!(sessions.resume().len(), 0);
}

#[test]
fn an_admin_who_joins_what_they_watch_has_it_replayed_from_the_start() {
    let ready = Message::SessionReady(proto::SessionReady { session_id: S.into(), seq: 4 });
    let info = Message::Session(proto::SessionInfo::default());
    let mut sessions = Sessions::default();
    sessions.replied(&Request::AdminWatch(proto::AdminWatch { session_id: S.into(), after_seq: 2 }), Some(&info));
    sessions.observe(&entry(3, EntryState::Final, 0, 0));
    sessions.observe(&ready);
    sessions.replied(&Request::AdminJoin(proto::AdminJoin { session_id: S.into() }), Some(&info));
    let resumed = resume(&sessions);
    assert_eq!((resumed.after_seq, resumed.watch), (0, true));
    for seq in 1..=4 {
        assert_eq!(sessions.observe(&entry(seq, EntryState::Final, 0, 0)), Verdict::Send);
    }
    assert_eq!(sessions.observe(&ready), Verdict::Send, "the end of the replay");
    assert_eq!(resume(&sessions).after_seq, 4);
}

#[test]
fn an_epoch_is_kept_as_it_is() {
    for epoch in ["", "e", "42", "00000000000000ff", "00000000000000FF", "+0000000000000ff", "fffffffffffffffff", S] {
        assert_eq!(Epoch::of(epoch).to_text(), epoch);
    }
    assert!(matches!(Epoch::of("9f1c00d2ab34ef56"), Epoch::Hex(_)), "the common form needs no memory of its own");
    assert!(size_of::<SessionProgress>() <= 104, "an open session takes {} bytes", size_of::<SessionProgress>());
}
