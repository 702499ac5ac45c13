//! The client against a registry that fails by script, and against the embedded one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use gristmill::{
    EmbeddedRegistry, RegistryConfig, RegistryConfigBuilder, RegistryErrorKind, SchemaReference,
    SchemaRegistry, SchemaType,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

/// One scripted answer.
#[derive(Clone)]
enum Act {
    Json(u16, String),
    With(u16, &'static str, &'static str, String),
    /// Answers once the gate opens.
    Gate(Arc<Semaphore>, String),
    /// Never answers.
    Hang,
}

#[derive(Clone, Default)]
struct Script {
    /// By path and query; the last act of a list is repeated.
    acts: Arc<Mutex<HashMap<String, Vec<Act>>>>,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

struct Scripted {
    url: String,
    script: Script,
}

impl Scripted {
    async fn start() -> Self {
        let script = Script::default();
        let app = Router::new().fallback(serve).with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, script }
    }

    fn on(&self, path: &str, acts: impl IntoIterator<Item = Act>) -> &Self {
        self.script.acts.lock().unwrap().insert(path.into(), acts.into_iter().collect());
        self
    }

    fn requests(&self, path: &str) -> usize {
        self.script.seen.lock().unwrap().iter().filter(|(seen, _)| seen == path).count()
    }

    fn header(&self, name: &str) -> Option<String> {
        let seen = self.script.seen.lock().unwrap();
        seen.last().and_then(|(_, headers)| headers.get(name)).map(|v| v.to_str().unwrap().to_owned())
    }

    fn config(&self) -> RegistryConfigBuilder {
        RegistryConfig::builder()
            .url(&self.url)
            .timeout(Duration::from_secs(5))
            .backoff(Duration::from_millis(1), Duration::from_millis(20))
            .retries(2)
    }

    fn client(&self) -> SchemaRegistry {
        SchemaRegistry::new(self.config().build().unwrap()).unwrap()
    }
}

async fn serve(State(script): State<Script>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    let act = {
        script.seen.lock().unwrap().push((path.clone(), request.headers().clone()));
        let mut acts = script.acts.lock().unwrap();
        match acts.get_mut(&path) {
            None => not_found(),
            Some(acts) if acts.len() > 1 => acts.remove(0),
            Some(acts) => acts[0].clone(),
        }
    };
    match act {
        Act::Json(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Act::With(status, name, value, body) => {
            (StatusCode::from_u16(status).unwrap(), [(name, value)], body).into_response()
        }
        Act::Gate(gate, body) => {
            let _open = gate.acquire().await.unwrap();
            body.into_response()
        }
        Act::Hang => std::future::pending().await,
    }
}

/// A server that answers every request with white space for ever, without saying how much it will be.
async fn endless() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
                while stream.write_all(&[b' '; 65536]).await.is_ok() {}
            });
        }
    });
    url
}

fn ok(text: &str) -> Act {
    Act::Json(200, serde_json::json!({"schema": text}).to_string())
}

fn version(id: u32, text: &str, references: serde_json::Value) -> Act {
    Act::Json(
        200,
        serde_json::json!({"subject": "s", "version": 1, "id": id, "schema": text, "references": references})
            .to_string(),
    )
}

fn not_found() -> Act {
    Act::Json(404, r#"{"error_code":40403,"message":"Schema 7 not found"}"#.into())
}

fn fail(status: u16) -> Act {
    Act::Json(status, format!(r#"{{"error_code":{status}01,"message":"scripted"}}"#))
}

/// Asks until the answer is what is wanted, for at most ten seconds.
async fn until<T, F: Future<Output = T>>(mut ask: impl FnMut() -> F, wanted: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask().await;
        if wanted(&answer) || Instant::now() > end {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

const BY_ID: &str = "/schemas/ids/7";
const LATEST: &str = "/subjects/orders-value/versions/latest";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_look_ups_at_once_are_one_request() {
    let registry = Scripted::start().await;
    let gate = Arc::new(Semaphore::new(0));
    registry.on(BY_ID, [Act::Gate(gate.clone(), r#"{"schema":"\"string\""}"#.into())]);
    let client = registry.client();
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.schema_by_id(7).await })
        })
        .collect();
    until(|| async { registry.requests(BY_ID) }, |&n| n > 0).await;
    gate.add_permits(500);
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().text, r#""string""#);
    }
    client.schema_by_id(7).await.unwrap();
    assert_eq!(registry.requests(BY_ID), 1);
}

#[tokio::test]
async fn a_schema_registered_late_is_found_and_not_found_is_no_flood() {
    let registry = Scripted::start().await;
    registry.on(BY_ID, [not_found(), ok("\"int\"")]);
    let config = registry.config().not_found_ttl(Duration::from_millis(200)).build().unwrap();
    let client = SchemaRegistry::new(config).unwrap();
    let started = Instant::now();
    let error = client.schema_by_id(7).await.unwrap_err();
    for _ in 0..100 {
        if client.schema_by_id(7).await.is_ok() {
            break;
        }
    }
    if started.elapsed() < Duration::from_millis(200) {
        assert_eq!(registry.requests(BY_ID), 1, "what is not there is not asked for again at once");
    }
    assert_eq!(error.kind(), RegistryErrorKind::NotFound);
    assert_eq!((error.status(), error.registry_code()), (Some(404), Some(40403)));
    assert_eq!(
        error.to_string(),
        format!(
            "schema registry {}: schema id 7: Schema 7 not found (status 404, registry error 40403); check that this is the registry, and the context, that the producer registers with",
            registry.url
        )
    );
    let found = until(|| client.schema_by_id(7), Result::is_ok).await.unwrap();
    assert_eq!(found.text, "\"int\"");
}

#[tokio::test]
async fn failures_in_passing_are_retried_and_never_remembered() {
    let registry = Scripted::start().await;
    for status in [500, 502, 503, 429] {
        let path = format!("/schemas/ids/{status}");
        registry.on(&path, [fail(status), fail(status), ok("\"int\"")]);
        registry.client().schema_by_id(status.into()).await.unwrap();
        assert_eq!(registry.requests(&path), 3);

        // More failures than tries: an error, and the next look-up asks again.
        let path = format!("/schemas/ids/1{status}");
        registry.on(&path, [fail(status), fail(status), fail(status), ok("\"int\"")]);
        let client = registry.client();
        let error = client.schema_by_id((1000 + status).into()).await.unwrap_err();
        assert!(error.is_retryable() && error.status() == Some(status), "{error:?}");
        client.schema_by_id((1000 + status).into()).await.unwrap();
    }
}

#[tokio::test]
async fn refusals_are_neither_retried_nor_remembered() {
    let registry = Scripted::start().await;
    for (status, kind) in [(401, RegistryErrorKind::Unauthenticated), (403, RegistryErrorKind::Unauthorized)]
    {
        let path = format!("/schemas/ids/{status}");
        registry.on(&path, [fail(status), ok("\"int\"")]);
        let client = registry.client();
        let error = client.schema_by_id(status.into()).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, false));
        assert_eq!(registry.requests(&path), 1);
        client.schema_by_id(status.into()).await.unwrap();
    }
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let registry = Scripted::start().await;
    registry.on(BY_ID, [Act::With(429, "retry-after", "1", "slow down".into()), ok("\"int\"")]);
    let config = registry.config().backoff(Duration::from_millis(1), Duration::from_secs(5)).build().unwrap();
    let started = Instant::now();
    SchemaRegistry::new(config).unwrap().schema_by_id(7).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_silent_registry_ends_in_a_timeout() {
    let registry = Scripted::start().await;
    registry.on(BY_ID, [Act::Hang]);
    let config = registry.config().timeout(Duration::from_secs(1)).retries(1).build().unwrap();
    let error = SchemaRegistry::new(config).unwrap().schema_by_id(7).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (RegistryErrorKind::TimedOut, true));
    assert_eq!(registry.requests(BY_ID), 2);
}

#[tokio::test]
async fn the_next_url_is_tried_and_kept_while_it_answers() {
    let (broken, good) = (Scripted::start().await, Scripted::start().await);
    // A port that was free a moment ago: nothing listens there.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    broken.on(BY_ID, [fail(503)]);
    good.on(BY_ID, [ok("\"int\"")]).on("/schemas/ids/8", [ok("\"int\"")]);
    let config = RegistryConfig::builder()
        .urls([nobody.as_str(), broken.url.as_str(), good.url.as_str()])
        .retries(0)
        .build()
        .unwrap();
    let client = SchemaRegistry::new(config).unwrap();
    client.schema_by_id(7).await.unwrap();
    client.schema_by_id(8).await.unwrap();
    assert_eq!((broken.requests(BY_ID), broken.requests("/schemas/ids/8")), (1, 0));

    let nowhere = RegistryConfig::builder().url(&nobody).retries(0).build().unwrap();
    let error = SchemaRegistry::new(nowhere).unwrap().schema_by_id(7).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Unreachable);
    assert!(error.to_string().contains(&format!("{nobody}: schema id 7: ")), "{error}");
}

#[tokio::test]
async fn answers_that_are_not_a_registrys_are_said_to_be_so() {
    let registry = Scripted::start().await;
    registry.on(BY_ID, [Act::Json(200, "<html>welcome, secret-session</html>".into()), ok("\"int\"")]);
    let client = registry.client();
    let error = client.schema_by_id(7).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Malformed);
    assert!(
        error.to_string().contains("not of a proxy or a web page") && !error.to_string().contains("secret"),
        "{error}"
    );
    client.schema_by_id(7).await.unwrap();

    registry.on("/schemas/ids/8", [Act::Json(404, "<html>404</html>".into())]);
    let error = client.schema_by_id(8).await.unwrap_err();
    assert_eq!((error.kind(), error.registry_code()), (RegistryErrorKind::NotFound, None));
}

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    let registry = Scripted::start().await;
    registry.on(BY_ID, [ok(&"x".repeat(100_000))]);
    for url in [registry.url.clone(), endless().await] {
        let config = RegistryConfig::builder().url(url).max_response_bytes(65_536).build().unwrap();
        let error = SchemaRegistry::new(config).unwrap().schema_by_id(7).await.unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::TooLarge, "{error}");
    }
}

#[tokio::test]
async fn latest_is_asked_again_after_its_time_and_stale_while_the_registry_fails() {
    let registry = Scripted::start().await;
    registry.on(LATEST, [version(1, "\"int\"", serde_json::json!([])), fail(500)]);
    let config = registry
        .config()
        .retries(0)
        .latest_ttl(Duration::from_millis(50))
        .not_found_ttl(Duration::from_millis(1))
        .build()
        .unwrap();
    let client = SchemaRegistry::new(config).unwrap();
    assert_eq!(client.latest("orders-value").await.unwrap().id, 1);
    // The registry fails: what it said before is good enough.
    let stale = until(
        || async {
            let answer = client.latest("orders-value").await;
            (answer, registry.requests(LATEST))
        },
        |(_, requests)| *requests >= 3,
    )
    .await;
    assert_eq!(stale.0.unwrap().id, 1);
    registry.on(LATEST, [version(2, "\"long\"", serde_json::json!([]))]);
    let fresh =
        until(|| client.latest("orders-value"), |s| s.as_ref().is_ok_and(|s| s.id == 2)).await.unwrap();
    assert_eq!((fresh.text.as_str(), fresh.version), ("\"long\"", Some(1)));
    // "It is gone" is an answer, not a failure.
    registry.on(LATEST, [not_found()]);
    let gone = until(|| client.latest("orders-value"), Result::is_err).await;
    assert_eq!(gone.unwrap_err().kind(), RegistryErrorKind::NotFound);
}

#[tokio::test]
async fn references_come_along_each_once_and_in_the_order_they_need() {
    let registry = Scripted::start().await;
    let refer = |names: &[&str]| -> serde_json::Value {
        names
            .iter()
            .map(|n| serde_json::json!({"name": format!("t.{n}"), "subject": n, "version": 1}))
            .collect()
    };
    let main = serde_json::json!({"schema": "main", "references": refer(&["a", "b"])}).to_string();
    registry
        .on(BY_ID, [Act::Json(200, main)])
        .on("/subjects/a/versions/1?deleted=true", [version(2, "A", refer(&["c"]))])
        .on("/subjects/b/versions/1?deleted=true", [version(3, "B", refer(&["c", "a"]))])
        .on("/subjects/c/versions/1?deleted=true", [version(4, "C", refer(&[]))]);
    let schema = registry.client().schema_by_id(7).await.unwrap();
    assert_eq!(schema.referenced_texts().collect::<Vec<_>>(), ["C", "A", "B"]);
    assert_eq!(registry.requests("/subjects/c/versions/1?deleted=true"), 1);

    // A circle, a missing one, and one in another context.
    registry.on("/subjects/c/versions/1?deleted=true", [version(4, "C", refer(&["b"]))]);
    let error = registry.client().schema_by_id(7).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::InvalidReferences);
    assert!(error.to_string().contains("schema id 7: the reference t."), "{error}");
    registry.on("/subjects/c/versions/1?deleted=true", [not_found()]);
    let error = registry.client().schema_by_id(7).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::NotFound);
    assert_eq!(error.asked(), Some("the reference t.c (subject c, version 1)"));
}

#[tokio::test]
async fn references_without_end_are_cut_off() {
    let registry = Scripted::start().await;
    for i in 0..40 {
        let next = serde_json::json!([{"name": "n", "subject": format!("s{}", i + 1), "version": 1}]);
        registry.on(&format!("/subjects/s{i}/versions/1?deleted=true"), [version(i, "x", next)]);
    }
    let error = registry.client().version("s0", 1).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::InvalidReferences);
    assert!(error.to_string().contains("deeper than 16"), "{error}");
}

#[tokio::test]
async fn credentials_are_sent_and_subjects_escaped() {
    let registry = Scripted::start().await;
    let path = "/base/subjects/:.eu:a%2Fb%20c%3F/versions/latest";
    registry.on(path, [version(1, "\"int\"", serde_json::json!([]))]);
    let builder = RegistryConfig::builder().url(format!("{}/base/", registry.url)).retries(0);
    let client = SchemaRegistry::new(builder.clone().basic_auth("me", "pass:word").build().unwrap()).unwrap();
    client.latest(":.eu:a/b c?").await.unwrap();
    assert_eq!(registry.header("authorization").as_deref(), Some("Basic bWU6cGFzczp3b3Jk"));
    assert!(!format!("{client:?}").contains("pass:word"));
    let client = SchemaRegistry::new(builder.bearer_token("tok3n").build().unwrap()).unwrap();
    client.latest(":.eu:a/b c?").await.unwrap();
    assert_eq!(registry.header("authorization").as_deref(), Some("Bearer tok3n"));
    assert!(!format!("{client:?}").contains("tok3n"));
    let error = client.latest("nothing").await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("tok3n"));
}

#[tokio::test]
async fn compatibility_is_asked_of_the_latest_version_and_errors_say_their_subject() {
    let registry = Scripted::start().await;
    let path = "/compatibility/subjects/orders/versions/latest?verbose=true";
    registry.on(
        path,
        [
            Act::Json(200, r#"{"is_compatible": false, "messages": ["a field is gone"]}"#.into()),
            Act::Json(200, r#"{"is_compatible": true}"#.into()),
        ],
    );
    let client = registry.client();
    let answer = client.compatibility("orders", &SchemaType::Avro, "\"int\"", &[]).await.unwrap();
    assert!(!answer.is_compatible);
    assert_eq!(answer.messages, ["a field is gone"]);
    let answer = client.compatibility("orders", &SchemaType::Avro, "\"int\"", &[]).await.unwrap();
    assert!(answer.is_compatible && answer.messages.is_empty());
    let error = client.compatibility("nobody", &SchemaType::Avro, "\"int\"", &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (RegistryErrorKind::NotFound, Some("nobody")));
    assert_eq!(client.latest("nobody").await.unwrap_err().subject(), Some("nobody"));
}

#[tokio::test]
async fn ids_are_looked_up_in_their_context() {
    let registry = Scripted::start().await;
    registry.on(BY_ID, [ok("\"int\"")]).on("/schemas/ids/7?subject=%3A.eu%3A", [ok("\"long\"")]);
    let client = registry.client();
    assert_eq!(client.schema_by_id(7).await.unwrap().text, "\"int\"");
    assert_eq!(client.schema_by_id_in(":.eu:orders-value", 7).await.unwrap().text, "\"long\"");
}

#[tokio::test]
async fn rules_that_readers_must_run_fail_loudly_every_time() {
    let registry = Scripted::start().await;
    let rules = |mode: &str| {
        let body = serde_json::json!({"schema": "\"int\"", "ruleSet": {"domainRules": [
            {"name": "mask", "kind": "TRANSFORM", "mode": mode, "type": "CEL_FIELD"}]}});
        Act::Json(200, body.to_string())
    };
    registry.on(BY_ID, [rules("READ")]).on("/schemas/ids/8", [rules("WRITE")]);
    let client = registry.client();
    for _ in 0..2 {
        let error = client.schema_by_id(7).await.unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::UnsupportedRules);
        assert!(
            error.to_string().contains("schema id 7: the schema has the rule mask of mode READ"),
            "{error}"
        );
    }
    client.schema_by_id(8).await.unwrap();
}

#[tokio::test]
async fn the_embedded_registry_registers_and_serves() {
    let embedded = EmbeddedRegistry::start().await.unwrap();
    let config =
        RegistryConfig::builder().url(embedded.url()).not_found_ttl(Duration::from_secs(60)).build().unwrap();
    let client = SchemaRegistry::new(config).unwrap();

    let error = client.latest("orders-value").await.unwrap_err();
    assert_eq!(error.registry_code(), Some(40401));
    assert_eq!(client.schema_by_id(1).await.unwrap_err().registry_code(), Some(40403));

    let address = r#"{"type":"record","name":"c.Address","fields":[]}"#;
    let order = r#"{"type":"record","name":"Order","fields":[{"name":"a","type":"c.Address"}]}"#;
    let reference = SchemaReference { name: "c.Address".into(), subject: "address".into(), version: 1 };
    let refused =
        client.register("orders-value", &SchemaType::Avro, order, std::slice::from_ref(&reference)).await;
    assert_eq!(refused.unwrap_err().kind(), RegistryErrorKind::InvalidSchema);

    let a = client.register("address", &SchemaType::Avro, address, &[]).await.unwrap().id;
    let o = client
        .register("orders-value", &SchemaType::Avro, order, std::slice::from_ref(&reference))
        .await
        .unwrap()
        .id;
    assert_eq!((a, o), (1, 2));
    // Registered by this client: what it remembered about them is gone at once.
    assert_eq!(client.schema_by_id(1).await.unwrap().text, address);
    let latest = client.latest("orders-value").await.unwrap();
    assert_eq!((latest.id, latest.version), (2, Some(1)));
    assert_eq!(latest.referenced_texts().collect::<Vec<_>>(), [address]);

    // The same schema again, and elsewhere, is the same id; another one is a new version.
    assert_eq!(client.register("other", &SchemaType::Avro, address, &[]).await.unwrap().id, 1);
    assert_eq!(client.register("address", &SchemaType::Avro, address, &[]).await.unwrap().id, 1);
    assert_eq!(client.register("address", &SchemaType::Avro, "\"int\"", &[]).await.unwrap().id, 3);
    assert_eq!(client.latest("address").await.unwrap().version, Some(2));
    assert_eq!(client.version("address", 3).await.unwrap_err().registry_code(), Some(40402));
    assert_eq!(
        client.register("bad", &SchemaType::Avro, "{", &[]).await.unwrap_err().registry_code(),
        Some(42201)
    );

    // A context counts by itself.
    let eu = client.register(":.eu:orders-value", &SchemaType::Avro, "\"long\"", &[]).await.unwrap().id;
    assert_eq!(eu, 1);
    assert_eq!(client.schema_by_id_in(":.eu:", 1).await.unwrap().text, "\"long\"");
    assert_eq!(client.latest(":.eu:orders-value").await.unwrap().text, "\"long\"");
}

/// Why this client is our own: the crate of that name remembers a passing failure for ever.
#[tokio::test]
async fn schema_registry_converter_never_recovers_from_a_passing_failure() {
    use schema_registry_converter::async_impl::avro::AvroDecoder;
    use schema_registry_converter::async_impl::schema_registry::SrSettings;

    let registry = Scripted::start().await;
    let theirs = "/schemas/ids/7?deleted=true";
    registry.on(theirs, [fail(500), ok("\"int\"")]).on(BY_ID, [fail(500), ok("\"int\"")]);
    let decoder = AvroDecoder::new(SrSettings::new(registry.url.clone()));
    let value = [0, 0, 0, 0, 7, 2];
    for _ in 0..5 {
        let answer = decoder.decode(Some(&value)).await;
        assert!(answer.is_err(), "the crate has got better: look at it again");
    }
    assert_eq!(registry.requests(theirs) + registry.requests(BY_ID), 1, "it did not even ask again");

    // The same failure, and the same question again, here.
    registry.on(BY_ID, [fail(500), ok("\"int\"")]);
    let ours = SchemaRegistry::new(registry.config().retries(0).build().unwrap()).unwrap();
    assert!(ours.schema_by_id(7).await.is_err());
    assert_eq!(ours.schema_by_id(7).await.unwrap().text, "\"int\"");
}

#[tokio::test]
async fn schemas_are_found_by_their_guid_and_by_what_they_are() {
    let registry = Scripted::start().await;
    let guid = "89791762-2336-4186-9674-299b90a802e2";
    let path = format!("/schemas/guids/{guid}");
    registry.on(
        &path,
        [Act::Json(200, r#"{"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"}"#.into())],
    );
    let client = SchemaRegistry::new(RegistryConfig::builder().url(&registry.url).build().unwrap()).unwrap();
    for _ in 0..2 {
        let found = client.schema_by_guid(guid).await.unwrap();
        assert_eq!((found.id, &found.schema_type), (0, &SchemaType::Protobuf));
    }
    assert_eq!(registry.requests(&path), 1);
    let error = client.schema_by_guid("../subjects").await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::InvalidArgument);

    let embedded = EmbeddedRegistry::start().await.unwrap();
    let client = SchemaRegistry::new(RegistryConfig::builder().url(embedded.url()).build().unwrap()).unwrap();
    let known = client.register("s", &SchemaType::Avro, "\"string\"", &[]).await.unwrap();
    assert_eq!(client.id_of("s", &SchemaType::Avro, "\"string\"", &[]).await.unwrap(), known);
    let error = client.id_of("s", &SchemaType::Avro, "\"long\"", &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.subject()), (RegistryErrorKind::NotFound, Some("s")));
    let error = client.schema_by_guid(guid).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::NotFound);
}
