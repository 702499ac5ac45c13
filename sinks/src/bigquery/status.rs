//! What BigQuery answers, as errors of this crate.

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    StorageError, storage_error::StorageErrorCode,
};
use googleapis_tonic_google_rpc::google::rpc;
use prost::Message;
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

/// The details of an answer that is nothing but a status.
pub(super) fn detailed(status: &Status) -> Option<rpc::Status> {
    let details = status.details();
    (!details.is_empty()).then(|| rpc::Status::decode(details).ok()).flatten()
}

/// The type of BigQuery's own details of an error.
pub(crate) const STORAGE_ERROR: &str = "type.googleapis.com/google.cloud.bigquery.storage.v1.StorageError";

/// Whether an append names columns that BigQuery does not know, or does not know yet.
pub(super) fn is_extra_fields(error: &rpc::Status) -> bool {
    error.details.iter().filter(|detail| detail.type_url == STORAGE_ERROR).any(|detail| {
        let decoded = StorageError::decode(&detail.value[..]);
        decoded.is_ok_and(|error| error.code() == StorageErrorCode::SchemaMismatchExtraFields)
    })
}
