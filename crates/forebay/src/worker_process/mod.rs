//! One worker process from the host's side: start, handshake, answers, end.
//!
//! [`actor`] owns the process's life and is linked to the supervisor; [`child`] waits for its exit
//! and reads its log. [`spawn`] makes the process with its socket and arena, [`visible`] decides
//! which GPU it sees. [`reader`] is the thread that reads its answers; [`deliver`] checks and hands
//! out the rows; [`inject`] brings faults about. [`locate`] finds the executable and the libraries it needs; [`probe`] asks a
//! short-lived one which devices there are.

pub(crate) mod actor;
mod child;
mod conversation;
pub(crate) mod deliver;
pub(crate) mod inject;
pub(crate) mod locate;
pub(crate) mod probe;
pub(crate) mod reader;
pub(crate) mod spawn;
pub(crate) mod visible;
