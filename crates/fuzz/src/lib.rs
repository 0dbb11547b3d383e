//! What the fuzz targets call, one function per target; the tests call the same with the seeds. Each
//! takes bytes, never fails on bad ones, and panics if a promise about them is broken.

mod config;
mod event_log;
mod model_files;
mod worker_messages;

pub use config::config;
pub use event_log::event_log;
pub use forebay_server::api::fuzzing::read_every_body as http_request_body;
pub use model_files::model_files;
pub use worker_messages::worker_messages;
