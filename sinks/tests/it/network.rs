//! What lies between a store and its bucket: TLS, proxies, and servers that answer what they should not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_sinks::fake_gcs::{FakeGcs, Op};
use gristmill_sinks::{Create, ErrorKind, GcsConfig, GcsConfigBuilder, GcsCredentials, GcsStore, Store};
use serde_json::json;

use crate::wire::{Authority, Wire, alone};

fn fake() -> (FakeGcs, std::net::SocketAddr) {
    let gcs = FakeGcs::start();
    gcs.create_bucket("lake");
    let address = gcs.url()["http://".len()..].parse().unwrap();
    (gcs, address)
}

fn settings(url: String) -> GcsConfigBuilder {
    GcsConfig::builder("lake")
        .endpoint(url)
        .credentials(GcsCredentials::Anonymous)
        .upload_part_bytes(256 << 10)
        .retry_pause(Duration::from_millis(5))
}

fn open(settings: GcsConfigBuilder) -> GcsStore {
    GcsStore::open(settings.build().unwrap()).unwrap()
}

fn at(wire: &Wire) -> GcsStore {
    open(settings(format!("http://{}", wire.address)))
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn creates(store: &GcsStore, name: &str) {
    let created = store.create_if_absent(name, "x".into()).await.unwrap();
    assert!(matches!(created, Create::Created(_)), "{name}: {created:?}");
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_by_ca_file_and_else_the_error_names_that() {
    let (gcs, address) = fake();
    let (ours, strangers) = (Authority::new("ours"), Authority::new("strangers"));
    let tls = Wire::tls(&ours, address).await;
    let url = format!("https://{}", tls.address);
    let folder = tempfile::tempdir().unwrap();
    let [trusted, other] = ["ours.pem", "strangers.pem"].map(|name| folder.path().join(name));
    std::fs::write(&trusted, [strangers.pem(), ours.pem()].concat()).unwrap();
    std::fs::write(&other, strangers.pem()).unwrap();

    let store = open(settings(url.clone()).ca_file(&trusted));
    creates(&store, "a").await;
    assert_eq!(&store.get("a").await.unwrap().unwrap().bytes[..], b"x");
    assert!(!tls.heads().is_empty());

    for settings in [settings(url.clone()), settings(url).ca_file(&other)] {
        let begun = Instant::now();
        let error = open(settings).create_if_absent("b", "x".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(
            error.to_string().contains("certificate") && error.to_string().contains("`ca_file`"),
            "{error}"
        );
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not tried again and again");
    }
    assert_eq!(gcs.object_names("lake"), ["a"]);

    std::fs::write(&trusted, "no certificate").unwrap();
    let config = GcsConfig::builder("lake").credentials(GcsCredentials::Anonymous).ca_file(&trusted);
    let error = GcsStore::open(config.build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("ours.pem"), "{error}");
}

/// Set in the child processes of the test below.
const CHILD: &str = "GRISTMILL_TEST_ENDPOINT";

#[tokio::test]
async fn requests_go_through_the_environments_proxy_unless_no_proxy_excepts_the_endpoint() {
    if let Ok(url) = std::env::var(CHILD) {
        let mut settings = settings(url).retry_time(Duration::from_secs(2));
        if let Some(file) = std::env::var_os("GRISTMILL_TEST_CA") {
            settings = settings.ca_file(file);
        }
        let store = open(settings);
        creates(&store, "a").await;
        assert_eq!(&store.get("a").await.unwrap().unwrap().bytes[..], b"x");
        return;
    }
    let name = "network::requests_go_through_the_environments_proxy_unless_no_proxy_excepts_the_endpoint";
    let (gcs, address) = fake();
    let authority = Authority::new("ours");
    let tls = Wire::tls(&authority, address).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ca = ("GRISTMILL_TEST_CA", ca.to_str().unwrap());

    for (to, url, variable, first) in [
        (address, gcs.url(), "HTTP_PROXY", format!("POST http://{address}/upload/storage/v1/b/lake/o?")),
        (tls.address, format!("https://{}", tls.address), "HTTPS_PROXY", format!("CONNECT {} ", tls.address)),
    ] {
        let proxy = Wire::proxy(to).await;
        let at = format!("http://{}", proxy.address);
        alone(name, &[(CHILD, &url), ca, (variable, &at)]).await;
        let heads = proxy.heads();
        assert!(!heads.is_empty() && heads[0].starts_with(&first), "{variable}: {heads:?}");
        assert!(gcs.delete_object("lake", "a"));
        alone(name, &[(CHILD, &url), ca, (variable, &at), ("NO_PROXY", "127.0.0.1")]).await;
        assert_eq!(proxy.heads().len(), heads.len(), "{variable}");
        assert!(gcs.delete_object("lake", "a"));
    }
}

#[tokio::test]
async fn an_upload_that_is_said_to_go_on_at_another_host_is_not_sent_there() {
    let foreign = Wire::answering(vec![answer("200", "", "{}")]).await;
    for host in
        [foreign.address.to_string(), "storage.googleapis.com".into(), "x.googleapis.com.example".into()]
    {
        let session = format!("location: http://{host}/session?upload_id=secret\r\n");
        let server = Wire::answering(vec![answer("200", &session, "")]).await;
        let mut upload = at(&server).stage("staged/a").await.unwrap();
        let error = upload.append(vec![1; 300 << 10].into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.to_string().contains("another host") && error.to_string().contains(&host), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!(server.heads().len(), 1);
    }
    assert!(foreign.heads().is_empty(), "{:?}", foreign.heads());

    // Nor from TLS to none, whatever the host is.
    let (gcs, address) = fake();
    let authority = Authority::new("ours");
    let tls = Wire::tls(&authority, address).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let store = open(settings(format!("https://{}", tls.address)).ca_file(folder.path().join("ca.pem")));
    let mut upload = store.stage("staged/a").await.unwrap();
    let error = upload.append(vec![1; 300 << 10].into()).await.unwrap_err();
    assert!(error.to_string().contains("another host"), "{error}");
    assert_eq!((gcs.requested(Op::ResumableStart), gcs.requested(Op::ResumableChunk)), (1, 0));
}

#[tokio::test]
async fn an_upload_may_go_on_at_an_address_relative_to_the_endpoint() {
    let bytes: Bytes = vec![7; 300 << 10].into();
    let crc = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(crc32c::crc32c(&bytes).to_be_bytes())
    };
    let resource = json!({"name": "staged/a", "generation": "7", "size": "307200", "crc32c": crc});
    let server = Wire::answering(vec![
        answer("200", "location: /upload/storage/v1/b/lake/o?upload_id=5\r\n", ""),
        answer("308", "range: bytes=0-262143\r\n", ""),
        answer("200", "", &resource.to_string()),
    ])
    .await;
    let mut upload = at(&server).stage("staged/a").await.unwrap();
    upload.append(bytes).await.unwrap();
    assert_eq!(upload.finish().await.unwrap().generation.0, 7);
    for head in &server.heads()[1..] {
        assert!(head.starts_with("PUT /upload/storage/v1/b/lake/o?upload_id=5 HTTP/1.1"), "{head}");
    }
}

/// What the service says of an object that is not there.
const GONE: &str =
    r#"{"error": {"code": 404, "message": "No such object", "errors": [{"reason": "notFound"}]}}"#;

#[tokio::test]
async fn redirections_are_not_followed() {
    let foreign = Wire::answering(vec![answer("200", "", "{}")]).await;
    for status in ["301", "302", "307", "308"] {
        let there = format!("location: http://{}/\r\n", foreign.address);
        let server = Wire::answering(vec![answer(status, &there, "")]).await;
        let error = at(&server).create_if_absent("a", "x".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.to_string().contains(status), "{error}");
        assert_eq!(server.heads().len(), 1);
    }
    assert!(foreign.heads().is_empty(), "{:?}", foreign.heads());
}

#[tokio::test]
async fn an_error_of_any_length_is_still_that_error_and_costs_little() {
    let long = "a page of\u{1b}[31m a proxy\r\n".repeat(1 << 20);
    let server = Wire::answering(vec![answer("503", "", &long), answer("404", "", GONE)]).await;
    let store = at(&server);
    assert_eq!(store.stat("a").await.unwrap(), None, "a 503 is tried again");
    assert!(store.counters().bytes_received < 1 << 20, "{:?}", store.counters());

    let server = Wire::answering(vec![answer("403", "", &long)]).await;
    let error = at(&server).stat("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let shown = error.to_string();
    assert!(shown.contains("403") && shown.len() < 600 && !shown.contains(['\n', '\u{1b}']), "{shown}");

    let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{".to_vec();
    let server = Wire::answering(vec![endless]).await;
    let error = at(&server).get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn a_date_in_retry_after_is_waited_for() {
    let at_what = jiff::Timestamp::now() + Duration::from_secs(3);
    let date = at_what.strftime("%a, %d %b %Y %H:%M:%S GMT");
    let server = Wire::answering(vec![
        answer("429", &format!("retry-after: {date}\r\n"), ""),
        answer("404", "", GONE),
    ])
    .await;
    let begun = Instant::now();
    assert_eq!(at(&server).stat("a").await.unwrap(), None);
    let waited = begun.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn answers_that_are_no_http_are_a_store_that_is_away() {
    for nonsense in [&b"no HTTP\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b""] {
        let server = Wire::answering(vec![nonsense.to_vec()]).await;
        let store =
            open(settings(format!("http://{}", server.address)).retry_time(Duration::from_millis(500)));
        assert_eq!(store.get("a").await.unwrap_err().kind(), ErrorKind::Unavailable, "{nonsense:?}");
        let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{nonsense:?}: {error:?}");
        assert!(server.heads().len() > 2);
    }
}
