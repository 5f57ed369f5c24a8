//! What is remembered of the log, and what a move to another brain therefore asks for.

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
fn a_move_does_not_set_a_growing_answer_back() {
    let mut sessions = opened(0, proto::SessionInfo::default());
    sessions.observe(&Message::SessionReady(proto::SessionReady { session_id: S.into(), seq: 0 }));
    sessions.observe(&entry(1, EntryState::Streaming, 1, 0));
    sessions.observe(&delta(1, 1, 0, 2));
    assert_eq!(sessions.observe(&entry(1, EntryState::Streaming, 1, 1)), Verdict::Drop, "less than was sent");
    assert_eq!(resume(&sessions).streaming_next_index, 2);
    assert_eq!(sessions.observe(&entry(1, EntryState::Streaming, 1, 2)), Verdict::Send, "as much");
    assert_eq!(sessions.observe(&entry(1, EntryState::Streaming, 2, 0)), Verdict::Send, "it began anew");
    assert_eq!(sessions.observe(&entry(1, EntryState::Final, 2, 0)), Verdict::Send);
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
fn an_admin_joins_what_they_watch_where_they_are() {
    let info = Message::Session(proto::SessionInfo::default());
    let mut sessions = Sessions::default();
    sessions.replied(&Request::AdminWatch(proto::AdminWatch { session_id: S.into(), after_seq: 2 }), Some(&info));
    sessions.observe(&entry(3, EntryState::Final, 0, 0));
    sessions.replied(&Request::AdminJoin(proto::AdminJoin { session_id: S.into() }), Some(&info));
    let resumed = resume(&sessions);
    assert_eq!((resumed.after_seq, resumed.watch), (3, true));
    let ready = Message::SessionReady(proto::SessionReady { session_id: S.into(), seq: 3 });
    assert_eq!(sessions.observe(&ready), Verdict::Send, "the join has its own end of the replay");
    assert_eq!(sessions.observe(&ready), Verdict::Drop);
}

#[test]
fn an_epoch_is_kept_as_it_is() {
    for epoch in ["", "e", "0190f3c0-0000-7000-8000-000000000001", "0190F3C0-0000-7000-8000-000000000001", "42"] {
        assert_eq!(Epoch::of(epoch).to_text(), epoch);
    }
    assert!(size_of::<Open>() <= 112, "an open session takes {} bytes", size_of::<Open>());
}
