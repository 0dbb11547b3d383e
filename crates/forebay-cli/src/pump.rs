//! The way of a large input through the runtime: a thread that reads, a window of chunks under way,
//! a thread that writes.
//!
//! ```text
//! reader ─▶ 2 chunks ─▶ submit ─▶ window of tickets, in order ─▶ 2 chunks ─▶ writer
//! ```
//! Every place is bounded, so memory does not grow with the input. The oldest ticket is waited for
//! while further chunks go in behind it, so rows leave in the order of their lines. Reading and
//! writing have threads of their own because both may block for as long as the other end of a pipe
//! likes; an interrupt does not wait for them.

use std::collections::VecDeque;
use std::time::Duration;

use forebay::{BatchTicket, EmbedOptions, EmbedResult, Embedding, Runtime};
use indicatif::ProgressBar;
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Exit, Failure};
use crate::input::{Chunk, TextReader};
use crate::output::RowWriter;
use crate::service::at;

/// Chunks between two parts.
const CHUNKS_WAITING: usize = 2;

/// Chunks that are submitted and not answered: enough for every slot of a worker and a batch or two
/// to choose from.
const WINDOW: usize = 16;

/// Time for the writer to let go of its file after an interrupt.
const WRITER_GRACE: Duration = Duration::from_secs(2);

/// What went through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Rows written.
    pub(crate) rows: u64,
    /// Tokens of their texts, as the encoder saw them.
    pub(crate) tokens: u64,
    /// Texts that were cut.
    pub(crate) truncated: u64,
}

enum ToWriter {
    Rows { rows: Vec<Embedding>, consumed: u64 },
    Finish,
}

struct UnderWay {
    ticket: BatchTicket,
    first_line: u64,
    consumed: u64,
}

/// A run from an input to an output.
pub(crate) struct Pump {
    chunks: mpsc::Receiver<Result<Chunk, Failure>>,
    window: VecDeque<UnderWay>,
    rows: mpsc::Sender<ToWriter>,
    /// `None` once it has been asked.
    written: Option<oneshot::Receiver<Result<Totals, Failure>>>,
}

impl Pump {
    /// Starts reading; rows will be written as they come.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start(
        mut reader: TextReader,
        writer: RowWriter,
        bar: ProgressBar,
    ) -> Result<Self, Failure> {
        let (to_submit, chunks) = mpsc::channel(CHUNKS_WAITING);
        thread("fb-read", move || {
            loop {
                let Some(chunk) = reader.read_chunk().transpose() else { return };
                let last = chunk.is_err();
                if to_submit.blocking_send(chunk).is_err() || last {
                    return;
                }
            }
        })?;
        let (rows, from) = mpsc::channel(CHUNKS_WAITING);
        let (tell, written) = oneshot::channel();
        thread("fb-write", move || {
            // Nobody listens any more only if the command has ended.
            tell.send(write(writer, from, &bar)).ok();
        })?;
        Ok(Self { chunks, window: VecDeque::new(), rows, written: Some(written) })
    }

    /// Moves everything through, up to the completed output. May be dropped to stop.
    ///
    /// # Errors
    /// The first line without a row, or what reading or writing says.
    pub(crate) async fn run(
        &mut self,
        runtime: &Runtime,
        options: &EmbedOptions,
    ) -> Result<Totals, Failure> {
        let mut reading = true;
        while reading || !self.window.is_empty() {
            tokio::select! {
                // New chunks first: the workers should not wait for the writer.
                biased;
                chunk = self.chunks.recv(), if reading && self.window.len() < WINDOW => {
                    match chunk.transpose()? {
                        Some(chunk) => self.submit(runtime, chunk, options).await?,
                        None => reading = false,
                    }
                }
                Some(results) = oldest(&mut self.window) => self.pass_on(results).await?,
            }
        }
        self.send(ToWriter::Finish).await?;
        self.outcome().await
    }

    async fn submit(
        &mut self,
        runtime: &Runtime,
        chunk: Chunk,
        options: &EmbedOptions,
    ) -> Result<(), Failure> {
        let Chunk { texts, first_line, consumed } = chunk;
        let ticket = runtime.submit_batch(texts, options).await?;
        self.window.push_back(UnderWay { ticket, first_line, consumed });
        Ok(())
    }

    /// Hands the results of the oldest chunk to the writer.
    async fn pass_on(&mut self, results: Vec<EmbedResult>) -> Result<(), Failure> {
        let Some(UnderWay { first_line, consumed, .. }) = self.window.pop_front() else {
            return Ok(());
        };
        let lines = results.into_iter().zip(first_line..);
        let rows: Vec<Embedding> = lines
            .map(|(result, line)| result.map_err(|error| at("line", line, error.into())))
            .collect::<Result<_, _>>()?;
        self.send(ToWriter::Rows { rows, consumed }).await
    }

    async fn send(&mut self, message: ToWriter) -> Result<(), Failure> {
        if self.rows.send(message).await.is_ok() {
            return Ok(());
        }
        // The writer ends early only with an error, which it tells.
        self.outcome().await.map(|_| ())
    }

    async fn outcome(&mut self) -> Result<Totals, Failure> {
        let panicked = || Failure::new(Exit::Failed, "the thread that writes has panicked");
        let written = self.written.take().ok_or_else(panicked)?;
        written.await.map_err(|_| panicked())?
    }

    /// Gives up what is under way and lets go of the output without completing it. What standard
    /// output has got by then are whole rows from the first on.
    pub(crate) async fn abandon(self) {
        let Self { rows, written, .. } = self;
        drop(rows);
        if let Some(written) = written {
            // A writer that is stuck in a pipe has no file to remove.
            tokio::time::timeout(WRITER_GRACE, written).await.ok();
        }
    }
}

/// The results of the oldest chunk once they are all there; `None` if there is no chunk. Dropping
/// the future loses nothing.
async fn oldest(window: &mut VecDeque<UnderWay>) -> Option<Vec<EmbedResult>> {
    let first = window.front_mut()?;
    Some((&mut first.ticket).await)
}

fn write(
    mut writer: RowWriter,
    mut from: mpsc::Receiver<ToWriter>,
    bar: &ProgressBar,
) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    while let Some(message) = from.blocking_recv() {
        let ToWriter::Rows { rows, consumed } = message else {
            writer.finish()?;
            return Ok(totals);
        };
        writer.push(&rows)?;
        totals.rows += rows.len() as u64;
        totals.tokens += rows.iter().map(|row| row.tokens as u64).sum::<u64>();
        totals.truncated += rows.iter().filter(|row| row.truncated()).count() as u64;
        let rate = totals.rows as f64 / bar.elapsed().as_secs_f64().max(1e-3);
        bar.set_message(format!("{} rows, {rate:.0} rows/s", totals.rows));
        bar.set_position(consumed);
    }
    Ok(totals)
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot start a thread: {error}"))
            .help("raise the limit of threads of this user")
    })
}
