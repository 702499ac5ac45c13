//! What is sent back: resources, Google's error bodies, partial responses, and bodies that break off.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Map, Value, json};

/// The connection ends here, without (the rest of) a reply.
#[derive(Debug)]
pub(super) struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed as a fault")
    }
}

impl std::error::Error for Closed {}

/// A request that is refused, in Google's terms.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    reason: &'static str,
    message: String,
    header: Option<(&'static str, String)>,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, reason, message: message.into(), header: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "invalid", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(404, "notFound", message)
    }

    pub(super) fn precondition() -> Refusal {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Refusal::new(412, "conditionNotMet", message)
    }

    pub(super) fn with(self, header: &'static str, value: impl Into<String>) -> Refusal {
        Refusal { header: Some((header, value.into())), ..self }
    }

    /// A status that a fault asks for.
    pub(super) fn injected(status: u16) -> Refusal {
        let (reason, message) = match status {
            400 => ("invalid", "Bad Request"),
            401 => ("authError", "Invalid Credentials"),
            403 => ("forbidden", "Access denied."),
            404 => ("notFound", "Not Found"),
            408 => ("requestTimeout", "Request Timeout"),
            409 => ("conflict", "The request conflicted with ongoing request."),
            412 => return Refusal::precondition(),
            429 => {
                ("rateLimitExceeded", "The object exceeded the rate limit for object mutation operations.")
            }
            500 | 503 => ("backendError", "We encountered an internal error. Please try again."),
            _ => ("backendError", "Injected fault."),
        };
        Refusal::new(status, reason, message)
    }

    pub(super) fn reply(&self) -> Reply {
        let Refusal { status, reason, message, header } = self;
        let mut reply = match status {
            // What the load balancer in front of the service says is not JSON.
            502 => Reply::text(502, "<html><title>Error 502 (Server Error)!!1</title></html>"),
            _ => Reply::json(
                *status,
                &json!({"error": {
                    "code": status,
                    "message": message,
                    "errors": [{"message": message, "domain": "global", "reason": reason}],
                }}),
            ),
        };
        reply.headers.extend(header.clone());
        reply
    }

    /// As for `alt=media`, whose errors are plain text.
    pub(super) fn plain(&self) -> Reply {
        let mut reply = Reply::text(self.status, self.message.clone());
        reply.headers.extend(self.header.clone());
        reply
    }
}

/// A whole reply.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn empty(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    pub(super) fn json(status: u16, value: &Value) -> Reply {
        let reply = Reply { status, body: value.to_string().into(), ..Reply::default() };
        reply.with("content-type", "application/json; charset=UTF-8")
    }

    pub(super) fn text(status: u16, text: impl Into<String>) -> Reply {
        let reply = Reply { status, body: text.into().into(), ..Reply::default() };
        reply.with("content-type", "text/html; charset=UTF-8")
    }

    pub(super) fn with(mut self, header: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((header, value.into()));
        self
    }

    /// Flips a byte in the middle.
    pub(super) fn corrupt(&mut self) {
        let mut bytes = self.body.to_vec();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x20;
        }
        self.body = bytes.into();
    }

    /// For the wire; `cut` sends half of the body and closes.
    pub(super) fn into_response(self, cut: bool) -> Result<Response<Payload>, Closed> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        let length = self.body.len();
        let sent = if cut { self.body.slice(..length / 2) } else { self.body };
        let payload = Payload { length, sent: Some(sent).filter(|s| !s.is_empty()), cut, pause: None };
        // Only a value that cannot stand in a header fails here; those from outside were looked at.
        response.body(payload).map_err(|_| Closed)
    }
}

/// The body of a reply.
pub(super) struct Payload {
    length: usize,
    sent: Option<Bytes>,
    cut: bool,
    /// Gives the first half the time to leave before the connection breaks.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        if let Some(bytes) = self.sent.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !self.cut {
            return Poll::Ready(None);
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(20))));
        pause.as_mut().poll(cx).map(|()| Some(Err(Closed)))
    }

    fn is_end_stream(&self) -> bool {
        self.sent.is_none() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}

/// What the parameter `fields` leaves of a resource: `name,items(name,size),a/b`.
pub(super) fn project(value: &Value, fields: &str) -> Result<Value, Refusal> {
    let mut rest = fields;
    let projected = list(value, &mut rest)?;
    if rest.is_empty() { Ok(projected) } else { Err(bad_fields(fields)) }
}

fn bad_fields(fields: &str) -> Refusal {
    Refusal::new(400, "invalidParameter", format!("Invalid field selection {fields}"))
}

/// A comma-separated list of selections, up to its end or a closing bracket.
fn list(value: &Value, rest: &mut &str) -> Result<Value, Refusal> {
    let mut kept = Map::new();
    loop {
        one(value, rest, &mut kept)?;
        match rest.strip_prefix(',') {
            Some(more) => *rest = more,
            None => return Ok(Value::Object(kept)),
        }
    }
}

/// `name`, `name/selection` or `name(list)`.
fn one(value: &Value, rest: &mut &str, kept: &mut Map<String, Value>) -> Result<(), Refusal> {
    let text: &str = rest;
    let (name, tail) = text.split_at(text.find([',', '(', ')', '/']).unwrap_or(text.len()));
    if name.is_empty() {
        return Err(bad_fields(text));
    }
    let inner = value.get(name);
    let selected = if let Some(below) = tail.strip_prefix('(') {
        *rest = below;
        let selected = each(inner.unwrap_or(&Value::Null), rest, list)?;
        *rest = rest.strip_prefix(')').ok_or_else(|| bad_fields(text))?;
        Some(selected)
    } else if let Some(below) = tail.strip_prefix('/') {
        *rest = below;
        let single = |value: &Value, rest: &mut &str| {
            let mut kept = Map::new();
            one(value, rest, &mut kept).map(|()| Value::Object(kept))
        };
        Some(each(inner.unwrap_or(&Value::Null), rest, single)?)
    } else {
        *rest = tail;
        inner.cloned()
    };
    if let (Some(_), Some(selected)) = (inner, selected) {
        kept.insert(name.to_owned(), selected);
    }
    Ok(())
}

/// Applies a selection to each item of an array, or to the value itself.
fn each(
    value: &Value,
    rest: &mut &str,
    select: impl Fn(&Value, &mut &str) -> Result<Value, Refusal>,
) -> Result<Value, Refusal> {
    let Value::Array(items) = value else { return select(value, rest) };
    let start: &str = rest;
    // Also for an empty array the selection has to be read over.
    select(&Value::Null, rest)?;
    let kept = items.iter().map(|item| select(item, &mut { start })).collect::<Result<_, _>>()?;
    Ok(Value::Array(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_response_has_the_fields_that_were_asked_for() {
        let whole = json!({"kind": "k", "items": [{"name": "a", "size": "1", "x": 1}], "nextPageToken": "t"});
        let left = |fields| project(&whole, fields).unwrap();
        assert_eq!(
            left("nextPageToken,items(name,size)"),
            json!({"nextPageToken": "t", "items": [{"name": "a", "size": "1"}]})
        );
        assert_eq!(left("items/name,kind"), json!({"items": [{"name": "a"}], "kind": "k"}));
        assert_eq!(left("missing(a,b),kind"), json!({"kind": "k"}));
        for bad in ["", "items(", "items(name", "kind)", "a,,b"] {
            assert_eq!(project(&whole, bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
