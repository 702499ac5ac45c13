//! What BigQuery answers, as errors of this crate.

use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// Whether the same request may succeed later.
pub(super) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Aborted
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Unknown
            // A token that has expired on a long connection: the next request has another.
            | Code::Unauthenticated
    )
}

/// The error of a request that was about `what`.
pub(super) fn error(what: &str, status: &Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        Code::InvalidArgument | Code::FailedPrecondition => ErrorKind::Encode,
        code if is_passing(code) => ErrorKind::Unavailable,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("BigQuery: {what}: {} ({:?})", status.message(), status.code()))
}
