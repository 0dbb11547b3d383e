//! Problems as statuses of gRPC, and what becomes of a stream whose client breaks off.

use std::collections::HashMap;

use http::header::RETRY_AFTER;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::api::{Api, Dialect, Kind, Problem, whole_seconds};
use crate::listen::BodyError;
use crate::trace::current;

/// Whose names the reasons in the details are.
const DOMAIN: &str = "forebay";

/// The code for a kind of problem: text-embeddings-inference's where it has one.
fn code(kind: Kind) -> Code {
    match kind {
        Kind::Syntax | Kind::Validation | Kind::Empty | Kind::Tokenizer => Code::InvalidArgument,
        Kind::MediaType | Kind::NotFound | Kind::Method => Code::Unimplemented,
        // As tonic has it, whose own check of a message comes first.
        Kind::TooLarge => Code::OutOfRange,
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::Forbidden | Kind::Misdirected => Code::PermissionDenied,
        Kind::NoModel => Code::NotFound,
        Kind::ModelType | Kind::Poison | Kind::Backend => Code::FailedPrecondition,
        Kind::Overloaded => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Deadline | Kind::TooSlow => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

/// A problem as a status. Its details have the problem's stable name, the field that it concerns,
/// and when to try again, which `retry-after` says too.
pub(crate) fn status(problem: &Problem) -> Status {
    let mut details = ErrorDetails::with_error_info(problem.code, DOMAIN, HashMap::new());
    if let Some(param) = problem.param {
        details.add_bad_request_violation(param, problem.message.as_str());
    }
    let mut metadata = MetadataMap::new();
    if let Some(wait) = problem.retry_after {
        details.set_retry_info(Some(wait));
        let mut headers = metadata.into_headers();
        headers.insert(RETRY_AFTER, whole_seconds(wait));
        metadata = MetadataMap::from_headers(headers);
    }
    Status::with_error_details_and_metadata(
        code(problem.kind),
        problem.message.as_str(),
        details,
        metadata,
    )
}

/// The status of a call that is refused by its handler; it is counted.
pub(super) fn refuse(api: &Api, problem: impl Into<Problem>) -> Status {
    let problem = problem.into();
    api.metrics().problem(problem.kind, Dialect::Grpc);
    if let Some(trace) = current() {
        trace.problem(problem.code);
    }
    if problem.kind == Kind::Internal {
        tracing::warn!(code = problem.code, "a call has failed: {}", problem.message);
    }
    status(&problem)
}

/// What is said when the client's side of a stream does not go on: what the listener found, else
/// what was wrong with the message.
pub(super) fn broken(api: &Api, status: Status) -> Status {
    let Some(error) = BodyError::among(&status) else { return status };
    let kind = match error {
        BodyError::TooLarge { .. } => Kind::TooLarge,
        BodyError::NoRoom => Kind::Overloaded,
        BodyError::TooSlow | BodyError::Idle => Kind::TooSlow,
        BodyError::Ending => Kind::Unavailable,
        // Nobody is there to hear it.
        BodyError::Broken => return Status::cancelled(error.to_string()),
    };
    refuse(api, Problem::new(kind, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_has_a_code_that_is_no_success() {
        for kind in Kind::ALL {
            let status = status(&Problem::new(kind, "it is so"));
            assert!(!matches!(status.code(), Code::Ok | Code::Unknown), "{kind:?}");
            let details = status.get_error_details();
            let info = details.error_info().expect("a reason");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (kind.code(), DOMAIN));
        }
    }

    #[test]
    fn who_is_to_wait_is_told_how_long() {
        let mut problem = Problem::new(Kind::Overloaded, "full").about("inputs");
        problem.retry_after = Some(Duration::from_millis(1_200));
        let status = status(&problem);
        assert_eq!(status.metadata().get("retry-after").expect("metadata"), "2");
        let details = status.get_error_details();
        let wait = details.retry_info().expect("a hint").retry_delay;
        assert_eq!(wait, problem.retry_after);
        let fields = &details.bad_request().expect("a field").field_violations;
        assert_eq!(fields[0].field, "inputs");
    }
}
