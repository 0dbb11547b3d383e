//! The runtime for programs without an executor: the same calls, each of which blocks its thread
//! for a bounded time or until a result is there.

use std::time::Duration;

use forebay_protocol::Fault;
use futures::executor::block_on;

use crate::config::{Config, Device};
use crate::error::{EmbedError, InjectError, PinError, StartError};
use crate::events::EventLog;
use crate::options::{EmbedInput, EmbedOptions, Embedding};
use crate::reply::EmbedResult;
use crate::runtime::{ModelInfo, Rates, Ready, ShutdownReport, Tokenizer};
use crate::status::Status;
use crate::supervisor::{Health, Level, LevelWatch};
use crate::ticket::{BatchTicket, Ticket};

/// A running runtime with blocking calls. It may be shared between threads.
#[derive(Debug)]
pub struct Runtime {
    inner: crate::Runtime,
}

impl Runtime {
    /// Starts the workers and returns when the first of them serves.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        block_on(crate::Runtime::start(config)).map(|inner| Self { inner })
    }

    /// Starts a second runtime that takes this one's place: another model, or other settings.
    ///
    /// # Errors
    /// See [`crate::Runtime::start_beside`].
    pub fn start_beside(&self, config: Config) -> Result<Self, StartError> {
        block_on(self.inner.start_beside(config)).map(|inner| Self { inner })
    }

    /// Caps the service level; `None` lifts the cap.
    ///
    /// # Errors
    /// See [`crate::Runtime::pin_level`].
    pub fn pin_level(&self, level: Option<Level>) -> Result<(), PinError> {
        block_on(self.inner.pin_level(level))
    }

    /// What the model gives.
    #[must_use]
    pub fn model(&self) -> &ModelInfo {
        self.inner.model()
    }

    /// The tokenizer that texts go through.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        self.inner.tokenizer()
    }

    /// How fast it is and how full.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.inner.rates()
    }

    /// Whether it would take an interactive text now and compute it.
    #[must_use]
    pub fn is_ready(&self) -> Ready {
        self.inner.is_ready()
    }

    /// Embeds one text, waiting for room if there is none.
    ///
    /// # Errors
    /// [`EmbedError`]. Give the options a deadline to bound the time.
    pub fn embed(
        &self,
        input: impl Into<EmbedInput>,
        options: &EmbedOptions,
    ) -> Result<Embedding, EmbedError> {
        block_on(self.inner.embed(input, options))
    }

    /// Embeds many texts; results come in their order.
    ///
    /// # Errors
    /// See [`crate::Runtime::embed_batch`].
    pub fn embed_batch(
        &self,
        inputs: Vec<impl Into<EmbedInput>>,
        options: &EmbedOptions,
    ) -> Result<Vec<EmbedResult>, EmbedError> {
        block_on(self.inner.embed_batch(inputs, options))
    }

    /// Submits one text, waiting for room if there is none. Poll or wait for the ticket.
    ///
    /// # Errors
    /// [`EmbedError`] if the text is not accepted.
    pub fn submit(
        &self,
        input: impl Into<EmbedInput>,
        options: &EmbedOptions,
    ) -> Result<Ticket, EmbedError> {
        block_on(self.inner.submit(input, options))
    }

    /// Submits texts together, waiting for room for all of them.
    ///
    /// # Errors
    /// [`EmbedError`] if they are not accepted.
    pub fn submit_batch(
        &self,
        inputs: Vec<impl Into<EmbedInput>>,
        options: &EmbedOptions,
    ) -> Result<BatchTicket, EmbedError> {
        block_on(self.inner.submit_batch(inputs, options))
    }

    /// Submits one text if there is room now; never blocks.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`] with a hint when to try again, or another [`EmbedError`].
    pub fn try_submit(
        &self,
        input: impl Into<EmbedInput>,
        options: &EmbedOptions,
    ) -> Result<Ticket, EmbedError> {
        self.inner.try_submit(input, options)
    }

    /// The service level now; one cheap read.
    #[must_use]
    pub fn level(&self) -> Level {
        self.inner.level()
    }

    /// Level, reason, capacity, worst age and the age of all that: two atomic loads, no lock, no
    /// wait; for a control loop.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.health()
    }

    /// The event log of this runtime: what has happened to its rungs, and why.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        self.inner.events()
    }

    /// Waits until every rung has come to the end of its first start, well or not.
    pub fn settled(&self) {
        block_on(self.inner.settled());
    }

    /// Tells of changes of the service level.
    #[must_use]
    pub fn watch_level(&self) -> LevelWatch {
        self.inner.watch_level()
    }

    /// One look at everything.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Ends the quarantine of a rung, whatever put it there; it is started again at once. `false` if
    /// there is no such rung.
    pub fn release(&self, device: Device) -> bool {
        block_on(self.inner.release(device))
    }

    /// Brings a fault about, on `device` if it is a fault of a device.
    ///
    /// # Errors
    /// See [`crate::Runtime::inject`].
    pub fn inject(&self, device: Option<Device>, fault: Fault) -> Result<(), InjectError> {
        block_on(self.inner.inject(device, fault))
    }

    /// Stops accepting, finishes what was accepted within `shutdown.drain_ms`, ends the workers.
    pub fn shutdown(self) -> ShutdownReport {
        block_on(self.inner.shutdown())
    }

    /// [`Runtime::shutdown`] with its own limit on the time for what was accepted.
    pub fn shutdown_within(self, drain: Duration) -> ShutdownReport {
        block_on(self.inner.shutdown_within(drain))
    }
}
