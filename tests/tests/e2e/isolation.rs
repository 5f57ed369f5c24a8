//! No user reaches another user's session: every request that names one gets the reply for an absent session.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{new_session, user_message};
use chatbox_tests::harness::mask::Mask;
use chatbox_tests::harness::{Frame, Stack, schema};
use serde_json::{Value, json};
use uuid::Uuid;

/// One request of each kind that names a session.
fn requests(session: &str) -> Vec<Value> {
    vec![
        json!({ "type": "session_close", "session_id": session }),
        json!({ "type": "regenerate", "session_id": session }),
        json!({ "type": "help_request", "session_id": session, "reason": "let me in" }),
        json!({ "type": "session_open", "session_id": session }),
        json!({ "type": "session_open", "session_id": session, "create": true }),
        json!({ "type": "session_rename", "session_id": session, "name": "mine now" }),
        json!({ "type": "session_end", "session_id": session }),
        json!({ "type": "session_delete", "session_id": session }),
        json!({ "type": "history", "session_id": session, "before_seq": 100 }),
        user_message(session, &Uuid::new_v4().to_string(), "let me in"),
        json!({ "type": "stop_generation", "session_id": session }),
        json!({ "type": "model_select", "session_id": session, "model_id": "demo" }),
        json!({ "type": "typing", "session_id": session, "active": true }),
        json!({ "type": "read", "session_id": session, "seq": 1 }),
    ]
}

/// Requests of administrators; other users are refused whatever session they name.
fn admin_requests(session: &str) -> Vec<Value> {
    let message =
        json!({ "type": "admin_message", "session_id": session, "client_msg_id": Uuid::new_v4(), "content": "hi" });
    vec![
        json!({ "type": "admin_join", "session_id": session }),
        json!({ "type": "admin_leave", "session_id": session }),
        json!({ "type": "admin_watch", "session_id": session }),
        message,
    ]
}

#[test]
fn every_request_that_names_a_session_is_tried() -> Result<()> {
    let session = new_session();
    let tried = requests(&session).into_iter().chain(admin_requests(&session));
    let tried: BTreeSet<String> = tried.filter_map(|it| it["type"].as_str().map(str::to_owned)).collect();
    let described: BTreeSet<String> = schema::requests_about_a_session()?.into_iter().collect();
    ensure!(tried == described, "tried {tried:?}, described {described:?}");
    Ok(())
}

#[tokio::test]
async fn another_users_session_looks_like_none() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let (session, absent) = (new_session(), new_session());
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "a secret").await?;
    // The last frame that this turn causes.
    let summed_up = |frame: &Frame| frame.is("session") && frame.number("/session/tokens/output") > Some(0);
    ana.seen("the sum of what was used", summed_up).await?;
    ana.settle().await?;
    let known = ana.frames.len();

    let mut ben = stack.user("ben")?.connect().await?;
    for (theirs, none) in requests(&session).into_iter().zip(requests(&absent)) {
        let creates = theirs["create"] == true;
        let closes = theirs["type"] == "session_close";
        let theirs = ben.ask(theirs).await?;
        if closes {
            // There is nothing to close on this connection, which is no error.
            ensure!(theirs.is("ack"), "{}", theirs.raw);
        } else {
            ensure!(theirs.is("error") && theirs.text("/code") == "not_found", "{}", theirs.raw);
        }
        if creates {
            continue; // an absent session would be created
        }
        let none = ben.ask(none).await?;
        let strip = |raw: &str| {
            let mut mask = Mask::default();
            for value in (1..100).map(|index| format!("r{index}")) {
                mask.name(&value, "reply_to");
            }
            mask.apply(raw)
        };
        ensure!(strip(&theirs.raw) == strip(&none.raw), "told apart:\n{}\n{}", theirs.raw, none.raw);
    }
    let list = ben.ask_ok(json!({ "type": "session_list" })).await?;
    ensure!(list.at("/sessions") == &json!([]), "{}", list.raw);

    // No frame reached the owner, and the session is unchanged.
    let strays = ana.settle().await?;
    ensure!(strays == 0, "{:?}", ana.frames[known..].iter().map(|frame| &frame.raw).collect::<Vec<_>>());
    let mut again = stack.user("ana")?.connect().await?;
    let opened = again.open(&session).await?;
    ensure!(opened.at("/session/state") == "active" && opened.number("/session/seq") == Some(2), "{}", opened.raw);
    again.log(&session)?.assert_same(ana.log(&session)?)?;

    // The other user receives nothing of the next turn.
    let before = ben.frames.len();
    ana.converse(&session, "another secret").await?;
    let strays = ben.settle().await?;
    ensure!(strays == 0, "{:?}", ben.frames[before..].iter().map(|frame| &frame.raw).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn admin_operations_need_the_role() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    let absent = new_session();
    for request in admin_requests(&session).into_iter().chain(admin_requests(&absent)) {
        ana.ask_refused(request, "forbidden").await?;
    }
    Ok(())
}
