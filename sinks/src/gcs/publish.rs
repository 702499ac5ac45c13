//! From a staged name to a final one, without ever replacing an object.

use reqwest::{Method, StatusCode};
use uuid::Uuid;

use super::answer::Answer;
use super::object::{Resource, Rewritten, encode};
use super::transport::{Class, Request};
use super::upload::GcsWrite;
use super::{GcsStore, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Create, Generation, Move};

/// How many bytes of a file are held at once while it is copied through this process.
const COPY_BYTES: u64 = 4 << 20;

/// How a server lets a file get its final name. Found out by trying, see [`GcsStore::probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publishing {
    /// `objects.move`: atomic.
    Move,
    /// `objects.rewrite` if the name is free, then the staged object is deleted. Between two buckets.
    Rewrite,
    /// Read and uploaded again if the name is free, then the staged object is deleted: where a server does not heed
    /// the preconditions of a rewrite.
    Upload,
}

impl GcsStore {
    /// Tries whether the bucket does what the ledger needs, with four small objects that it deletes again, and
    /// which way it lets files be published. Done once; publishing does it by itself if nobody has.
    ///
    /// # Errors
    /// `Unsupported` if the server does not heed `ifGenerationMatch=0` or does not show what was written;
    /// `NotFound` if there is no such bucket; `PermissionDenied` naming what is missing; `Unavailable`.
    pub async fn probe(&self) -> Result<()> {
        publishing(&self.inner).await.map(|_| ())
    }
}

async fn publishing(inner: &std::sync::Arc<Inner>) -> Result<Publishing> {
    inner.publishing.get_or_try_init(|| probe(inner)).await.copied()
}

async fn probe(inner: &std::sync::Arc<Inner>) -> Result<Publishing> {
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
    tracing::debug!(bucket = settings.bucket, publishing = ?found, "probed the bucket");
    Ok(found)
}

async fn try_out(inner: &std::sync::Arc<Inner>, sources: &[String; 2], to: &str) -> Result<Publishing> {
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
        let request = |source: usize| match way {
            Publishing::Move => move_request(inner, &sources[source], generations[source], to),
            _ => rewrite_request(inner, &sources[source], generations[source], to, None),
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

fn move_request(inner: &Inner, staged: &str, generation: Generation, to: &str) -> Request {
    let url = format!("{}/moveTo/o/{}", inner.object_url(staged), encode(to));
    Request::new(Method::POST, url, Class::A)
        .query("ifSourceGenerationMatch", generation.0.to_string())
        .query("ifGenerationMatch", "0".into())
}

fn rewrite_request(
    inner: &Inner,
    staged: &str,
    generation: Generation,
    to: &str,
    token: Option<String>,
) -> Request {
    let url = format!("{}/rewriteTo/b/{}/o/{}", inner.object_url(staged), inner.bucket_of(to), encode(to));
    let request = Request::new(Method::POST, url, Class::A)
        .query("ifSourceGenerationMatch", generation.0.to_string())
        .query("ifGenerationMatch", "0".into());
    match token {
        Some(token) => request.query("rewriteToken", token),
        None => request,
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
    inner: &std::sync::Arc<Inner>,
    staged: &str,
    generation: Generation,
    to: &str,
) -> Result<Move> {
    let way = publishing(inner).await?;
    // The obstacle of a first try may be gone at the second: a user moved a foreign file away.
    for _ in 0..3 {
        let refused = match way {
            Publishing::Move => {
                let answer = inner.transport.send(&move_request(inner, staged, generation, to)).await?;
                match answer.status {
                    StatusCode::OK => return Ok(Move::Moved),
                    StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED => answer,
                    _ => return Err(inner.refused("publish", to, &answer)),
                }
            }
            Publishing::Rewrite => match rewrite(inner, staged, generation, to).await? {
                None => return delete_source(inner, staged, generation).await,
                Some(answer) => answer,
            },
            Publishing::Upload => {
                if copy(inner, staged, generation, to).await? {
                    return delete_source(inner, staged, generation).await;
                }
                // The name is taken: by whom?
                match obstacle(inner, staged, generation, to).await? {
                    Obstacle::SourceGone => return Ok(Move::AlreadyMoved),
                    Obstacle::OwnCopy => return delete_source(inner, staged, generation).await,
                    Obstacle::Taken => return Ok(Move::DestinationExists),
                    Obstacle::None => continue,
                }
            }
        };
        match obstacle(inner, staged, generation, to).await? {
            Obstacle::SourceGone if refused.is_about_the_bucket() => {
                return Err(inner.refused("publish", to, &refused));
            }
            Obstacle::SourceGone => return Ok(Move::AlreadyMoved),
            Obstacle::OwnCopy => return delete_source(inner, staged, generation).await,
            Obstacle::Taken => return Ok(Move::DestinationExists),
            Obstacle::None => {}
        }
    }
    let text = format!("the store refuses to publish {staged} as {to} though nothing stands in the way");
    Err(Error::new(ErrorKind::Unavailable, text))
}

async fn obstacle(inner: &Inner, staged: &str, generation: Generation, to: &str) -> Result<Obstacle> {
    let Some(source) = inner.resource(staged).await? else { return Ok(Obstacle::SourceGone) };
    if source.generation() != generation {
        let text = format!("{staged} is not the object that was staged: it was written again since");
        return Err(Error::new(ErrorKind::Changed, text));
    }
    let Some(found) = inner.resource(to).await? else { return Ok(Obstacle::None) };
    match is_copy(&found, &source, staged)? {
        true => Ok(Obstacle::OwnCopy),
        false => Ok(Obstacle::Taken),
    }
}

fn is_copy(found: &Resource, source: &Resource, staged: &str) -> Result<bool> {
    Ok(found.was_staged_as(staged) && found.size() == source.size() && found.crc32c()? == source.crc32c()?)
}

/// The file is at its final name; what is left under the staged one goes. Who deletes it has moved it.
async fn delete_source(inner: &Inner, staged: &str, generation: Generation) -> Result<Move> {
    match inner.delete(staged, Some(generation)).await? {
        true => Ok(Move::Moved),
        false => Ok(Move::AlreadyMoved),
    }
}

/// Copies in the service, which may take several requests. Gives the answer of a refusal.
async fn rewrite(inner: &Inner, staged: &str, generation: Generation, to: &str) -> Result<Option<Answer>> {
    let mut token = None;
    loop {
        let answer = inner.transport.send(&rewrite_request(inner, staged, generation, to, token)).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED => return Ok(Some(answer)),
            _ => return Err(inner.refused("copy to", to, &answer)),
        }
        let rewritten: Rewritten = answer.json()?;
        if rewritten.done {
            return Ok(None);
        }
        token = rewritten.rewrite_token;
        if token.is_none() {
            let text = format!("the store did not say how to go on with the copy to {to}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    }
}

/// Copies through this process; `false` if the name is taken or the source is gone.
async fn copy(inner: &std::sync::Arc<Inner>, staged: &str, generation: Generation, to: &str) -> Result<bool> {
    let Some(source) = inner.resource(staged).await? else { return Ok(false) };
    if source.generation() != generation || inner.resource(to).await?.is_some() {
        return Ok(false);
    }
    let mut write = GcsWrite::new(inner.clone(), to.to_owned(), staged.to_owned());
    let mut at = 0;
    while at < source.size() {
        let end = (at + COPY_BYTES).min(source.size());
        let request = Request::new(Method::GET, inner.object_url(staged), Class::B)
            .query("alt", "media".into())
            .query("generation", generation.0.to_string())
            .header("range", format!("bytes={at}-{}", end - 1))
            .answer_bytes(COPY_BYTES);
        let answer = inner.transport.send(&request).await?;
        match answer.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT if answer.body.len() as u64 == end - at => {}
            StatusCode::NOT_FOUND => return Ok(false),
            _ => return Err(inner.refused("read", staged, &answer)),
        }
        write.add(&answer.body).await?;
        at = end;
    }
    match write.end().await {
        Ok(copied) if copied.crc32c == source.crc32c()? => Ok(true),
        Ok(copied) => {
            inner.delete(to, Some(copied.generation)).await?;
            let text = format!("{staged} was not read as it was written; its copy was deleted");
            Err(Error::new(ErrorKind::Unavailable, text))
        }
        Err(e) if e.kind() == ErrorKind::DestinationTaken => Ok(false),
        Err(e) => Err(e),
    }
}
