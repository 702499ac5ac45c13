use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Deserialize;

use super::cache::{Cache, Lifetimes};
use super::config::RegistryConfig;
use super::error::{RegistryError, RegistryErrorKind};
use super::schema::{ReferencedSchema, Registered, Schema, SchemaReference, SchemaType, WireSchema};
use super::transport::{Request, Transport};

/// How deep references may nest, and how many schemas one schema may refer to in all.
const MAX_REFERENCE_DEPTH: usize = 16;
const MAX_REFERENCES: usize = 256;

/// A client of a Schema Registry with Confluent's REST interface.
///
/// Cheap to clone; clones share connections and caches.
///
/// - Many look-ups of one schema at the same time are one request.
/// - What an id means never changes, so schemas are remembered by id until displaced by newer ones.
///   "Latest" is believed for a while, and longer while the registry fails. "Not found" is believed for
///   seconds only, so that a schema registered late is found. Nothing else that fails is remembered.
/// - References are fetched too, to any schema that is referred to.
/// - A schema with rules that a reader would have to run (or with encryption) is refused with
///   [`RegistryErrorKind::UnsupportedRules`], because its records would be read wrongly.
///
/// All methods need a tokio runtime, and are cancel safe: a request that nobody waits for any more ends
/// by itself, and its answer is remembered.
#[derive(Clone, Debug)]
pub struct SchemaRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    transport: Transport,
    /// By id, and the context it counts in.
    by_id: Cache<(u32, String), Arc<Registered>>,
    by_guid: Cache<String, Arc<Registered>>,
    by_version: Cache<(String, i32), Arc<Registered>>,
    latest: Cache<String, Arc<Registered>>,
}

/// The answer to [`SchemaRegistry::register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegisteredId {
    /// The id that records carry.
    pub id: u32,
}

/// The answer to [`SchemaRegistry::compatibility`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Compatibility {
    /// Whether it is.
    pub is_compatible: bool,
    /// The registry's reasons, if not; some registries give none.
    #[serde(default)]
    pub messages: Vec<String>,
}

/// A schema as the registry is sent it.
fn sent(schema_type: &SchemaType, text: &str, references: &[SchemaReference]) -> serde_json::Value {
    let mut body = serde_json::json!({"schema": text});
    if *schema_type != SchemaType::Avro {
        body["schemaType"] = schema_type.as_str().into();
    }
    if !references.is_empty() {
        body["references"] = serde_json::json!(references);
    }
    body
}

#[derive(Deserialize)]
struct IdAnswer {
    id: i64,
}

impl SchemaRegistry {
    /// A client. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::InvalidConfig`] if a certificate or key cannot be read.
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let for_ever =
            Lifetimes { value: None, not_found: config.not_found_ttl, max_stale: config.max_stale };
        let for_a_while = Lifetimes { value: Some(config.latest_ttl), ..for_ever };
        let shared = Shared {
            transport: Transport::new(&config)?,
            by_id: Cache::new(for_ever, config.cache_entries),
            by_guid: Cache::new(for_ever, config.cache_entries),
            by_version: Cache::new(for_ever, config.cache_entries),
            latest: Cache::new(for_a_while, config.cache_entries),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The schema with an id of the default context.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::NotFound`] if there is none, [`RegistryErrorKind::UnsupportedRules`] if its
    /// records must not be read here, or any other kind of [`RegistryErrorKind`].
    pub async fn schema_by_id(&self, id: u32) -> Result<Arc<Schema>, RegistryError> {
        self.schema_by_id_in("", id).await
    }

    /// The schema with an id of a context: `subject_or_context` is a context such as `:.europe:`, or a
    /// subject in it such as `:.europe:orders-value`. Ids count in each context by themselves. Empty: the
    /// default context.
    ///
    /// # Errors
    ///
    /// Those of [`schema_by_id`](Self::schema_by_id).
    pub async fn schema_by_id_in(
        &self,
        subject_or_context: &str,
        id: u32,
    ) -> Result<Arc<Schema>, RegistryError> {
        let context = context_of(subject_or_context).to_owned();
        let asked = if context.is_empty() {
            format!("schema id {id}")
        } else {
            format!("schema id {id} of context {context}")
        };
        let shared = self.shared.clone();
        let fetch = {
            let context = context.clone();
            move || async move {
                let number = id.to_string();
                let query = [("subject", context.as_str())];
                let request = Request {
                    path: &["schemas", "ids", &number],
                    query: if context.is_empty() { &[] } else { &query },
                    body: None,
                };
                shared.fetch(&request, Some(id)).await
            }
        };
        let registered =
            self.shared.by_id.get((id, context.clone()), fetch).await.map_err(|e| e.about(asked.clone()))?;
        self.complete(&registered, &context).await.map_err(|e| e.about(asked))
    }

    /// The schema with a GUID, such as `89791762-2336-4186-9674-299b90a802e2`, which records may carry in a header.
    ///
    /// # Errors
    ///
    /// Those of [`schema_by_id`](Self::schema_by_id).
    pub async fn schema_by_guid(&self, guid: &str) -> Result<Arc<Schema>, RegistryError> {
        let asked = format!("schema GUID {guid}");
        // It is a step of a path.
        if !guid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') || guid.is_empty() {
            return Err(RegistryError::new(
                RegistryErrorKind::InvalidArgument,
                format!("{guid:?} is not a GUID"),
            ));
        }
        let shared = self.shared.clone();
        let name = guid.to_owned();
        let fetch = move || async move {
            let request = Request { path: &["schemas", "guids", &name], query: &[], body: None };
            // Registries do not say the id there.
            shared.fetch(&request, Some(0)).await
        };
        let found = self.shared.by_guid.get(guid.to_owned(), fetch).await;
        let registered = found.map_err(|e| e.about(asked.clone()))?;
        self.complete(&registered, "").await.map_err(|e| e.about(asked))
    }

    /// The latest version of a subject, at most as old as the configured time. A subject may name a
    /// context: `:.europe:orders-value`.
    ///
    /// # Errors
    ///
    /// Those of [`schema_by_id`](Self::schema_by_id).
    pub async fn latest(&self, subject: &str) -> Result<Arc<Schema>, RegistryError> {
        let about =
            |e: RegistryError| e.about(format!("subject {subject}, latest version")).of_subject(subject);
        check_subject(subject)?;
        let shared = self.shared.clone();
        let name = subject.to_owned();
        let fetch = move || async move {
            let request =
                Request { path: &["subjects", &name, "versions", "latest"], query: &[], body: None };
            shared.fetch(&request, None).await
        };
        let registered = self.shared.latest.get(subject.to_owned(), fetch).await.map_err(about)?;
        self.complete(&registered, context_of(subject)).await.map_err(about)
    }

    /// As [`latest`](Self::latest), asked for now: for who has just seen a schema that may be newer than a kept answer.
    ///
    /// # Errors
    ///
    /// Those of [`schema_by_id`](Self::schema_by_id).
    pub async fn latest_now(&self, subject: &str) -> Result<Arc<Schema>, RegistryError> {
        self.shared.latest.forget(&subject.to_owned());
        self.latest(subject).await
    }

    /// One version of a subject, deleted ones included.
    ///
    /// # Errors
    ///
    /// Those of [`schema_by_id`](Self::schema_by_id).
    pub async fn version(&self, subject: &str, version: i32) -> Result<Arc<Schema>, RegistryError> {
        let about =
            |e: RegistryError| e.about(format!("subject {subject}, version {version}")).of_subject(subject);
        let registered = self.registered_version(subject, version).await.map_err(about)?;
        self.complete(&registered, context_of(subject)).await.map_err(about)
    }

    /// Registers a schema under a subject, if it is not there yet. What it refers to must be registered
    /// already.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::Incompatible`] or [`RegistryErrorKind::InvalidSchema`] if the registry refuses
    /// it, or any other kind of [`RegistryErrorKind`].
    pub async fn register(
        &self,
        subject: &str,
        schema_type: &SchemaType,
        text: &str,
        references: &[SchemaReference],
    ) -> Result<RegisteredId, RegistryError> {
        check_subject(subject)?;
        let body = sent(schema_type, text, references);
        let request = Request { path: &["subjects", subject, "versions"], query: &[], body: Some(&body) };
        let what = format!("registering a schema under subject {subject}");
        let registered = self.registered_id(&request, &what, subject).await?;
        self.shared.latest.forget(&subject.to_owned());
        self.shared.by_id.forget(&(registered.id, context_of(subject).to_owned()));
        Ok(registered)
    }

    async fn registered_id(
        &self,
        request: &Request<'_>,
        what: &str,
        subject: &str,
    ) -> Result<RegisteredId, RegistryError> {
        let about = |e: RegistryError| e.about(what.to_owned()).of_subject(subject);
        let answer: IdAnswer = self.shared.transport.send(request).await.map_err(about)?;
        let id = u32::try_from(answer.id).map_err(|_| {
            about(RegistryError::new(
                RegistryErrorKind::Malformed,
                format!("the schema id {} is not a 32-bit number", answer.id),
            ))
        })?;
        Ok(RegisteredId { id })
    }

    /// The id of a schema that a subject has already, in any version.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::NotFound`] if it does not have it, or any other kind of [`RegistryErrorKind`].
    pub async fn id_of(
        &self,
        subject: &str,
        schema_type: &SchemaType,
        text: &str,
        references: &[SchemaReference],
    ) -> Result<RegisteredId, RegistryError> {
        check_subject(subject)?;
        let body = sent(schema_type, text, references);
        let request = Request { path: &["subjects", subject], query: &[], body: Some(&body) };
        self.registered_id(&request, &format!("a schema of subject {subject}"), subject).await
    }

    /// Asks whether a schema is compatible with the latest version of a subject, by the subject's compatibility level. Nothing
    /// is registered. Where the level is transitive, registering looks at older versions too.
    ///
    /// # Errors
    ///
    /// [`RegistryErrorKind::NotFound`] if the subject has no version yet: any schema can be its first;
    /// [`RegistryErrorKind::InvalidSchema`], or any other kind of [`RegistryErrorKind`].
    pub async fn compatibility(
        &self,
        subject: &str,
        schema_type: &SchemaType,
        text: &str,
        references: &[SchemaReference],
    ) -> Result<Compatibility, RegistryError> {
        check_subject(subject)?;
        let body = sent(schema_type, text, references);
        let path = ["compatibility", "subjects", subject, "versions", "latest"];
        let request = Request { path: &path, query: &[("verbose", "true")], body: Some(&body) };
        let about = |e: RegistryError| {
            e.about(format!("whether a schema fits subject {subject}")).of_subject(subject)
        };
        self.shared.transport.send(&request).await.map_err(about)
    }

    async fn registered_version(
        &self,
        subject: &str,
        version: i32,
    ) -> Result<Arc<Registered>, RegistryError> {
        check_subject(subject)?;
        let shared = self.shared.clone();
        let name = subject.to_owned();
        let fetch = move || async move {
            let number = version.to_string();
            let query = [("deleted", "true")];
            let request =
                Request { path: &["subjects", &name, "versions", &number], query: &query, body: None };
            shared.fetch(&request, None).await
        };
        self.shared.by_version.get((subject.to_owned(), version), fetch).await
    }

    /// The schema with everything it refers to.
    async fn complete(&self, registered: &Registered, context: &str) -> Result<Arc<Schema>, RegistryError> {
        let mut collected = Collected::default();
        self.collect(&registered.references, context, &mut collected, 1).await?;
        registered.with_references(collected.schemas)
    }

    /// Collects referenced schemas, what is referred to before what refers to it.
    fn collect<'a>(
        &'a self,
        references: &'a [SchemaReference],
        context: &'a str,
        collected: &'a mut Collected,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send + 'a>> {
        Box::pin(async move {
            for reference in references {
                let subject = in_context(&reference.subject, context);
                let key = (subject.clone(), reference.version);
                let place = format!("{} (subject {subject}, version {})", reference.name, reference.version);
                let refuse = |what: &str| {
                    Err(RegistryError::new(
                        RegistryErrorKind::InvalidReferences,
                        format!("the reference {place} {what}"),
                    ))
                };
                if collected.open.contains(&key) {
                    return refuse("refers back to itself");
                }
                if collected.done.contains(&key) {
                    continue;
                }
                if depth > MAX_REFERENCE_DEPTH {
                    return refuse(&format!("is nested deeper than {MAX_REFERENCE_DEPTH} levels"));
                }
                if collected.open.len() + collected.done.len() >= MAX_REFERENCES {
                    return refuse(&format!("is one of more than {MAX_REFERENCES}"));
                }
                let registered = match self.registered_version(&subject, reference.version).await {
                    Ok(registered) => registered,
                    Err(e) => return Err(e.about(format!("the reference {place}"))),
                };
                collected.open.push(key.clone());
                self.collect(&registered.references, context_of(&subject), collected, depth + 1).await?;
                collected.open.pop();
                collected.done.insert(key);
                collected.schemas.push(ReferencedSchema {
                    reference: SchemaReference { subject, ..reference.clone() },
                    text: registered.text.clone(),
                });
            }
            Ok(())
        })
    }
}

#[derive(Default)]
struct Collected {
    /// The path from the root to where the walk is.
    open: Vec<(String, i32)>,
    done: HashSet<(String, i32)>,
    schemas: Vec<ReferencedSchema>,
}

impl Shared {
    async fn fetch(&self, request: &Request<'_>, id: Option<u32>) -> Result<Arc<Registered>, RegistryError> {
        let answer: WireSchema = self.transport.send(request).await?;
        answer.registered(id).map(Arc::new).map_err(|e| RegistryError::new(RegistryErrorKind::Malformed, e))
    }
}

/// The context in front of a subject, as `:.name:`, or nothing for the default context.
fn context_of(subject: &str) -> &str {
    match subject.strip_prefix(":.").and_then(|rest| rest.find(':')) {
        Some(0) | None => "",
        Some(end) => &subject[..end + 3],
    }
}

/// A reference's subject, in the context of the schema that refers to it unless it names its own.
fn in_context(subject: &str, context: &str) -> String {
    if subject.starts_with(":.") || context.is_empty() {
        subject.to_owned()
    } else {
        format!("{context}{subject}")
    }
}

fn check_subject(subject: &str) -> Result<(), RegistryError> {
    // A dot segment would be taken out of the path, and the request would go somewhere else.
    if subject.is_empty() || subject == "." || subject == ".." {
        return Err(RegistryError::new(
            RegistryErrorKind::InvalidArgument,
            format!("{subject:?} is not a subject"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_taken_from_subjects_and_given_to_references() {
        assert_eq!(context_of("orders-value"), "");
        assert_eq!(context_of(":.eu:orders-value"), ":.eu:");
        assert_eq!(context_of(":.eu:"), ":.eu:");
        assert_eq!(context_of(":.:orders-value"), "");
        assert_eq!(context_of(":orders"), "");
        assert_eq!(in_context("common", ":.eu:"), ":.eu:common");
        assert_eq!(in_context(":.us:common", ":.eu:"), ":.us:common");
        assert_eq!(in_context("common", ""), "common");
    }

    #[test]
    fn dot_segments_are_no_subjects() {
        for subject in ["", ".", ".."] {
            assert!(check_subject(subject).is_err());
        }
    }
}
