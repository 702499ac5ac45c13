//! Uploads: small ones in one request, large ones resumable.

use std::fmt;
use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::Inner;
use super::answer::Answer;
use super::object::{Resource, STAGED_AS, format_crc32c};
use super::transport::{Class, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{BoxFuture, Staged, StagedWrite};

/// A whole object in one request, created if there is none of that name.
///
/// The service refuses content that does not match the checksum.
pub(super) fn insert(
    inner: &Inner,
    name: &str,
    bytes: &Bytes,
    crc32c: u32,
    staged_as: Option<&str>,
) -> Request {
    let mut resource =
        json!({ "name": name, "contentType": "application/octet-stream", "crc32c": format_crc32c(crc32c) });
    if let Some(staged) = staged_as {
        resource["metadata"] = json!({ STAGED_AS: staged });
    }
    // Random, so that no content holds it.
    let boundary = Uuid::new_v4().simple().to_string();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{resource}\r\n--{boundary}\r\nContent-Type: \
         application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let mut body = BytesMut::with_capacity(head.len() + bytes.len() + tail.len());
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(bytes);
    body.extend_from_slice(tail.as_bytes());
    Request::new(Method::POST, inner.upload_url(name), Class::A)
        .query("uploadType", "multipart".into())
        .query("ifGenerationMatch", "0".into())
        .header("content-type", format!("multipart/related; boundary={boundary}"))
        .body(body.freeze())
}

/// An upload to a name that only this upload uses, or to the final name of a copy.
pub(super) struct GcsWrite {
    inner: Arc<Inner>,
    name: String,
    staged_as: String,
    /// What does not fill a part yet.
    tail: Vec<u8>,
    crc32c: u32,
    /// Bytes that the store has.
    sent: u64,
    session: Option<String>,
    torn: bool,
}

/// How a part of an upload ended.
enum Sent {
    /// There is more to send.
    Part,
    /// The object is there.
    Whole(Resource),
}

impl GcsWrite {
    pub(super) fn new(inner: Arc<Inner>, name: String, staged_as: String) -> Self {
        GcsWrite { inner, name, staged_as, tail: Vec::new(), crc32c: 0, sent: 0, session: None, torn: false }
    }

    /// Of everything that was added.
    pub(super) fn crc32c(&self) -> u32 {
        self.crc32c
    }

    pub(super) async fn add(&mut self, mut bytes: Bytes) -> Result<()> {
        if mem::replace(&mut self.torn, true) {
            return Err(self.torn());
        }
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        let part = self.inner.config.0.upload_part_bytes;
        // One byte at least stays for the last request, which has to have content.
        while self.tail.len() + bytes.len() > part {
            let chunk = match self.tail.is_empty() {
                true => bytes.split_to(part),
                false => {
                    let fill = bytes.split_to(part - self.tail.len());
                    self.tail.extend_from_slice(&fill);
                    mem::take(&mut self.tail).into()
                }
            };
            if self.session.is_none() {
                self.session = Some(self.begin().await?);
            }
            if let Sent::Whole(early) = self.send(chunk, false).await? {
                self.inner.delete(&self.name, Some(early.generation())).await?;
                let text =
                    format!("the store ended the upload of {} before its end; it was deleted", self.name);
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        }
        self.tail.extend_from_slice(&bytes);
        self.torn = false;
        Ok(())
    }

    pub(super) async fn end(mut self) -> Result<Staged> {
        if self.torn {
            return Err(self.torn());
        }
        let rest = Bytes::from(mem::take(&mut self.tail));
        let bytes = self.sent + rest.len() as u64;
        let resource = match self.session {
            None => self.insert(&rest).await?,
            Some(_) => match self.send(rest, true).await? {
                Sent::Whole(resource) => resource,
                Sent::Part => {
                    let text = format!("the store does not end the upload of {}", self.name);
                    return Err(Error::new(ErrorKind::Unsupported, text));
                }
            },
        };
        if (resource.size(), resource.crc32c()?) != (bytes, self.crc32c) {
            self.inner.delete(&self.name, Some(resource.generation())).await?;
            let text = format!(
                "{} arrived as {} bytes with the crc32c {:08x} instead of {bytes} with {:08x}; it was deleted",
                self.name,
                resource.size(),
                resource.crc32c()?,
                self.crc32c
            );
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        Ok(Staged { name: self.name, generation: resource.generation(), bytes, crc32c: self.crc32c })
    }

    fn torn(&self) -> Error {
        Error::new(ErrorKind::Torn, format!("the upload of {} is incomplete after a failure", self.name))
    }

    async fn insert(&self, bytes: &Bytes) -> Result<Resource> {
        let request = insert(&self.inner, &self.name, bytes, self.crc32c, Some(&self.staged_as));
        let answer = self.inner.transport.send(&request).await?;
        match answer.status {
            StatusCode::OK => answer.json(),
            StatusCode::PRECONDITION_FAILED => self.own_or_taken(&answer).await,
            _ => Err(self.inner.refused("upload", &self.name, &answer)),
        }
    }

    /// The name is taken: by this upload if a reply was lost, else by somebody else.
    async fn own_or_taken(&self, answer: &Answer) -> Result<Resource> {
        match self.inner.resource(&self.name).await? {
            Some(found) if found.was_staged_as(&self.staged_as) && found.crc32c()? == self.crc32c => {
                Ok(found)
            }
            Some(_) => {
                let text = format!("cannot upload {}: the name is taken", self.name);
                Err(Error::new(ErrorKind::DestinationTaken, text))
            }
            // Whoever took it is gone again.
            None => {
                let status = answer.status.as_u16();
                let text =
                    format!("the store refused the upload of {} ({status}) and shows no reason", self.name);
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    async fn begin(&self) -> Result<String> {
        let resource = json!({
            "name": self.name,
            "contentType": "application/octet-stream",
            "metadata": { STAGED_AS: self.staged_as },
        });
        let request = Request::new(Method::POST, self.inner.upload_url(&self.name), Class::A)
            .query("uploadType", "resumable".into())
            .query("name", self.name.clone())
            .query("ifGenerationMatch", "0".into())
            .header("content-type", "application/json; charset=UTF-8".into())
            .body(resource.to_string().into());
        let answer = self.inner.transport.send(&request).await?;
        match (answer.status, answer.header("location")) {
            (StatusCode::OK | StatusCode::CREATED, Some(session)) => Ok(session.to_owned()),
            (StatusCode::PRECONDITION_FAILED, _) => {
                let text = format!("cannot upload {}: the name is taken", self.name);
                Err(Error::new(ErrorKind::DestinationTaken, text))
            }
            _ => Err(self.inner.refused("begin the upload of", &self.name, &answer)),
        }
    }

    /// Sends one chunk until the store has all of it. After a failure the store is asked how much it has.
    async fn send(&mut self, mut chunk: Bytes, last: bool) -> Result<Sent> {
        let session = self.session.clone().unwrap_or_default();
        let total = match last {
            true => (self.sent + chunk.len() as u64).to_string(),
            false => "*".to_owned(),
        };
        let inner = self.inner.clone();
        let mut patience = inner.transport.patience();
        let mut ask = false;
        loop {
            let mut request = Request::new(Method::PUT, session.clone(), Class::Free).any_answer();
            if ask {
                request = request.header("content-range", format!("bytes */{total}"));
            } else {
                let end = self.sent + chunk.len() as u64 - 1;
                request = request
                    .header("content-range", format!("bytes {}-{end}/{total}", self.sent))
                    .body(chunk.clone());
                if last {
                    request = request.header("x-goog-hash", format!("crc32c={}", format_crc32c(self.crc32c)));
                }
            }
            let answer = match inner.transport.once(&request).await {
                Ok(answer) => answer,
                Err(failure) => {
                    ask = true;
                    patience.pause(failure).await?;
                    continue;
                }
            };
            match answer.status.as_u16() {
                200 | 201 => return answer.json().map(Sent::Whole),
                308 => {
                    let stored = stored(&answer);
                    let end = self.sent + chunk.len() as u64;
                    if stored > end || stored < self.sent || (stored == self.sent && !ask) {
                        // Once in a while the store leaves out how much it has: it is asked, before it is believed.
                        let text = format!(
                            "the store says that it has {stored} bytes of {}, it was sent {} to {end}",
                            self.name, self.sent
                        );
                        ask = true;
                        patience.pause(inner.transport.odd(text)).await?;
                        continue;
                    }
                    if stored > self.sent {
                        // What arrived is progress: the next failure is a new one.
                        patience = inner.transport.patience();
                    }
                    ask = false;
                    chunk = chunk.slice((stored - self.sent) as usize..);
                    self.sent = stored;
                    if chunk.is_empty() {
                        return match last {
                            false => Ok(Sent::Part),
                            // All is there and the object is not: it is asked to be made.
                            true => self.finalise(&session, &total).await,
                        };
                    }
                }
                // The session is over: if the object is there, it was our reply that got lost.
                404 | 410 | 412 if last => return self.own_or_taken(&answer).await.map(Sent::Whole),
                404 | 410 => {
                    let text = format!("the store has forgotten the upload of {}", self.name);
                    return Err(Error::new(ErrorKind::Unavailable, text));
                }
                _ => return Err(inner.refused("upload", &self.name, &answer)),
            }
        }
    }

    async fn finalise(&self, session: &str, total: &str) -> Result<Sent> {
        let request = Request::new(Method::PUT, session.to_owned(), Class::Free)
            .header("content-range", format!("bytes */{total}"))
            .any_answer();
        let answer = self.inner.transport.send(&request).await?;
        match answer.status.as_u16() {
            200 | 201 => answer.json().map(Sent::Whole),
            404 | 410 | 412 => self.own_or_taken(&answer).await.map(Sent::Whole),
            308 => Ok(Sent::Part),
            _ => Err(self.inner.refused("end the upload of", &self.name, &answer)),
        }
    }
}

/// How many bytes the store has, from `Range: bytes=0-N`; without the header none.
fn stored(answer: &Answer) -> u64 {
    let range = answer.header("range").and_then(|r| r.rsplit('-').next());
    range.and_then(|n| n.trim().parse::<u64>().ok()).map_or(0, |n| n.saturating_add(1))
}

/// Without the session's address: whoever has it can write.
impl fmt::Debug for GcsWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsWrite").field("name", &self.name).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl StagedWrite for GcsWrite {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.add(bytes))
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Staged>> {
        Box::pin(self.end())
    }

    fn buffered(&self) -> usize {
        self.tail.capacity()
    }
}
