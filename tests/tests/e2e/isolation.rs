//! Nobody reaches another user's session: every request that names one gets the answer for one that does not exist.

use anyhow::{Result, ensure};
use chatbox_tests::harness::connection::{new_session, user_message};
use chatbox_tests::harness::mask::Mask;
use chatbox_tests::harness::{Frame, Stack};
use serde_json::{Value, json};
use uuid::Uuid;

fn requests(session: &str) -> Vec<Value> {
    vec![
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

#[tokio::test]
async fn another_users_session_looks_like_none() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let (session, absent) = (new_session(), new_session());
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    ana.converse(&session, "a secret").await?;
    // The last thing that comes of it by itself.
    let summed_up = |frame: &Frame| frame.is("session") && frame.number("/session/tokens/output") > Some(0);
    ana.seen("the sum of what was used", summed_up).await?;
    ana.settle().await?;
    let known = ana.frames.len();

    let mut ben = stack.user("ben")?.connect().await?;
    for (theirs, none) in requests(&session).into_iter().zip(requests(&absent)) {
        let creates = theirs["create"] == true;
        let theirs = ben.ask_refused(theirs, "not_found").await?;
        if creates {
            continue; // an absent one would be made
        }
        let none = ben.ask_refused(none, "not_found").await?;
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

    // Nothing of all this reached the owner, or changed the session.
    let strays = ana.settle().await?;
    ensure!(strays == 0, "{:?}", ana.frames[known..].iter().map(|frame| &frame.raw).collect::<Vec<_>>());
    let mut again = stack.user("ana")?.connect().await?;
    let opened = again.open(&session).await?;
    ensure!(opened.at("/session/state") == "active" && opened.number("/session/seq") == Some(2), "{}", opened.raw);
    again.log(&session)?.assert_same(ana.log(&session)?)?;

    // Where the owner goes on, the other one hears nothing.
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
    for request in [
        json!({ "type": "admin_join", "session_id": session }),
        json!({ "type": "admin_leave", "session_id": session }),
        json!({ "type": "admin_watch", "session_id": session }),
        json!({ "type": "admin_message", "session_id": session, "client_msg_id": Uuid::new_v4(), "content": "hi" }),
    ] {
        ana.ask_refused(request, "forbidden").await?;
    }
    Ok(())
}
