//! A Schema Registry in the process, for tests and demonstrations.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::schema::SchemaReference;

/// A Schema Registry on a port of the loopback interface that really registers and serves schemas.
///
/// It speaks the part of Confluent's REST interface that clients of records need: registering and looking
/// up schemas under subjects, versions, ids, references, contexts in subjects, error bodies with
/// Confluent's codes. One schema has one id, whatever it is registered under. Compatibility is not
/// checked: its level is `NONE`, and it says so when asked. Nothing is stored: it ends with the value.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use gristmill::{EmbeddedRegistry, RegistryConfig, SchemaRegistry, SchemaType};
///
/// let embedded = EmbeddedRegistry::start().await?;
/// let registry = SchemaRegistry::new(RegistryConfig::builder().url(embedded.url()).build()?)?;
/// let id = registry.register("orders-value", &SchemaType::Avro, r#""string""#, &[]).await?.id;
/// assert_eq!(registry.schema_by_id(id).await?.text, r#""string""#);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EmbeddedRegistry {
    address: SocketAddr,
    server: JoinHandle<()>,
}

type Shared = Arc<Mutex<Store>>;

#[derive(Debug, Default)]
struct Store {
    contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Default)]
struct Context {
    /// In the order of their ids, which start at 1.
    schemas: Vec<Registered>,
    /// Ids (not versions) of each subject's versions, which start at 1.
    subjects: BTreeMap<String, Vec<usize>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Registered {
    schema_type: String,
    text: String,
    references: Vec<SchemaReference>,
    rule_set: Option<Value>,
}

impl Registered {
    /// The same for the same schema, as Confluent's registry makes it of what a schema is.
    fn guid(&self) -> Uuid {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let half = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            (seed, &self.schema_type, &self.text).hash(&mut hasher);
            for of in &self.references {
                (&of.name, &of.subject, of.version).hash(&mut hasher);
            }
            self.rule_set.as_ref().map(Value::to_string).hash(&mut hasher);
            hasher.finish()
        };
        Uuid::from_u64_pair(half(0), half(1))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RegisterBody {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<SchemaReference>>,
    #[serde(default)]
    rule_set: Option<Value>,
}

/// An answer of Confluent's shape: status, code, message.
struct Refusal(StatusCode, u32, String);

impl EmbeddedRegistry {
    /// Starts a registry without schemas. Needs a tokio runtime, and serves as long as that runs and the
    /// value lives.
    ///
    /// # Errors
    ///
    /// That of the operating system if no port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let app = router();
        let server = tokio::spawn(async move {
            if let Err(e) = axum::serve(listener, app).await {
                tracing::error!(error = %e, "the embedded schema registry ended");
            }
        });
        Ok(Self { address, server })
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for EmbeddedRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { answer(StatusCode::OK, json!({})) }))
        .route("/config", get(|| async { answer(StatusCode::OK, json!({"compatibilityLevel": "NONE"})) }))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/guids/{guid}", get(by_guid))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(by_version))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatibility))
        .fallback(|| async { Refusal(StatusCode::NOT_FOUND, 404, "HTTP 404 Not Found".into()) })
        .layer(DefaultBodyLimit::max(4 * 1024 * 1024))
        .with_state(Shared::default())
}

async fn register(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let schema = parse(&body)?;
    let (context, name) = split(&subject);
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    for reference in &schema.references {
        let own = reference.subject.starts_with(":.");
        let (their_context, their_subject) = split(&reference.subject);
        let their_context = if own { their_context } else { context };
        let found =
            store.contexts.get(their_context).and_then(|c| c.subjects.get(their_subject)).is_some_and(
                |ids| usize::try_from(reference.version).is_ok_and(|v| (1..=ids.len()).contains(&v)),
            );
        if !found {
            return Err(Refusal(
                StatusCode::UNPROCESSABLE_ENTITY,
                42201,
                format!(
                    "No schema reference found for subject \"{}\" and version {}",
                    reference.subject, reference.version
                ),
            ));
        }
    }
    let context = store.contexts.entry(context.to_owned()).or_default();
    let guid = schema.guid();
    let id = match context.schemas.iter().position(|known| *known == schema) {
        Some(index) => index + 1,
        None => {
            context.schemas.push(schema);
            context.schemas.len()
        }
    };
    let versions = context.subjects.entry(name.to_owned()).or_default();
    if !versions.contains(&id) {
        versions.push(id);
    }
    Ok(answer(StatusCode::OK, json!({"id": id, "guid": guid})))
}

async fn look_up(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let schema = parse(&body)?;
    let (context, name) = split(&subject);
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let context = store.contexts.get(context).ok_or_else(|| no_subject(&subject))?;
    let ids = context.subjects.get(name).ok_or_else(|| no_subject(&subject))?;
    let version = ids
        .iter()
        .position(|&id| context.schemas[id - 1] == schema)
        .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, 40403, "Schema not found".into()))?;
    Ok(version_answer(&subject, context, ids, version))
}

async fn by_id(
    State(store): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let none = || Refusal(StatusCode::NOT_FOUND, 40403, format!("Schema {id} not found"));
    let subject = subject_in(query.as_deref().unwrap_or(""));
    let (context, _) = split(&subject);
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let index = id.parse::<usize>().ok().and_then(|id| id.checked_sub(1)).ok_or_else(none)?;
    let schema = store.contexts.get(context).and_then(|c| c.schemas.get(index)).ok_or_else(none)?;
    Ok(answer(StatusCode::OK, schema_answer(schema)))
}

/// In all contexts: a GUID says what a schema is, not where.
async fn by_guid(State(store): State<Shared>, Path(guid): Path<String>) -> Result<Response, Refusal> {
    let none = || Refusal(StatusCode::NOT_FOUND, 40403, format!("Schema {guid} not found"));
    let asked = guid.parse::<Uuid>().map_err(|_| none())?;
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = store.contexts.values().flat_map(|context| &context.schemas);
    let schema = all.find(|schema| schema.guid() == asked).ok_or_else(none)?;
    Ok(answer(StatusCode::OK, schema_answer(schema)))
}

async fn subjects(State(store): State<Shared>) -> Response {
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let names: Vec<String> = store
        .contexts
        .iter()
        .flat_map(|(context, of)| of.subjects.keys().map(move |name| format!("{context}{name}")))
        .collect();
    answer(StatusCode::OK, json!(names))
}

async fn versions(State(store): State<Shared>, Path(subject): Path<String>) -> Result<Response, Refusal> {
    let (context, name) = split(&subject);
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let ids =
        store.contexts.get(context).and_then(|c| c.subjects.get(name)).ok_or_else(|| no_subject(&subject))?;
    Ok(answer(StatusCode::OK, json!((1..=ids.len()).collect::<Vec<_>>())))
}

async fn by_version(
    State(store): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let (context, name) = split(&subject);
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    let context = store.contexts.get(context).ok_or_else(|| no_subject(&subject))?;
    let ids = context.subjects.get(name).ok_or_else(|| no_subject(&subject))?;
    let index = match version.as_str() {
        "latest" | "-1" => ids.len() - 1,
        number => match number.parse::<i32>() {
            Ok(n) if n > 0 && n as usize <= ids.len() => n as usize - 1,
            Ok(n) if n > 0 => {
                return Err(Refusal(StatusCode::NOT_FOUND, 40402, format!("Version {n} not found.")));
            }
            _ => {
                let message = format!(
                    "The specified version '{number}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
                );
                return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, 42202, message));
            }
        },
    };
    Ok(version_answer(&subject, context, ids, index))
}

/// Of its level, everything that is a schema is compatible.
async fn compatibility(
    store: State<Shared>,
    place: Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refusal> {
    parse(&body)?;
    by_version(store, place).await?;
    Ok(answer(StatusCode::OK, json!({"is_compatible": true, "messages": []})))
}

/// The parameter `subject` of a query, decoded.
fn subject_in(query: &str) -> String {
    let pairs = Url::parse(&format!("http://registry/?{query}"));
    pairs
        .iter()
        .flat_map(|url| url.query_pairs())
        .find(|(name, _)| name == "subject")
        .map_or_else(String::new, |(_, subject)| subject.into_owned())
}

/// Context (as `:.name:`, empty for the default) and the subject's name in it.
fn split(subject: &str) -> (&str, &str) {
    match subject.strip_prefix(":.").and_then(|rest| rest.find(':')) {
        Some(0) => ("", &subject[3..]),
        Some(end) => subject.split_at(end + 3),
        None => ("", subject),
    }
}

fn parse(body: &[u8]) -> Result<Registered, Refusal> {
    let unprocessable = |code, message: String| Refusal(StatusCode::UNPROCESSABLE_ENTITY, code, message);
    let body: RegisterBody = serde_json::from_slice(body)
        .map_err(|e| unprocessable(422, format!("the request is not valid: {e}")))?;
    let schema_type = body.schema_type.filter(|t| !t.is_empty()).unwrap_or_else(|| "AVRO".into());
    let valid = match schema_type.as_str() {
        // What is not an object, a union or a name is no schema; the rest is for whoever reads it.
        "AVRO" => serde_json::from_str::<Value>(&body.schema)
            .is_ok_and(|v| v.is_object() || v.is_array() || v.is_string()),
        "JSON" => serde_json::from_str::<Value>(&body.schema).is_ok_and(|v| v.is_object() || v.is_boolean()),
        "PROTOBUF" => !body.schema.trim().is_empty(),
        other => return Err(unprocessable(422, format!("Invalid schema type {other}"))),
    };
    if !valid {
        return Err(unprocessable(42201, format!("Invalid schema of type {schema_type}")));
    }
    Ok(Registered {
        schema_type,
        text: body.schema,
        references: body.references.unwrap_or_default(),
        rule_set: body.rule_set.filter(|rules| !rules.is_null()),
    })
}

fn no_subject(subject: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, 40401, format!("Subject '{subject}' not found."))
}

fn schema_answer(schema: &Registered) -> Value {
    let mut body = json!({"schema": schema.text, "guid": schema.guid()});
    if schema.schema_type != "AVRO" {
        body["schemaType"] = json!(schema.schema_type);
    }
    if !schema.references.is_empty() {
        body["references"] = json!(schema.references);
    }
    if let Some(rules) = &schema.rule_set {
        body["ruleSet"] = rules.clone();
    }
    body
}

fn version_answer(subject: &str, context: &Context, ids: &[usize], index: usize) -> Response {
    let id = ids[index];
    let mut body = schema_answer(&context.schemas[id - 1]);
    body["subject"] = json!(subject);
    body["version"] = json!(index + 1);
    body["id"] = json!(id);
    answer(StatusCode::OK, body)
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/vnd.schemaregistry.v1+json")], body.to_string())
        .into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        answer(self.0, json!({"error_code": self.1, "message": self.2}))
    }
}
