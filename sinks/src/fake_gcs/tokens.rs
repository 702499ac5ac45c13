//! Which bearer tokens are accepted, and the services that issue them.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::reply::{Refusal, Reply};
use super::routes::Call;

/// The tokens of one fake.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// `None`: any, also none at all.
    pub(super) accepted: Option<BTreeSet<String>>,
}

/// Whether this path is one of a token service.
pub(super) fn serves(_path: &str) -> bool {
    false
}

impl Tokens {
    pub(super) fn serve(&mut self, _call: &Call, _body: &Bytes) -> Reply {
        Refusal::not_found("Not Found").reply()
    }

    pub(super) fn check(&self, token: Option<&str>) -> Result<(), Refusal> {
        let Some(accepted) = &self.accepted else { return Ok(()) };
        match token {
            Some(token) if accepted.contains(token) => Ok(()),
            Some(_) => Err(Refusal::new(401, "authError", "Invalid Credentials").with(
                "www-authenticate",
                "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"",
            )),
            None => Err(Refusal::new(
                401,
                "required",
                "Anonymous caller does not have access to the Google Cloud Storage resource.",
            )
            .with("www-authenticate", "Bearer realm=\"https://accounts.google.com/\"")),
        }
    }
}
