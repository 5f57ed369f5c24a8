//! The thinnest slice: one user, one message, the built-in model, the embedded store.

use anyhow::Result;
use chatbox_tests::harness::Stack;
use chatbox_tests::harness::connection::new_session;

#[tokio::test]
async fn a_message_is_answered_by_the_built_in_model() -> Result<()> {
    let stack = Stack::builder().start().await?;
    let session = new_session();
    let mut ana = stack.user("ana")?.connect().await?;
    ana.open(&session).await?;
    let answer = ana.converse(&session, "Hello there").await?;
    assert_eq!(answer["state"], "final", "{answer}");
    assert_eq!(answer["finish_reason"], "stop", "{answer}");
    ana.log(&session)?.assert_gapless()?;
    ana.leave().await
}
