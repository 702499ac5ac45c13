//! Uploads: whole in one request, and resumable in chunks.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::objects::{Draft, Place, State, check_crc32c, valid_name};
use super::reply::{Refusal, Reply};

/// Chunks, and what is persisted of a chunk that was cut, are multiples of this.
pub(super) const QUANTUM: usize = 256 << 10;

/// More sessions than this, and the oldest is forgotten, as Google's are after a week.
const MAX_SESSIONS: usize = 10_000;

/// The resumable uploads, also those that have ended.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    sessions: BTreeMap<u64, Session>,
    last: u64,
}

#[derive(Debug)]
struct Session {
    place: Place,
    draft: Draft,
    expected: Option<i64>,
    data: Vec<u8>,
    total: Option<u64>,
    end: Option<End>,
}

#[derive(Clone, Debug)]
enum End {
    Finished(Value),
    Refused(Refusal),
    Cancelled,
}

/// `Content-Range` of an upload: which bytes come, and how many there are in all, if known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ContentRange {
    pub(super) span: Option<(u64, u64)>,
    pub(super) total: Option<u64>,
}

impl ContentRange {
    pub(super) fn parse(text: &str) -> Result<ContentRange, Refusal> {
        let bad = || Refusal::invalid(format!("Failed to parse Content-Range header: {text}"));
        let (span, total) = text.strip_prefix("bytes ").and_then(|r| r.split_once('/')).ok_or_else(bad)?;
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| bad());
        let span = match span {
            "*" => None,
            _ => {
                let (first, last) = span.split_once('-').ok_or_else(bad)?;
                Some((number(first)?, number(last)?))
            }
        };
        let total = if total == "*" { None } else { Some(number(total)?) };
        match (span, total) {
            (Some((first, last)), _) if last < first || last == u64::MAX => Err(bad()),
            (Some((_, last)), Some(total)) if last >= total => Err(bad()),
            _ => Ok(ContentRange { span, total }),
        }
    }
}

impl State {
    /// An upload in one request; `body` is `multipart/related`.
    pub(super) fn insert(
        &mut self,
        bucket: &str,
        name: Option<&str>,
        content_type: &str,
        body: &Bytes,
        expected: Option<i64>,
    ) -> Result<Value, Refusal> {
        let (resource, media_type, media) = split_related(content_type, body)?;
        let mut draft = Draft::read(&resource)?;
        draft.content_type = draft.content_type.or(media_type);
        let place = Place { bucket: bucket.to_owned(), name: object_name(name, &resource)? };
        let size = media.len() as u64;
        self.reserve(size)?;
        // Its own memory: a slice would keep the whole request.
        let media = Bytes::copy_from_slice(&media);
        self.put(&place, draft, media, expected).inspect_err(|_| self.release(size))
    }

    /// Begins a resumable upload; gives its id. Preconditions are looked at when it ends.
    pub(super) fn begin_upload(
        &mut self,
        bucket: &str,
        name: Option<&str>,
        resource: &Value,
        content_type: Option<String>,
        expected: Option<i64>,
    ) -> Result<u64, Refusal> {
        self.bucket(bucket)?;
        let mut draft = Draft::read(resource)?;
        draft.content_type = content_type.or(draft.content_type);
        let place = Place { bucket: bucket.to_owned(), name: object_name(name, resource)? };
        valid_name(&place.name)?;
        if self.rules.refuses_uploads_early {
            self.expect(&place, expected)?;
        }
        self.uploads.last += 1;
        let id = self.uploads.last;
        let session = Session { place, draft, expected, data: Vec::new(), total: None, end: None };
        self.uploads.sessions.insert(id, session);
        if self.uploads.sessions.len() > MAX_SESSIONS
            && let Some((_, oldest)) = self.uploads.sessions.pop_first()
        {
            self.release(oldest.data.len() as u64);
        }
        Ok(id)
    }

    /// Takes a chunk, or tells how far the upload is.
    pub(super) fn upload(
        &mut self,
        id: u64,
        range: ContentRange,
        bytes: &[u8],
        claimed: Option<u32>,
    ) -> Result<Reply, Refusal> {
        let session = self.uploads.open(id)?;
        match &session.end {
            Some(End::Finished(resource)) => return Ok(Reply::json(200, resource)),
            Some(End::Refused(refusal)) => return Err(refusal.clone()),
            Some(End::Cancelled) => return Ok(Reply::empty(499)),
            None => {}
        }
        if let (Some(known), Some(total)) = (session.total, range.total)
            && known != total
        {
            return Err(Refusal::invalid(format!("the upload has {known} bytes in all, not {total}")));
        }
        let length = bytes.len() as u64;
        match range.span {
            Some((first, last)) if last - first + 1 != length => {
                return Err(Refusal::invalid(format!("{length} bytes came for the range {first}-{last}")));
            }
            Some((_, last)) if range.total != Some(last + 1) && !bytes.len().is_multiple_of(QUANTUM) => {
                let message = "Invalid request. The number of bytes uploaded is required to be equal or \
                               greater than 262144, except for the final request (it's recommended to be \
                               the exact multiple of 262144).";
                return Err(Refusal::invalid(message));
            }
            Some((first, _)) => self.persist(id, first, bytes)?,
            None if length > 0 => return Err(Refusal::invalid("a status query has no body")),
            None => {}
        }
        let session = self.uploads.open(id)?;
        session.total = session.total.or(range.total);
        let persisted = session.data.len() as u64;
        match range.total {
            Some(total) if total == persisted => self.finalise(id, claimed),
            Some(total) if total < persisted => {
                Err(Refusal::invalid(format!("{persisted} bytes are there already, more than {total}")))
            }
            _ if persisted == 0 => Ok(Reply::empty(308)),
            _ => Ok(Reply::empty(308).with("range", format!("bytes=0-{}", persisted - 1))),
        }
    }

    /// Keeps what is persistable of a chunk that broke off.
    pub(super) fn upload_cut(&mut self, id: u64, range: ContentRange, bytes: &[u8]) {
        let open = self.uploads.open(id).is_ok_and(|session| session.end.is_none());
        if let Some((first, last)) = range.span
            && open
        {
            // Never the whole chunk: its end has not come.
            let came = bytes.len().min((last - first) as usize);
            let _ = self.persist(id, first, &bytes[..came / QUANTUM * QUANTUM]);
        }
    }

    /// Keeps half of a chunk, and says how far the upload is.
    pub(super) fn upload_part(&mut self, id: u64, range: ContentRange, bytes: &[u8]) -> Reply {
        self.upload_cut(id, range, &bytes[..bytes.len() / 2]);
        let ask = ContentRange { span: None, total: None };
        self.upload(id, ask, &[], None).unwrap_or_else(|refusal| refusal.reply())
    }

    pub(super) fn cancel_upload(&mut self, id: u64) -> Result<Reply, Refusal> {
        let session = self.uploads.open(id)?;
        let freed = std::mem::take(&mut session.data).len();
        session.end = session.end.take().or(Some(End::Cancelled));
        self.release(freed as u64);
        Ok(Reply::empty(499))
    }

    /// Appends what is new of the bytes that begin at `first`.
    fn persist(&mut self, id: u64, first: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let have = self.uploads.open(id)?.data.len() as u64;
        if first > have {
            let message = format!(
                "Invalid request. According to the Content-Range header, the upload offset is {first} \
                 byte(s), which exceeds already uploaded size of {have} byte(s)."
            );
            // 503, not 400: that is what Google answers.
            return Err(Refusal::new(503, "backendError", message));
        }
        let known = usize::try_from(have - first).unwrap_or(usize::MAX).min(bytes.len());
        let new = &bytes[known..];
        self.reserve(new.len() as u64)?;
        self.uploads.open(id)?.data.extend_from_slice(new);
        Ok(())
    }

    fn finalise(&mut self, id: u64, claimed: Option<u32>) -> Result<Reply, Refusal> {
        let session = self.uploads.open(id)?;
        let data = Bytes::from(std::mem::take(&mut session.data).into_boxed_slice());
        let size = data.len() as u64;
        let (place, draft, expected) = (session.place.clone(), session.draft.clone(), session.expected);
        let put = check_crc32c(claimed, crc32c::crc32c(&data))
            .and_then(|()| self.put(&place, draft, data, expected))
            .inspect_err(|_| self.release(size));
        let end = match &put {
            Ok(resource) => End::Finished(resource.clone()),
            Err(refusal) => End::Refused(refusal.clone()),
        };
        self.uploads.open(id)?.end = Some(end);
        put.map(|resource| Reply::json(200, &resource))
    }
}

impl Uploads {
    /// How many are neither finished nor refused nor cancelled.
    pub(super) fn unfinished(&self) -> usize {
        self.sessions.values().filter(|session| session.end.is_none()).count()
    }

    fn open(&mut self, id: u64) -> Result<&mut Session, Refusal> {
        self.sessions.get_mut(&id).ok_or_else(|| Refusal::not_found("Not Found"))
    }
}

/// A name comes in the metadata or as a parameter.
fn object_name(parameter: Option<&str>, resource: &Value) -> Result<String, Refusal> {
    let name = resource["name"].as_str().or(parameter);
    name.map(str::to_owned).ok_or_else(|| Refusal::new(400, "required", "Required"))
}

/// The metadata, the media's type, and the media.
fn split_related(content_type: &str, body: &Bytes) -> Result<(Value, Option<String>, Bytes), Refusal> {
    let bad = |why: &str| Refusal::new(400, "badRequest", format!("Malformed multipart body: {why}"));
    let mut parameters = content_type.split(';').map(str::trim);
    if parameters.next().is_none_or(|kind| !kind.eq_ignore_ascii_case("multipart/related")) {
        return Err(bad("the content type is not multipart/related"));
    }
    let boundary = parameters.find_map(|p| p.strip_prefix("boundary=")).map(|b| b.trim_matches('"'));
    let boundary = boundary.filter(|b| !b.is_empty()).ok_or_else(|| bad("no boundary"))?;
    let delimiter = format!("\r\n--{boundary}");
    let Some(mut rest) = body.strip_prefix(&delimiter.as_bytes()[2..]) else {
        return Err(bad("it does not begin with its boundary"));
    };
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        if parts.len() == 2 {
            return Err(bad("more than two parts"));
        }
        let end = find(rest, delimiter.as_bytes()).ok_or_else(|| bad("a part has no end"))?;
        let part = &rest[..end];
        // Headers begin after the boundary's line break; a part without headers begins with an empty line.
        let headers_end = find(part, b"\r\n\r\n").ok_or_else(|| bad("a part has no headers"))?;
        let headers = String::from_utf8_lossy(&part[..headers_end]).into_owned();
        parts.push((headers, &part[headers_end + 4..]));
        rest = &rest[end + delimiter.len()..];
    }
    let [(_, metadata), (headers, media)] = &parts[..] else { return Err(bad("not two parts")) };
    let resource = serde_json::from_slice(metadata).map_err(|error| bad(&error.to_string()))?;
    let media_type = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    Ok((resource, media_type, body.slice_ref(media)))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_that_contradicts_itself_is_refused() {
        let range = |text| ContentRange::parse(text).map_err(|refusal| refusal.status);
        assert_eq!(range("bytes 0-9/*"), Ok(ContentRange { span: Some((0, 9)), total: None }));
        assert_eq!(range("bytes */10"), Ok(ContentRange { span: None, total: Some(10) }));
        assert_eq!(range("bytes */*"), Ok(ContentRange { span: None, total: None }));
        for bad in ["", "bytes 0-9", "bytes 9-0/*", "bytes 0-9/9", "bytes a-b/c", "0-9/10"] {
            assert_eq!(range(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn a_body_of_two_parts_is_taken_apart_and_others_are_refused() {
        let body = |text: &str| Bytes::from(text.to_owned());
        let whole = "--b\r\nContent-Type: application/json\r\n\r\n{\"name\":\"x\"}\r\n\
                     --b\r\nContent-Type: text/x\r\n\r\n\r\nmedia--b\r\n\r\n--b--\r\n";
        let (resource, kind, media) =
            split_related("multipart/related; boundary=\"b\"", &body(whole)).unwrap();
        assert_eq!((resource["name"].as_str(), kind.as_deref()), (Some("x"), Some("text/x")));
        assert_eq!(&media[..], b"\r\nmedia--b\r\n");
        for cut in 0..whole.len() - 4 {
            assert!(split_related("multipart/related; boundary=b", &body(&whole[..cut])).is_err(), "{cut}");
        }
        for kind in ["multipart/mixed; boundary=b", "multipart/related", "multipart/related; boundary=c"] {
            assert!(split_related(kind, &body(whole)).is_err(), "{kind}");
        }
    }
}
