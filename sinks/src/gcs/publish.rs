//! From a staged name to a final one, without ever replacing an object.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use uuid::Uuid;

use super::object::{Resource, Rewritten, encode};
use super::transport::{Class, Request};
use super::upload::GcsWrite;
use super::{GcsStore, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Create, Generation, Move};

/// How many bytes of a file are held at once while it is copied through this process.
const COPY_BYTES: u64 = 4 << 20;

/// More staging buckets than anybody has had.
const MAX_STAGING_BUCKETS: usize = 100;

/// A copy inside the service that takes more calls than that does not come to an end.
const MAX_REWRITES: u32 = 100_000;

/// What trying a bucket has shown.
#[derive(Debug)]
pub(super) struct Probed {
    publishing: Publishing,
    /// Buckets in which staged files may lie besides the one where they go now: those that were configured before.
    earlier: Vec<String>,
}

/// How a server lets a file get its final name. Found out by trying, see [`GcsStore::probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publishing {
    /// `objects.move`: atomic.
    Move,
    /// `objects.rewrite` if the name is free, then the staged object is deleted. Between two buckets.
    Rewrite,
    /// Read and uploaded again if the name is free, then the staged object is deleted: where a server does not heed
    /// the preconditions of a rewrite.
    Upload,
}

impl GcsStore {
    /// Tries whether the bucket does what the ledger needs, with three small objects that it deletes again, and
    /// which way it lets files be published. Done once; publishing does it by itself if nobody has.
    ///
    /// A staging bucket leaves its name under `staging-buckets/` in the state: what was staged there is found also
    /// when another one is configured later.
    ///
    /// # Errors
    /// `Unsupported` if the server does not heed `ifGenerationMatch=0` or does not show what was written;
    /// `NotFound` if there is no such bucket; `PermissionDenied` naming what is missing; `Unavailable`.
    pub async fn probe(&self) -> Result<()> {
        probed(&self.inner).await.map(|_| ())
    }
}

async fn probed(inner: &Arc<Inner>) -> Result<&Probed> {
    inner
        .probed
        .get_or_try_init(|| async {
            Ok(Probed { publishing: probe(inner).await?, earlier: earlier_buckets(inner).await? })
        })
        .await
}

/// The buckets that staged files were in before, and a note of the one where they go now.
async fn earlier_buckets(inner: &Arc<Inner>) -> Result<Vec<String>> {
    let settings = &inner.config.0;
    let notes = format!("{}/staging-buckets/", settings.probe_prefix);
    let mut earlier = Vec::new();
    if let Some((staging, _)) = &settings.staging {
        earlier.push(settings.bucket.clone());
        inner.create(&format!("{notes}{staging}"), &"staged files may lie in this bucket".into()).await?;
    }
    let now = settings.staging.as_ref().map(|(bucket, _)| bucket.as_str());
    for listed in inner.list(&notes, None, MAX_STAGING_BUCKETS).await? {
        let bucket = &listed.name[notes.len()..];
        if Some(bucket) != now && !earlier.iter().any(|b| b == bucket) {
            earlier.push(bucket.to_owned());
        }
    }
    Ok(earlier)
}

/// A staged object in a bucket of an earlier configuration, if it is in one.
pub(super) async fn elsewhere(inner: &Arc<Inner>, staged: &str) -> Result<Option<(String, Resource)>> {
    let state = format!("{}/staged/", inner.config.0.probe_prefix);
    if !staged.starts_with(&state) {
        return Ok(None);
    }
    for bucket in &probed(inner).await?.earlier {
        if let Some(found) = inner.resource_in(bucket, staged).await? {
            return Ok(Some((bucket.clone(), found)));
        }
    }
    Ok(None)
}

async fn probe(inner: &Arc<Inner>) -> Result<Publishing> {
    let settings = &inner.config.0;
    let unique = Uuid::new_v4();
    let here = |n: usize| format!("{}/probe/{unique}-{n}", settings.probe_prefix);
    // Where there is a staging bucket, files come from there.
    let from = |n: usize| match &settings.staging {
        Some((_, prefix)) => format!("{prefix}probe/{unique}-{n}"),
        None => here(n),
    };
    let (sources, finals) = ([from(0), from(1)], here(2));
    let found = try_out(inner, &sources, &finals).await;
    for name in sources.iter().chain([&finals]) {
        if let Err(error) = inner.delete(name, None).await {
            tracing::warn!(name, %error, "an object that the start-up probe made is left");
        }
    }
    let found = found?;
    if found != Publishing::Move && settings.staging.is_none() {
        tracing::warn!(
            bucket = settings.bucket, publishing = ?found,
            "the store does not offer objects.move: files are copied, and until the staged form is deleted a file \
             that somebody moves away may come back"
        );
    }
    Ok(found)
}

async fn try_out(inner: &Arc<Inner>, sources: &[String; 2], to: &str) -> Result<Publishing> {
    let unsupported = |text: String| {
        let bucket = &inner.config.0.bucket;
        Error::new(
            ErrorKind::Unsupported,
            format!("the store of bucket {bucket} {text}: no ledger can be kept there"),
        )
    };
    let mut generations = [Generation(0); 2];
    for (name, generation) in sources.iter().zip(&mut generations) {
        let content = name.clone().into();
        if let Create::Created(made) = inner.create(name, &content).await? {
            *generation = made;
        }
        if inner.create(name, &"another".into()).await? != Create::Exists {
            return Err(unsupported("does not heed ifGenerationMatch=0 and replaces objects".into()));
        }
        match inner.read(name).await? {
            Some(object) if object.bytes == content => {
                *generation = object.generation;
            }
            _ => return Err(unsupported("does not show what was written".into())),
        }
    }
    let one_bucket = inner.bucket_of(&sources[0]) == inner.bucket_of(to);
    let ways = match one_bucket {
        true => [Publishing::Move, Publishing::Rewrite].as_slice(),
        false => &[Publishing::Rewrite],
    };
    for way in ways {
        let source = |n: usize| Source::of(inner, &sources[n], generations[n]);
        let request = |n: usize| match way {
            Publishing::Move => source(n).move_to(inner, to).any_answer(),
            _ => source(n).rewrite_to(inner, to, None).any_answer(),
        };
        let first = inner.transport.send(&request(0)).await?;
        match first.status {
            StatusCode::OK => {}
            // A reply was lost before.
            StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED if first.repeated => {}
            StatusCode::FORBIDDEN => return Err(inner.refused("publish", to, &first)),
            _ => continue,
        }
        if inner.resource(to).await?.is_none() {
            continue;
        }
        // The name is taken now: the other one must not replace it.
        let second = inner.transport.send(&request(1)).await?;
        if second.status == StatusCode::PRECONDITION_FAILED {
            return Ok(*way);
        }
        tracing::warn!(
            ?way,
            status = second.status.as_u16(),
            "the store does not heed ifGenerationMatch there"
        );
    }
    Ok(Publishing::Upload)
}

/// A staged object.
#[derive(Clone, Copy)]
struct Source<'a> {
    bucket: &'a str,
    name: &'a str,
    generation: Generation,
}

impl<'a> Source<'a> {
    /// Where it lies if it was staged as files are now.
    fn of(inner: &'a Inner, name: &'a str, generation: Generation) -> Self {
        Source { bucket: inner.bucket_of(name), name, generation }
    }

    fn move_to(&self, inner: &Inner, to: &str) -> Request {
        let url = format!("{}/moveTo/o/{}", inner.object_url_in(self.bucket, self.name), encode(to));
        Request::new(Method::POST, url, Class::A)
            .query("ifSourceGenerationMatch", self.generation.0.to_string())
            .query("ifGenerationMatch", "0".into())
    }

    fn rewrite_to(&self, inner: &Inner, to: &str, token: Option<String>) -> Request {
        let from = inner.object_url_in(self.bucket, self.name);
        let url = format!("{from}/rewriteTo/b/{}/o/{}", inner.bucket_of(to), encode(to));
        let request = Request::new(Method::POST, url, Class::A)
            .query("ifSourceGenerationMatch", self.generation.0.to_string())
            .query("ifGenerationMatch", "0".into());
        match token {
            Some(token) => request.query("rewriteToken", token),
            None => request,
        }
    }

    async fn resource(&self, inner: &Inner) -> Result<Option<Resource>> {
        inner.resource_in(self.bucket, self.name).await
    }

    /// The file is at its final name; what is left under the staged one goes. Who deletes it has moved it.
    async fn delete(&self, inner: &Inner) -> Result<Move> {
        match inner.delete_in(self.bucket, self.name, Some(self.generation)).await? {
            true => Ok(Move::Moved),
            false => Ok(Move::AlreadyMoved),
        }
    }
}

/// What stands in the way of a move that the store refused.
enum Obstacle {
    /// The staged object is gone.
    SourceGone,
    /// The final name holds a copy of the staged object: its publisher died before it deleted that.
    OwnCopy,
    /// The final name holds somebody else's object.
    Taken,
    /// Nothing stands in the way any more.
    None,
}

pub(super) async fn publish(
    inner: &Arc<Inner>,
    staged: &str,
    generation: Generation,
    to: &str,
) -> Result<Move> {
    let way = probed(inner).await?.publishing;
    let source = Source::of(inner, staged, generation);
    match publish_from(inner, way, source, to).await? {
        Move::AlreadyMoved => match elsewhere(inner, staged).await? {
            None => Ok(Move::AlreadyMoved),
            Some((bucket, _)) => publish_from(inner, way, Source { bucket: &bucket, ..source }, to).await,
        },
        settled => Ok(settled),
    }
}

async fn publish_from(inner: &Arc<Inner>, way: Publishing, source: Source<'_>, to: &str) -> Result<Move> {
    let way = match way {
        // What moves inside of a bucket is copied between two.
        Publishing::Move if source.bucket != inner.bucket_of(to) => Publishing::Rewrite,
        way => way,
    };
    // The obstacle of a first try may be gone at the second: a user moved a foreign file away.
    for _ in 0..3 {
        match way {
            Publishing::Move => {
                let answer = inner.transport.send(&source.move_to(inner, to)).await?;
                match answer.status {
                    StatusCode::OK => return Ok(Move::Moved),
                    StatusCode::NOT_FOUND if answer.is_about_the_bucket() => {
                        return Err(inner.refused("publish", to, &answer));
                    }
                    StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED => {}
                    _ => return Err(inner.refused("publish", to, &answer)),
                }
            }
            Publishing::Rewrite => {
                if rewrite(inner, source, to).await? {
                    return source.delete(inner).await;
                }
            }
            Publishing::Upload => {
                if copy(inner, source, to).await? {
                    return source.delete(inner).await;
                }
            }
        }
        match obstacle(inner, source, to).await? {
            Obstacle::SourceGone => return Ok(Move::AlreadyMoved),
            Obstacle::OwnCopy => return source.delete(inner).await,
            Obstacle::Taken => return Ok(Move::DestinationExists),
            Obstacle::None => {}
        }
    }
    let text =
        format!("the store refuses to publish {} as {to} though nothing stands in the way", source.name);
    Err(Error::new(ErrorKind::Unavailable, text))
}

async fn obstacle(inner: &Inner, source: Source<'_>, to: &str) -> Result<Obstacle> {
    let Some(staged) = source.resource(inner).await? else { return Ok(Obstacle::SourceGone) };
    let found = inner.resource(to).await?;
    let is_copy = match &found {
        Some(found) => is_copy(found, &staged, source.name)?,
        None => false,
    };
    match (staged.generation() == source.generation, found) {
        (true, None) => Ok(Obstacle::None),
        (true, Some(_)) if is_copy => Ok(Obstacle::OwnCopy),
        (true, Some(_)) => Ok(Obstacle::Taken),
        // The upload was tried twice, and the slower try arrived when the object of the other one was moved away.
        (false, _) if is_copy => {
            inner.delete_in(source.bucket, source.name, Some(staged.generation())).await?;
            Ok(Obstacle::SourceGone)
        }
        (false, _) => {
            let text =
                format!("{} is not the object that was staged: it was written again since", source.name);
            Err(Error::new(ErrorKind::Changed, text))
        }
    }
}

fn is_copy(found: &Resource, source: &Resource, staged: &str) -> Result<bool> {
    Ok(found.was_staged_as(staged) && found.size() == source.size() && found.crc32c()? == source.crc32c()?)
}

/// Copies in the service, which may take several requests; `false` if the name is taken or the source is gone.
async fn rewrite(inner: &Inner, source: Source<'_>, to: &str) -> Result<bool> {
    let mut token = None;
    for _ in 0..MAX_REWRITES {
        let answer = inner.transport.send(&source.rewrite_to(inner, to, token)).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND if answer.is_about_the_bucket() => {
                return Err(inner.refused("copy to", to, &answer));
            }
            StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED => return Ok(false),
            _ => return Err(inner.refused("copy to", to, &answer)),
        }
        let rewritten: Rewritten = answer.json()?;
        if rewritten.done {
            return Ok(true);
        }
        token = rewritten.rewrite_token;
        if token.is_none() {
            break;
        }
    }
    let text = format!("the store does not end the copy to {to}");
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// Copies through this process; `false` if the name is taken or the source is gone.
///
/// The copy appears under its final name with its last request, and that is sent only if everything before is
/// what was staged.
async fn copy(inner: &Arc<Inner>, source: Source<'_>, to: &str) -> Result<bool> {
    let Some(staged) = source.resource(inner).await? else { return Ok(false) };
    if staged.generation() != source.generation || inner.resource(to).await?.is_some() {
        return Ok(false);
    }
    let mut write = GcsWrite::new(inner.clone(), to.to_owned(), source.name.to_owned());
    let mut at = 0;
    while at < staged.size() {
        let end = (at + COPY_BYTES).min(staged.size());
        let url = inner.object_url_in(source.bucket, source.name);
        let request = Request::new(Method::GET, url, Class::B)
            .query("alt", "media".into())
            .query("generation", source.generation.0.to_string())
            .header("range", format!("bytes={at}-{}", end - 1))
            .answer_bytes(COPY_BYTES);
        let answer = inner.transport.send(&request).await?;
        match answer.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT if answer.body.len() as u64 == end - at => {}
            StatusCode::NOT_FOUND => return Ok(false),
            _ => return Err(inner.refused("read", source.name, &answer)),
        }
        write.add(answer.body).await?;
        at = end;
    }
    if write.crc32c() != staged.crc32c()? {
        let text = format!("{} was not read as it was written; nothing was published", source.name);
        return Err(Error::new(ErrorKind::Unavailable, text));
    }
    match write.end().await {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::DestinationTaken => Ok(false),
        Err(e) => Err(e),
    }
}
