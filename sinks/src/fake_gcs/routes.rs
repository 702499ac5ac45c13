//! Which operation a request is for, and carrying it out.

use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::copies::Expected;
use super::faults::Op;
use super::objects::{Place, State, decode_crc32c, encode_crc32c};
use super::reply::{Refusal, Reply, project};
use super::uploads::ContentRange;

/// A request's head, taken apart.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) method: Method,
    /// Undecoded.
    pub(super) path: String,
    headers: HeaderMap,
    route: Route,
    query: Query,
}

#[derive(Debug)]
enum Route {
    /// `/b/{bucket}`
    Bucket(String),
    /// `/b/{bucket}/iam/testPermissions`
    Permissions(String),
    /// `/b/{bucket}/o`, to list, or to upload to
    Objects(String),
    /// A resumable upload.
    Session(u64),
    /// `/b/{bucket}/o/{name}`
    Object(Place),
    /// `../moveTo/o/{name}` or `../rewriteTo/b/{bucket}/o/{name}`
    Pair(Place, Place),
    Token,
    Refused(Refusal),
}

#[derive(Debug)]
struct Query(Vec<(String, String)>);

impl Call {
    pub(super) fn read(parts: &Parts) -> Call {
        let query = Query(pairs(parts.uri.query().unwrap_or_default()));
        let (op, route) = classify(parts, &query).unwrap_or_else(|r| (Op::Unknown, Route::Refused(r)));
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        Call { op, method, path, headers: parts.headers.clone(), route, query }
    }

    /// The session and range of a chunk, for what is persisted if it breaks off.
    pub(super) fn chunk(&self) -> Option<(u64, ContentRange)> {
        match (&self.route, self.op) {
            (Route::Session(id), Op::ResumableChunk) => Some((*id, self.content_range(0).ok()?)),
            _ => None,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        let (kind, token) = self.header("authorization")?.split_once(' ')?;
        kind.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Of a request without `Content-Range`, the body is the whole object.
    fn content_range(&self, length: u64) -> Result<ContentRange, Refusal> {
        match self.header("content-range") {
            Some(text) => ContentRange::parse(text),
            None => {
                let span = length.checked_sub(1).map(|last| (0, last));
                Ok(ContentRange { span, total: Some(length) })
            }
        }
    }

    fn expected(&self) -> Result<Expected, Refusal> {
        Ok(Expected {
            source: self.query.number("ifSourceGenerationMatch")?,
            destination: self.query.number("ifGenerationMatch")?,
        })
    }
}

fn classify(parts: &Parts, query: &Query) -> Result<(Op, Route), Refusal> {
    // The raw path: a `%2F` in a name separates nothing.
    let path = parts.uri.path();
    if super::tokens::serves(path) {
        return Ok((Op::Token, Route::Token));
    }
    let unknown = || Refusal::not_found(format!("this fake does not know {} {path}", parts.method));
    let upload = path.starts_with("/upload/");
    // Some of Google's clients download from `/download/storage/..`.
    let rest = path.strip_prefix("/upload").or(path.strip_prefix("/download")).unwrap_or(path);
    let below = rest.strip_prefix("/storage/v1/b/");
    let segments = below.ok_or_else(unknown)?.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let place = |bucket: &str, name: &str| Place { bucket: bucket.into(), name: name.into() };
    let (get, post) = (parts.method == Method::GET, parts.method == Method::POST);
    Ok(match segments[..] {
        [bucket, "o"] if upload && post => match query.get("uploadType") {
            Some("multipart") => (Op::Insert, Route::Objects(bucket.into())),
            Some("resumable") => (Op::ResumableStart, Route::Objects(bucket.into())),
            other => return Err(Refusal::invalid(format!("this fake has no uploadType {other:?}"))),
        },
        [_, "o"] if upload && query.get("uploadType") == Some("resumable") => {
            let id = query.get("upload_id").and_then(|id| id.parse().ok());
            let session = Route::Session(id.ok_or_else(|| Refusal::not_found("Not Found"))?);
            let asks =
                parts.headers.get("content-range").is_some_and(|r| r.as_bytes().starts_with(b"bytes */"));
            match parts.method {
                Method::PUT if asks => (Op::ResumableStatus, session),
                Method::PUT => (Op::ResumableChunk, session),
                Method::DELETE => (Op::ResumableCancel, session),
                _ => return Err(unknown()),
            }
        }
        _ if upload => return Err(unknown()),
        [bucket] if get => (Op::BucketGet, Route::Bucket(bucket.into())),
        [bucket, "iam", "testPermissions"] if get => (Op::TestPermissions, Route::Permissions(bucket.into())),
        [bucket, "o"] if get => (Op::List, Route::Objects(bucket.into())),
        [bucket, "o", name] if get && query.get("alt") == Some("media") => {
            (Op::GetMedia, Route::Object(place(bucket, name)))
        }
        [bucket, "o", name] if get => (Op::GetMetadata, Route::Object(place(bucket, name))),
        [bucket, "o", name] if parts.method == Method::DELETE => {
            (Op::Delete, Route::Object(place(bucket, name)))
        }
        [bucket, "o", from, "moveTo", "o", to] if post => {
            (Op::Move, Route::Pair(place(bucket, from), place(bucket, to)))
        }
        [from_bucket, "o", from, "rewriteTo", "b", to_bucket, "o", to] if post => {
            (Op::Rewrite, Route::Pair(place(from_bucket, from), place(to_bucket, to)))
        }
        _ => return Err(unknown()),
    })
}

impl State {
    /// Carries a request out, at this moment.
    pub(super) fn perform(&mut self, call: &Call, body: &Bytes, url: &str) -> Reply {
        let done = match &call.route {
            Route::Token => return self.tokens.serve(call, body),
            Route::Refused(refusal) => Err(refusal.clone()),
            _ => self.authorise(call).and_then(|()| self.carry_out(call, body, url)),
        };
        match done {
            Ok(reply) => reply,
            Err(refusal) if call.op == Op::GetMedia => refusal.plain(),
            Err(refusal) => refusal.reply(),
        }
    }

    fn carry_out(&mut self, call: &Call, body: &Bytes, url: &str) -> Result<Reply, Refusal> {
        let query = &call.query;
        let expected = call.expected()?;
        let resource = match (call.op, &call.route) {
            (Op::BucketGet, Route::Bucket(bucket)) => {
                query.allow(&["projection"])?;
                self.bucket(bucket)?.metadata.clone()
            }
            (Op::TestPermissions, Route::Permissions(bucket)) => {
                query.allow(&["permissions"])?;
                self.bucket(bucket)?;
                self.granted(query)
            }
            (Op::List, Route::Objects(bucket)) => self.list(bucket, query)?,
            (Op::Insert, Route::Objects(bucket)) => {
                query.allow(&["uploadType", "name", "ifGenerationMatch"])?;
                let kind = call.header("content-type").unwrap_or_default();
                self.insert(bucket, query.get("name"), kind, body, expected.destination)?
            }
            (Op::ResumableStart, Route::Objects(bucket)) => {
                query.allow(&["uploadType", "name", "ifGenerationMatch"])?;
                let kind = call.header("x-upload-content-type").map(str::to_owned);
                let resource = read_json(body)?;
                let id =
                    self.begin_upload(bucket, query.get("name"), &resource, kind, expected.destination)?;
                let url = call.header("host").map_or(url.to_owned(), |host| format!("http://{host}"));
                let at = format!("{url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}");
                return Ok(Reply::empty(200)
                    .with("location", at)
                    .with("x-guploader-uploadid", id.to_string()));
            }
            (Op::ResumableChunk | Op::ResumableStatus, Route::Session(id)) => {
                let range = call.content_range(body.len() as u64)?;
                let sums = call.headers.get_all("x-goog-hash").iter().filter_map(|v| v.to_str().ok());
                let sum = sums.flat_map(|v| v.split(',')).find_map(|v| v.trim().strip_prefix("crc32c="));
                return self.upload(*id, range, body, sum.map(decode_crc32c).transpose()?);
            }
            (Op::ResumableCancel, Route::Session(id)) => return self.cancel_upload(*id),
            (Op::GetMedia, Route::Object(place)) => return self.media(place, call),
            (Op::GetMetadata, Route::Object(place)) => {
                query.allow(&["generation", "ifGenerationMatch", "projection"])?;
                self.object(place, query.number("generation")?)?;
                self.expect(place, expected.destination)?;
                self.resource(place)?
            }
            (Op::Delete, Route::Object(place)) => {
                query.allow(&["generation", "ifGenerationMatch"])?;
                self.remove(place, query.number("generation")?, expected.destination)?;
                return Ok(Reply::empty(204));
            }
            (Op::Move, Route::Pair(..)) if !self.rules.serves_move => {
                return Ok(Reply::text(404, "Not Found"));
            }
            (Op::Move, Route::Pair(from, to)) => {
                query.allow(&["ifGenerationMatch", "ifSourceGenerationMatch", "projection"])?;
                self.rename(from, to, expected)?
            }
            (Op::Rewrite, Route::Pair(from, to)) => {
                let known = ["ifGenerationMatch", "ifSourceGenerationMatch", "rewriteToken", "projection"];
                query.allow(&known)?;
                self.rewrite(from, to, &read_json(body)?, expected, query.get("rewriteToken"))?
            }
            _ => return Err(Refusal::not_found("Not Found")),
        };
        let resource = match query.get("fields") {
            Some(fields) => project(&resource, fields)?,
            None => resource,
        };
        Ok(Reply::json(200, &resource))
    }

    fn granted(&self, query: &Query) -> Value {
        let asked = query.0.iter().filter(|(key, _)| key == "permissions").map(|(_, value)| value);
        let granted = self.rules.permissions.as_ref();
        let has: Vec<&str> = asked
            .filter(|p| granted.is_none_or(|granted| granted.contains(*p)))
            .map(String::as_str)
            .collect();
        let mut answer = json!({"kind": "storage#testIamPermissionsResponse"});
        if !has.is_empty() {
            answer["permissions"] = has.into();
        }
        answer
    }

    fn list(&self, bucket: &str, query: &Query) -> Result<Value, Refusal> {
        query.allow(&["prefix", "startOffset", "maxResults", "pageToken", "projection"])?;
        let asked = query.number("maxResults")?.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(0));
        if asked == 0 {
            return Err(Refusal::invalid(
                "Invalid value '0'. Values must be within the range: [1, 2147483647]",
            ));
        }
        let token = query.get("pageToken").map(|token| {
            let name = BASE64.decode(token).ok().and_then(|name| String::from_utf8(name).ok());
            name.ok_or_else(|| Refusal::invalid("Invalid page token."))
        });
        let after = token.transpose()?;
        let start = query.get("startOffset").unwrap_or_default();
        let start = match &after {
            Some(name) if name.as_str() >= start => Bound::Excluded(name.as_str()),
            _ => Bound::Included(start),
        };
        let limit = asked.min(self.rules.max_page);
        let (items, last) = self.page(bucket, query.get("prefix").unwrap_or_default(), start, limit)?;
        let mut page = json!({"kind": "storage#objects"});
        if let Some(last) = last {
            page["nextPageToken"] = BASE64.encode(last).into();
        }
        if !items.is_empty() {
            page["items"] = items.into();
        }
        Ok(page)
    }

    fn media(&self, place: &Place, call: &Call) -> Result<Reply, Refusal> {
        call.query.allow(&["generation", "ifGenerationMatch"])?;
        let object = self.object(place, call.query.number("generation")?)?;
        self.expect(place, call.query.number("ifGenerationMatch")?)?;
        let size = object.bytes.len();
        let range = call.header("range").map(|range| byte_range(range, size));
        let (status, body) = match range {
            None | Some(None) => (200, object.bytes.clone()),
            Some(Some((from, to))) if from < to => (206, object.bytes.slice(from..to)),
            Some(Some(_)) => {
                let refusal =
                    Refusal::new(416, "requestedRangeNotSatisfiable", "Request range not satisfiable");
                return Err(refusal.with("content-range", format!("bytes */{size}")));
            }
        };
        let kind = object.draft.content_type.as_deref().filter(|kind| HeaderValue::from_str(kind).is_ok());
        let mut reply = Reply { status, body, ..Reply::default() }
            .with("content-type", kind.unwrap_or("application/octet-stream"))
            .with("x-goog-generation", object.generation.to_string())
            .with("x-goog-metageneration", "1")
            .with("x-goog-hash", format!("crc32c={}", encode_crc32c(object.crc32c)))
            .with("x-goog-stored-content-length", size.to_string())
            .with("x-goog-stored-content-encoding", "identity");
        if let Some(Some((from, to))) = range {
            reply = reply.with("content-range", format!("bytes {from}-{}/{size}", to - 1));
        }
        Ok(reply)
    }

    fn authorise(&self, call: &Call) -> Result<(), Refusal> {
        // The address of a session is a credential in itself.
        let in_session = matches!(call.route, Route::Session(_));
        if !(in_session && call.header("authorization").is_none()) {
            self.tokens.check(call.bearer())?;
        }
        let needed: &[&str] = match call.op {
            Op::Insert | Op::ResumableStart => &["storage.objects.create"],
            Op::GetMedia | Op::GetMetadata => &["storage.objects.get"],
            Op::List => &["storage.objects.list"],
            Op::Delete => &["storage.objects.delete"],
            Op::Move => &["storage.objects.move", "storage.objects.create"],
            Op::Rewrite => &["storage.objects.get", "storage.objects.create"],
            Op::BucketGet => &["storage.buckets.get"],
            _ => &[],
        };
        let granted = self.rules.permissions.as_ref();
        match needed.iter().find(|p| granted.is_some_and(|granted| !granted.contains(**p))) {
            None => Ok(()),
            Some(missing) => Err(Refusal::new(
                403,
                "forbidden",
                format!(
                    "gristmill@test.iam.gserviceaccount.com does not have {missing} access to the Google \
                     Cloud Storage resource. Permission '{missing}' denied on resource (or it may not exist)."
                ),
            )),
        }
    }
}

impl Query {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str) -> Result<Option<i64>, Refusal> {
        let number = self.get(key).map(|text| {
            text.parse().map_err(|_| Refusal::invalid(format!("Invalid value for: {key}: {text}")))
        });
        number.transpose()
    }

    /// A parameter that this fake would silently ignore is an error: no client may rely on it.
    fn allow(&self, known: &[&str]) -> Result<(), Refusal> {
        let always = ["alt", "fields", "prettyPrint", "userProject"];
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str()) && !always.contains(&key.as_str()))
        {
            None => Ok(()),
            Some((key, _)) => Err(Refusal::invalid(format!("this fake does not know the parameter {key}"))),
        }
    }
}

/// Pairs of a query or a form.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let plain = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (plain(k), plain(v))).collect()
}

fn decode(segment: &str) -> Result<String, Refusal> {
    let text = percent_decode_str(segment).decode_utf8();
    text.map(Into::into).map_err(|_| Refusal::invalid("a name in the path is not UTF-8"))
}

/// An empty body stands for an empty resource.
fn read_json(body: &Bytes) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, "parseError", format!("Parse Error: {error}")))
}

/// From and to (exclusive) of `bytes=a-b`; empty if it cannot be satisfied, `None` if it is to be ignored.
fn byte_range(text: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let count: usize = last.parse().ok()?;
        return Some((size.saturating_sub(count), size));
    }
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() { usize::MAX } else { last.parse().ok()? };
    Some((first, last.saturating_add(1).min(size)))
}
