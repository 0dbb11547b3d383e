//! The terminal: taken over while this lives, and given back as it was on every way out, a panic
//! included.

use std::io::{self, Write};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::sample::Picture;
use super::view;
use crate::failure::{Exit, Failure};

/// How often keys are looked for.
const KEYS_EVERY: Duration = Duration::from_millis(50);

/// A terminal that has been taken over.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over; a panic gives it back before it is reported.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn open() -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(|error| {
            Failure::new(Exit::Unavailable, format!("cannot use the terminal: {error}"))
                .help("`forebay top --once` prints plain text")
        })?;
        Ok(Self { terminal })
    }

    /// Shows the picture until `work` is done; `None` if somebody wants to end before.
    ///
    /// # Errors
    /// The terminal has gone.
    pub(super) async fn until<F: Future>(
        &mut self,
        picture: &Picture,
        work: F,
    ) -> Result<Option<F::Output>, Failure> {
        self.draw(picture)?;
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(KEYS_EVERY);
        loop {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                _ = ticks.tick() => match self.keys().map_err(|error| gone(&error))? {
                    Wish::End => return Ok(None),
                    Wish::Redraw => self.draw(picture)?,
                    Wish::None => {}
                },
            }
        }
    }

    fn draw(&mut self, picture: &Picture) -> Result<(), Failure> {
        let draw = self.terminal.draw(|frame| {
            let area = frame.area();
            view::draw(picture, area, frame.buffer_mut());
        });
        draw.map(|_| ()).map_err(|error| gone(&error))
    }

    /// What has been asked for since the last time.
    fn keys(&self) -> io::Result<Wish> {
        let mut wish = Wish::None;
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if is_end(key) => return Ok(Wish::End),
                Event::Resize(..) => wish = Wish::Redraw,
                _ => {}
            }
        }
        Ok(wish)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
        // Nothing is left that could be told of a failure.
        io::stdout().flush().ok();
    }
}

enum Wish {
    End,
    Redraw,
    None,
}

fn is_end(KeyEvent { code, modifiers, kind, .. }: KeyEvent) -> bool {
    let is_control = modifiers.contains(KeyModifiers::CONTROL);
    kind == KeyEventKind::Press
        && match code {
            KeyCode::Char('q') | KeyCode::Esc => true,
            // It is a key and no signal while the terminal is taken over.
            KeyCode::Char('c' | 'd') => is_control,
            _ => false,
        }
}

fn gone(error: &io::Error) -> Failure {
    Failure::writing("the terminal", error)
}
