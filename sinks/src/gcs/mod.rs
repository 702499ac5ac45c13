//! Google Cloud Storage as a [`Store`], by its JSON API.

mod answer;
mod aws_container;
mod aws_signature;
mod bucket;
mod config;
pub(crate) mod credentials;
mod object;
mod publish;
mod transport;
mod upload;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tokio::sync::OnceCell;

pub use bucket::{BucketNote, BucketReport};
pub use config::{GcsConfig, GcsConfigBuilder, GcsCredentials};
pub use transport::GcsCounters;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{
    BoxFuture, Create, Generation, Listed, Move, Object, StagedWrite, Stat, Store, validate_name,
};
use answer::Answer;
use object::{Resource, ResourceList};
use publish::Probed;
use transport::{Class, Request, Transport};
use upload::GcsWrite;

/// The largest object that [`Store::get`] reads: the audit reads files whole up to this size.
const MAX_GET_BYTES: u64 = 1 << 30;

/// A listing that goes on without an end for that many pages without an object has none.
const MAX_EMPTY_PAGES: u32 = 1000;

/// The most objects that one page of a listing holds.
const MAX_PAGE: usize = 1000;

/// A bucket of Google Cloud Storage as a [`Store`].
///
/// # Guarantee
/// What [`Store`] promises rests on the bucket's preconditions: objects are created with `ifGenerationMatch=0`,
/// so of any number of writers one wins, and they are moved to their final name by `objects.move`, which is
/// atomic. Where a server does not offer that, a file is copied if the name is free, and its staged form is deleted
/// after it; a reader sees the whole file under its final name or none in either case. Which way a server
/// needs is found out by trying ([`GcsStore::probe`]), not by its name.
///
/// Evidence: the conformance suite and the fault suite against fakes. It has not been run against Google's own
/// service yet.
///
/// # Requests
/// Every request has a precondition or is idempotent, and is tried again, with jitter and from a bounded budget,
/// after 408, 429, 5xx and broken connections. Content is checked by CRC-32C both ways. Tokens are renewed
/// before they expire; a 401 all the same renews them once and goes on, also in the middle of an upload. They are
/// sent to the endpoint and to Google only, wherever an answer says that an upload goes on, and no redirection is
/// followed.
///
/// Uploads below [`GcsConfigBuilder::upload_part_bytes`] are one request; larger ones are resumable and hold that
/// many bytes in memory.
///
/// Sources: the reference of the JSON API (`objects: insert, get, list, delete, move, rewrite`), "Resumable
/// uploads" and "Request preconditions" in the documentation of Cloud Storage.
#[derive(Clone)]
pub struct GcsStore {
    inner: Arc<Inner>,
}

impl fmt::Debug for GcsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsStore").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Inner {
    config: GcsConfig,
    transport: Transport,
    probed: OnceCell<Probed>,
}

impl GcsStore {
    /// A store in a bucket. Nothing is sent to it.
    ///
    /// # Errors
    /// `InvalidConfig` if the credentials or the CA certificate cannot be read, `Usage` outside of a Tokio runtime.
    pub fn open(config: GcsConfig) -> Result<Self> {
        let transport = Transport::new(&config)?;
        Ok(GcsStore { inner: Arc::new(Inner { config, transport, probed: OnceCell::new() }) })
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.inner.config.0.bucket
    }

    /// What was asked of the store since it was opened; this is what is billed.
    pub fn counters(&self) -> GcsCounters {
        self.inner.transport.counters()
    }

    /// Age of the file with the service account's key, where one is used: keys do not expire by themselves.
    pub fn key_age(&self) -> Option<std::time::Duration> {
        self.inner.transport.key_age()
    }
}

impl Inner {
    /// The bucket that holds `name`.
    fn bucket_of(&self, name: &str) -> &str {
        let c = &self.config.0;
        match &c.staging {
            Some((bucket, prefix)) if name.starts_with(prefix.as_str()) => bucket,
            _ => &c.bucket,
        }
    }

    fn object_url(&self, name: &str) -> String {
        self.object_url_in(self.bucket_of(name), name)
    }

    fn object_url_in(&self, bucket: &str, name: &str) -> String {
        format!("{}/storage/v1/b/{bucket}/o/{}", self.config.0.endpoint, object::encode(name))
    }

    fn upload_url(&self, name: &str) -> String {
        let c = &self.config.0;
        format!("{}/upload/storage/v1/b/{}/o", c.endpoint, self.bucket_of(name))
    }

    /// The answer as an error: for a status that the caller has no use for.
    fn refused(&self, what: &str, name: &str, answer: &Answer) -> Error {
        answer.error(&format!("cannot {what} gs://{}/{name}", self.bucket_of(name)))
    }

    async fn resource(&self, name: &str) -> Result<Option<Resource>> {
        self.resource_in(self.bucket_of(name), name).await
    }

    async fn resource_in(&self, bucket: &str, name: &str) -> Result<Option<Resource>> {
        let request = Request::new(Method::GET, self.object_url_in(bucket, name), Class::B);
        let answer = self.transport.send(&request).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND if !answer.is_about_the_bucket() => Ok(None),
            _ => Err(self.refused("look up", name, &answer)),
        }
    }

    /// Deletes an object; with a generation, only that one.
    async fn delete(&self, name: &str, generation: Option<Generation>) -> Result<bool> {
        self.delete_in(self.bucket_of(name), name, generation).await
    }

    async fn delete_in(&self, bucket: &str, name: &str, generation: Option<Generation>) -> Result<bool> {
        let mut request = Request::new(Method::DELETE, self.object_url_in(bucket, name), Class::Free);
        if let Some(Generation(generation)) = generation {
            // That generation and no other, also where a server looks at preconditions and deletes in two steps.
            request = request
                .query("generation", generation.to_string())
                .query("ifGenerationMatch", generation.to_string());
        }
        let answer = self.transport.send(&request).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(true),
            // After a try whose reply was lost, it was probably this call that deleted it.
            StatusCode::NOT_FOUND if !answer.is_about_the_bucket() => Ok(answer.repeated),
            StatusCode::PRECONDITION_FAILED => Ok(false),
            _ => Err(self.refused("delete", name, &answer)),
        }
    }

    async fn create(&self, name: &str, bytes: &Bytes) -> Result<Create> {
        let request = upload::insert(self, name, bytes, crc32c::crc32c(bytes), None);
        let answer = self.transport.send(&request).await?;
        match answer.status {
            StatusCode::OK => Ok(Create::Created(answer.json::<Resource>()?.generation())),
            // Perhaps our own, from a try whose reply was lost: the caller reads it and sees.
            StatusCode::PRECONDITION_FAILED => Ok(Create::Exists),
            _ => Err(self.refused("create", name, &answer)),
        }
    }

    async fn read(&self, name: &str) -> Result<Option<Object>> {
        let request = Request::new(Method::GET, self.object_url(name), Class::B)
            .query("alt", "media".into())
            // What is stored compressed comes as it is stored: that is what its checksum is of.
            .header("accept-encoding", "gzip".into())
            .answer_bytes(MAX_GET_BYTES);
        let answer = self.transport.send(&request).await?;
        match answer.status {
            StatusCode::OK => {
                let generation = answer.header("x-goog-generation").and_then(|g| g.parse().ok());
                let Some(generation) = generation else {
                    let text = format!("the store did not tell the generation of {name}");
                    return Err(Error::new(ErrorKind::Unsupported, text));
                };
                Ok(Some(Object { bytes: answer.body, generation: Generation(generation) }))
            }
            StatusCode::NOT_FOUND if !answer.is_about_the_bucket() => Ok(None),
            _ => Err(self.refused("read", name, &answer)),
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Vec<Listed>> {
        let url = format!("{}/storage/v1/b/{}/o", self.config.0.endpoint, self.bucket_of(prefix));
        let mut found = Vec::new();
        let mut page_token: Option<String> = None;
        let mut empty_pages = 0;
        while found.len() < limit {
            // `startOffset` is inclusive: one more, in case that it is there.
            let wanted = (limit - found.len()).saturating_add(1).min(MAX_PAGE);
            let mut request = Request::new(Method::GET, url.clone(), Class::A)
                .query("maxResults", wanted.to_string())
                .query("fields", "items(name,generation,size),nextPageToken".into());
            if !prefix.is_empty() {
                request = request.query("prefix", prefix.into());
            }
            if let Some(after) = start_after {
                request = request.query("startOffset", after.into());
            }
            if let Some(token) = page_token.take() {
                request = request.query("pageToken", token);
            }
            let answer = self.transport.send(&request).await?;
            if answer.status != StatusCode::OK {
                return Err(self.refused("list", prefix, &answer));
            }
            let page: ResourceList = answer.json()?;
            empty_pages = if page.items.is_empty() { empty_pages + 1 } else { 0 };
            if empty_pages > MAX_EMPTY_PAGES {
                let text = format!("the listing of {prefix} does not end");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            for resource in page.items {
                if start_after.is_none_or(|after| resource.name.as_str() > after) && found.len() < limit {
                    found.push(Listed {
                        generation: resource.generation(),
                        bytes: resource.size(),
                        name: resource.name,
                    });
                }
            }
            page_token = page.next_page_token;
            if page_token.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

impl Store for GcsStore {
    fn create_if_absent<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Create>> {
        Box::pin(async move {
            validate_name(name)?;
            self.inner.create(name, &bytes).await
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Object>>> {
        Box::pin(async move {
            validate_name(name)?;
            self.inner.read(name).await
        })
    }

    fn stat<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Stat>>> {
        Box::pin(async move {
            validate_name(name)?;
            let found = match self.inner.resource(name).await? {
                Some(found) => Some(found),
                None => publish::elsewhere(&self.inner, name).await?.map(|(_, found)| found),
            };
            found.map(|r| r.stat()).transpose()
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Listed>>> {
        Box::pin(self.inner.list(prefix, start_after, limit))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            validate_name(name)?;
            self.inner.delete(name, None).await
        })
    }

    fn stage<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        Box::pin(async move {
            validate_name(name)?;
            Ok(Box::new(GcsWrite::new(self.inner.clone(), name.to_owned(), name.to_owned()))
                as Box<dyn StagedWrite>)
        })
    }

    fn move_if_absent<'a>(
        &'a self,
        staged: &'a str,
        generation: Generation,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Move>> {
        Box::pin(async move {
            validate_name(staged)?;
            validate_name(to)?;
            publish::publish(&self.inner, staged, generation, to).await
        })
    }
}
