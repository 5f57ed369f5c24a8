//! The usual set-up of a test: a stack whose model is answered by a fake provider, one connected user, one open session.

use anyhow::{Context, Result};

use super::connection::{Connection, new_session};
use super::model::{Dialect, Model};
use super::stack::Stack;
use super::start::Builder;
use crate::provider::{Call, Driver, FakeProvider, Script, Step};

/// The id of the model that [`Conversation::start`] configures.
pub const MODEL: &str = "bird";

/// A user who talks to one model. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Conversation {
    /// The provider of the model.
    pub provider: FakeProvider,
    /// The services.
    pub stack: Stack,
    /// The user's connection; its device is `phone`.
    pub ana: Connection,
    /// The open session.
    pub session: String,
}

impl Conversation {
    /// Starts a stack with one model of this dialect.
    ///
    /// # Errors
    /// A service did not start, or the user was refused.
    pub async fn start(dialect: Dialect) -> Result<Self> {
        Self::with_model(dialect, |model| model).await
    }

    /// As [`Conversation::start`], with changed settings of the model.
    ///
    /// # Errors
    /// As [`Conversation::start`].
    pub async fn with_model(dialect: Dialect, change: impl FnOnce(Model) -> Model) -> Result<Self> {
        let provider = FakeProvider::start().await?;
        let model = change(Model::at(MODEL, dialect, &provider.url()));
        Self::on(provider, Stack::builder().model(model).start().await?).await
    }

    /// As [`Conversation::start`], with a changed stack. `change` also gets the URL of the provider.
    ///
    /// # Errors
    /// As [`Conversation::start`], or what `change` returns.
    pub async fn with_stack(dialect: Dialect, change: impl FnOnce(Builder, &str) -> Result<Builder>) -> Result<Self> {
        let provider = FakeProvider::start().await?;
        let builder = Stack::builder().model(Model::at(MODEL, dialect, &provider.url()));
        let stack = change(builder, &provider.url())?.start().await?;
        Self::on(provider, stack).await
    }

    /// Connects the user to a stack that runs, and opens a new session.
    ///
    /// # Errors
    /// The user was refused.
    pub async fn on(provider: FakeProvider, stack: Stack) -> Result<Self> {
        let session = new_session();
        let mut ana = stack.user("ana")?.device("phone").connect().await?;
        ana.open(&session).await?;
        Ok(Self { provider, stack, ana, session })
    }

    /// Connects another device of the user and opens the session on it.
    ///
    /// # Errors
    /// The device was refused.
    pub async fn connect(&self, device: &str) -> Result<Connection> {
        let mut connection = self.stack.user("ana")?.device(device).connect().await?;
        connection.open(&self.session).await?;
        Ok(connection)
    }

    /// Sends a message and waits until its answer shows these pieces. Returns the seq of the message and the driver of the
    /// rest of the answer.
    ///
    /// # Errors
    /// The message was refused, or the answer did not begin in time.
    pub async fn start_answer(&mut self, pieces: &[&str]) -> Result<(u64, Driver)> {
        let (script, driver) = Script::live();
        self.provider.script(script);
        driver.step(Step::Begin);
        for piece in pieces {
            driver.delta(*piece);
        }
        let seq = self.ana.say(&self.session, "tell me").await?.number("/seq").context("an ack without seq")?;
        self.ana.shown(&self.session, seq, &pieces.concat()).await?;
        Ok((seq, driver))
    }

    /// The requests for an answer that reached the provider, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.provider.chat_calls()
    }

    /// Checks that a device that joins now gets the same log as the user has.
    ///
    /// # Errors
    /// The logs differ.
    pub async fn assert_replay_is_same(&mut self) -> Result<()> {
        self.ana.settle().await?;
        let fresh = self.connect("fresh").await?;
        fresh.log(&self.session)?.assert_same(self.ana.log(&self.session)?)
    }
}
