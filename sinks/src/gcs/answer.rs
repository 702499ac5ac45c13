//! What an answer of Cloud Storage says.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::object::parse_crc32c;
use crate::error::{Error, ErrorKind, Result};

/// The most of a service's own message that is repeated.
const MESSAGE_CHARS: usize = 300;

const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// An answer that asking again would not change.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// An earlier try may have been carried out already.
    pub(super) repeated: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<ErrorReason>,
}

#[derive(Deserialize)]
struct ErrorReason {
    #[serde(default)]
    reason: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the service wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header(RETRY_AFTER.as_str())?, Timestamp::now())
    }

    /// Whether a whole object's content is what its checksum, `x-goog-hash: crc32c=..`, says.
    pub(super) fn matches_its_checksum(&self) -> bool {
        let told = self.headers.get_all("x-goog-hash").iter().filter_map(|v| v.to_str().ok());
        let told = told.flat_map(|v| v.split(',')).find_map(|v| v.trim().strip_prefix("crc32c="));
        match told.and_then(parse_crc32c) {
            Some(crc) => crc32c::crc32c(&self.body) == crc,
            None => true,
        }
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let text = format!("the answer of Cloud Storage ({}) cannot be read", self.status);
            Error::new(ErrorKind::Unsupported, text).with_source(e)
        })
    }

    /// The service's own message and reason.
    pub(super) fn detail(&self) -> (String, String) {
        match serde_json::from_slice::<ErrorBody>(&self.body) {
            Ok(ErrorBody { error }) => {
                let reason = error.errors.into_iter().next().map(|e| e.reason).unwrap_or_default();
                (error.message, reason)
            }
            Err(_) => (String::from_utf8_lossy(&self.body).trim().to_owned(), String::new()),
        }
    }

    /// Whether a 404 means that the bucket is missing, not the object.
    pub(super) fn is_about_the_bucket(&self) -> bool {
        self.detail().0.to_ascii_lowercase().contains("bucket does not exist")
    }

    /// Whether a 404 is the service's own word. Of content it is text, of all else JSON.
    pub(super) fn is_from_the_service(&self, for_content: bool) -> bool {
        let (message, reason) = self.detail();
        reason == "notFound"
            || (for_content && (message.starts_with("No such object") || message == "Not Found"))
    }

    /// An error for a status that cannot be helped by asking again.
    pub(super) fn error(&self, what: &str) -> Error {
        let message = shown(&self.detail().0);
        let (kind, hint) = match self.status {
            StatusCode::UNAUTHORIZED => (
                ErrorKind::PermissionDenied,
                "; check the credentials: the service does not accept their token",
            ),
            StatusCode::FORBIDDEN => (
                ErrorKind::PermissionDenied,
                "; the role Storage Object User on the bucket has what is needed, if no retention policy forbids it",
            ),
            StatusCode::NOT_FOUND if self.is_about_the_bucket() => {
                (ErrorKind::NotFound, "; create the bucket, or correct its name")
            }
            StatusCode::NOT_FOUND => (ErrorKind::NotFound, ""),
            StatusCode::INSUFFICIENT_STORAGE => (ErrorKind::OutOfSpace, ""),
            _ => (ErrorKind::Unsupported, ""),
        };
        Error::new(kind, format!("{what}: the store answers {} ({message}){hint}", self.status.as_u16()))
    }
}

/// As much of a service's message as fits in one line of a log.
pub(super) fn shown(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `Retry-After` of RFC 9110: seconds, or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    }
    let at = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_is_read_in_seconds_and_as_a_date_and_is_bounded() {
        let now: Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        let read = |text| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(read(" 7 "), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0), "a date that has passed");
        assert_eq!(read("Sat, 06 Nov 2094 08:49:37 GMT"), Some(60));
        assert_eq!(read("99999999999"), Some(60));
        for none in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_message_of_a_service_is_one_short_line() {
        assert_eq!(shown("a\r\n\u{1b}[31mb"), "a   [31mb");
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), MESSAGE_CHARS);
    }

    fn answer(status: u16, body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            repeated: false,
        }
    }

    #[test]
    fn only_the_services_own_word_says_that_an_object_is_not_there() {
        let own = r#"{"error": {"code": 404, "message": "No such object: lake/a", "errors": [{"reason": "notFound"}]}}"#;
        assert!(answer(404, own).is_from_the_service(false));
        assert!(answer(404, "No such object: lake/a").is_from_the_service(true));
        // Of a gateway, a load balancer, a server that does not know the method.
        for body in
            ["", "Not Found", "<html>404</html>", r#"{"message": "no route"}"#, "No such object: lake/a"]
        {
            assert!(!answer(404, body).is_from_the_service(false), "{body}");
        }
        assert!(!answer(404, "<html>404</html>").is_from_the_service(true));
    }
}
