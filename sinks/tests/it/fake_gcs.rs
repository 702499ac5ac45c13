//! The fake Cloud Storage keeps Google's rules and suffers the faults that were asked for, seen by a plain
//! HTTP client: what tests of the real client stand on.

use std::io::Write;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gristmill_sinks::fake_gcs::{Effect, FakeGcs, On, Op};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

const KIB: usize = 1024;
const QUANTUM: usize = 256 * KIB;
/// Longer than anything that has to come first takes.
const LATER: Duration = Duration::from_secs(1);

struct Caller {
    client: Client,
    url: String,
}

fn start() -> (FakeGcs, Caller) {
    let gcs = FakeGcs::start();
    gcs.create_bucket("b");
    let caller = Caller { client: Client::builder().no_proxy().build().unwrap(), url: gcs.url() };
    (gcs, caller)
}

fn crc(bytes: &[u8]) -> String {
    BASE64.encode(crc32c::crc32c(bytes).to_be_bytes())
}

/// Bytes that differ from place to place.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

impl Caller {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, &format!("/storage/v1/b/b{path}")).send().await.unwrap()
    }

    async fn post(&self, path: &str) -> Response {
        self.request(Method::POST, &format!("/storage/v1/b/b{path}")).send().await.unwrap()
    }

    async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, &format!("/storage/v1/b/b{path}")).send().await.unwrap()
    }

    fn insertion(&self, resource: Value, media: &[u8], query: &str) -> RequestBuilder {
        let mut body = format!(
            "--cut\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{resource}\r\n\
             --cut\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(media);
        body.extend_from_slice(b"\r\n--cut--\r\n");
        self.request(Method::POST, &format!("/upload/storage/v1/b/b/o?uploadType=multipart{query}"))
            .header("content-type", "multipart/related; boundary=cut")
            .body(body)
    }

    /// Creates unless there is such an object.
    async fn create(&self, name: &str, media: &[u8]) -> Response {
        let resource = json!({"name": name, "crc32c": crc(media), "contentType": "text/plain"});
        self.insertion(resource, media, "&ifGenerationMatch=0").send().await.unwrap()
    }

    async fn begin(&self, name: &str) -> String {
        let path = format!("/upload/storage/v1/b/b/o?uploadType=resumable&name={name}&ifGenerationMatch=0");
        let begun = self.request(Method::POST, &path).json(&json!({"metadata": {"k": "v"}})).send().await;
        let begun = begun.unwrap();
        assert_eq!(begun.status(), 200);
        begun.headers()["location"].to_str().unwrap().to_owned()
    }

    fn chunk(&self, session: &str, range: &str, bytes: &[u8]) -> RequestBuilder {
        self.client.put(session).header("content-range", range).body(bytes.to_vec())
    }

    /// Status, and how many bytes the session has.
    async fn persisted(&self, session: &str) -> (u16, usize) {
        status_and_range(self.chunk(session, "bytes */*", b"").send().await.unwrap())
    }
}

fn status_and_range(reply: Response) -> (u16, usize) {
    let range = reply.headers().get("range").map(|range| range.to_str().unwrap());
    let persisted =
        range.map_or(0, |range| range.strip_prefix("bytes=0-").unwrap().parse::<usize>().unwrap() + 1);
    (reply.status().as_u16(), persisted)
}

/// Status and reason, of a reply that carries Google's error body.
async fn refusal(reply: Response) -> (u16, String) {
    let status = reply.status().as_u16();
    let body: Value = reply.json().await.unwrap();
    assert_eq!(body["error"]["code"], status, "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
    (status, body["error"]["errors"][0]["reason"].as_str().unwrap().to_owned())
}

fn number(value: &Value) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_object_is_created_once_and_read_back_with_its_checksum() {
    let (gcs, caller) = start();
    let name = "dir/a b+c%2F\u{e4}.txt";
    let path = "/o/dir%2Fa%20b%2Bc%252F%C3%A4.txt";
    let created: Value = caller.create(name, b"0123456789").await.json().await.unwrap();
    assert_eq!((created["name"].as_str(), created["size"].as_str()), (Some(name), Some("10")));
    assert_eq!(created["crc32c"].as_str(), Some(crc(b"0123456789").as_str()));
    assert_eq!(refusal(caller.create(name, b"other").await).await, (412, "conditionNotMet".into()));
    assert_eq!(gcs.object_names("b"), [name]);
    assert_eq!(&gcs.object("b", name).unwrap().bytes[..], b"0123456789");

    let metadata: Value = caller.get(path).await.json().await.unwrap();
    assert_eq!(metadata, created);
    let media = caller.get(&format!("{path}?alt=media")).await;
    assert_eq!(media.headers()["x-goog-generation"].to_str().unwrap(), created["generation"]);
    assert_eq!(media.headers()["x-goog-hash"], format!("crc32c={}", crc(b"0123456789")));
    assert_eq!(media.headers()["content-length"], "10");
    assert_eq!(&media.bytes().await.unwrap()[..], b"0123456789");

    for (range, status, bytes) in
        [("bytes=2-4", 206, "234"), ("bytes=7-", 206, "789"), ("bytes=-2", 206, "89"), ("bytes=10-", 416, "")]
    {
        let part = caller.request(Method::GET, &format!("/storage/v1/b/b{path}?alt=media"));
        let part = part.header("range", range).send().await.unwrap();
        assert_eq!(part.status().as_u16(), status, "{range}");
        if status == 206 {
            assert!(part.headers()["content-range"].to_str().unwrap().ends_with("/10"));
            assert_eq!(part.text().await.unwrap(), bytes);
        }
    }
    let elsewhere = caller.request(Method::GET, &format!("/download/storage/v1/b/b{path}?alt=media"));
    assert_eq!(elsewhere.send().await.unwrap().text().await.unwrap(), "0123456789");
    // A name that only looks alike is another object.
    assert_eq!(caller.get("/o/dir%2Fa%20b+c%2F%C3%A4.txt").await.status(), 404);
}

#[tokio::test]
async fn what_is_missing_or_malformed_is_said_as_google_says_it() {
    let (_gcs, caller) = start();
    assert_eq!(refusal(caller.get("/o/none").await).await, (404, "notFound".into()));
    // Errors of a download are plain text.
    let missing = caller.get("/o/none?alt=media").await;
    assert_eq!(
        (missing.status().as_u16(), missing.text().await.unwrap()),
        (404, "No such object: b/none".into())
    );
    let elsewhere = caller.request(Method::GET, "/storage/v1/b/none/o").send().await.unwrap();
    assert_eq!(refusal(elsewhere).await, (404, "notFound".into()));

    let wrong = json!({"name": "x", "crc32c": crc(b"other")});
    let wrong = caller.insertion(wrong, b"media", "&ifGenerationMatch=0").send().await.unwrap();
    assert_eq!(refusal(wrong).await.0, 400);
    let unknown =
        caller.insertion(json!({"name": "x"}), b"media", "&ifGenerationMatsch=0").send().await.unwrap();
    assert_eq!(refusal(unknown).await.0, 400);
    for name in ["..", "a\nb", ""] {
        assert_eq!(caller.create(name, b"").await.status(), 400, "{name:?}");
    }
    assert_eq!(caller.get("/o/x").await.status(), 404);
}

#[tokio::test]
async fn a_deletion_hits_the_generation_it_was_meant_for() {
    let (gcs, caller) = start();
    let old = gcs.put_object("b", "a", "old");
    let new = gcs.put_object("b", "a", "new");
    assert!(new > old);
    let stale = caller.delete(&format!("/o/a?ifGenerationMatch={old}")).await;
    assert_eq!(refusal(stale).await, (412, "conditionNotMet".into()));
    assert_eq!(caller.delete(&format!("/o/a?ifGenerationMatch={new}")).await.status(), 204);
    assert_eq!(caller.delete(&format!("/o/a?ifGenerationMatch={new}")).await.status(), 404);
}

#[tokio::test]
async fn a_move_is_atomic_and_keeps_content_and_metadata() {
    let (gcs, caller) = start();
    let resource = json!({"name": "s/1", "metadata": {"rows": "3"}});
    let staged: Value = caller.insertion(resource, b"rows", "").send().await.unwrap().json().await.unwrap();
    let generation = number(&staged["generation"]);
    let path = format!("/o/s%2F1/moveTo/o/f%2F1?ifGenerationMatch=0&ifSourceGenerationMatch={generation}");

    let other = path.replace(&generation.to_string(), "17");
    assert_eq!(refusal(caller.post(&other).await).await, (412, "conditionNotMet".into()));
    gcs.put_object("b", "f/1", "taken");
    assert_eq!(refusal(caller.post(&path).await).await, (412, "conditionNotMet".into()));
    assert_eq!(gcs.object_names("b"), ["f/1", "s/1"]);
    assert!(gcs.delete_object("b", "f/1"));

    let moved: Value = caller.post(&path).await.json().await.unwrap();
    assert_eq!((moved["name"].as_str(), moved["metadata"]["rows"].as_str()), (Some("f/1"), Some("3")));
    assert!(number(&moved["generation"]) > generation);
    assert_eq!(gcs.object_names("b"), ["f/1"]);
    assert_eq!(&gcs.object("b", "f/1").unwrap().bytes[..], b"rows");

    // Gone and taken at once: 404 or 412, both may be true.
    assert_eq!(refusal(caller.post(&path).await).await.0, 404);
    gcs.check_destination_first(true);
    assert_eq!(refusal(caller.post(&path).await).await.0, 412);
    assert_eq!(caller.post("/o/f%2F1/moveTo/o/f%2F1").await.status(), 400);

    gcs.serve_move(false);
    let absent = caller.post("/o/f%2F1/moveTo/o/g").await;
    assert_eq!(absent.status(), 404);
    assert!(absent.json::<Value>().await.is_err());
    assert_eq!(gcs.object_names("b"), ["f/1"]);
}

#[tokio::test]
async fn a_copy_in_several_calls_is_of_one_generation_and_keeps_metadata() {
    let (gcs, caller) = start();
    gcs.set_max_bytes_per_rewrite(4);
    let resource = json!({"name": "s", "metadata": {"rows": "3"}});
    let source: Value =
        caller.insertion(resource, b"0123456789", "").send().await.unwrap().json().await.unwrap();
    let path = format!(
        "/o/s/rewriteTo/b/b/o/d?ifGenerationMatch=0&ifSourceGenerationMatch={}",
        number(&source["generation"])
    );
    let first: Value = caller.post(&path).await.json().await.unwrap();
    assert_eq!((&first["done"], &first["totalBytesRewritten"]), (&json!(false), &json!("4")));
    assert_eq!(gcs.object_names("b"), ["s"]);
    let with = |answer: &Value| format!("{path}&rewriteToken={}", answer["rewriteToken"].as_str().unwrap());
    let second: Value = caller.post(&with(&first)).await.json().await.unwrap();
    assert_eq!(second["totalBytesRewritten"], "8");
    let third: Value = caller.post(&with(&second)).await.json().await.unwrap();
    assert_eq!((&third["done"], &third["resource"]["metadata"]["rows"]), (&json!(true), &json!("3")));
    assert_eq!(&gcs.object("b", "d").unwrap().bytes[..], b"0123456789");
    assert_eq!(caller.post(&with(&second)).await.status(), 400);
    assert_eq!(caller.post(&path).await.status(), 412);

    // Of a source that was replaced between two calls, nothing is copied.
    let other = "/o/s/rewriteTo/b/b/o/e?ifGenerationMatch=0";
    let begun: Value = caller.post(other).await.json().await.unwrap();
    gcs.put_object("b", "s", "replaced");
    let token = begun["rewriteToken"].as_str().unwrap();
    assert_eq!(caller.post(&format!("{other}&rewriteToken={token}")).await.status(), 404);

    gcs.honour_rewrite_preconditions(false);
    gcs.set_max_bytes_per_rewrite(1000);
    assert_eq!(caller.post(&path).await.status(), 200);
    assert_eq!(&gcs.object("b", "d").unwrap().bytes[..], b"replaced");
}

#[tokio::test]
async fn pages_follow_each_other_in_byte_order_of_names() {
    let (gcs, caller) = start();
    for name in ["p/a", "p/B", "p/\u{e4}", "p/a/1", "q", "o"] {
        gcs.put_object("b", name, name);
    }
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page: Value =
            caller.get(&format!("/o?prefix=p%2F&maxResults=3{token}")).await.json().await.unwrap();
        seen.extend(names(&page));
        let Some(next) = page["nextPageToken"].as_str() else { break };
        token = format!("&pageToken={next}");
    }
    assert_eq!(seen, ["p/B", "p/a", "p/a/1", "p/\u{e4}"]);

    // From a name on, that name included.
    let page: Value =
        caller.get("/o?prefix=p%2F&startOffset=p%2Fa&fields=items(name,size)").await.json().await.unwrap();
    assert_eq!(page["items"][0], json!({"name": "p/a", "size": "3"}));
    assert_eq!(names(&page), ["p/a", "p/a/1", "p/\u{e4}"]);
    let page: Value = caller.get("/o?prefix=p%2F&startOffset=z").await.json().await.unwrap();
    assert_eq!(page, json!({"kind": "storage#objects"}));

    gcs.set_max_page(1);
    let page: Value = caller.get("/o?maxResults=100").await.json().await.unwrap();
    assert_eq!((names(&page), page["nextPageToken"].is_string()), (vec!["o".to_owned()], true));
    assert_eq!(caller.get("/o?pageToken=%21").await.status(), 400);
}

#[tokio::test]
async fn a_resumable_upload_goes_on_where_it_stopped() {
    let (gcs, caller) = start();
    let bytes = content(2 * QUANTUM + 5);
    let session = caller.begin("big").await;
    assert_eq!(caller.persisted(&session).await, (308, 0));

    let odd = caller.chunk(&session, "bytes 0-9/*", &bytes[..10]).send().await.unwrap();
    assert_eq!(refusal(odd).await.0, 400);
    let short = caller.chunk(&session, "bytes 0-262143/*", &bytes[..10]).send().await.unwrap();
    assert_eq!(refusal(short).await.0, 400);
    let ahead = caller.chunk(&session, "bytes 262144-524287/*", &bytes[..QUANTUM]).send().await.unwrap();
    assert_eq!(refusal(ahead).await.0, 503);
    assert_eq!(caller.persisted(&session).await, (308, 0));

    let range = "bytes 0-262143/*";
    for _again in 0..2 {
        let first = caller.chunk(&session, range, &bytes[..QUANTUM]).send().await.unwrap();
        assert_eq!(status_and_range(first), (308, QUANTUM));
    }
    assert!(gcs.object("b", "big").is_none());
    // What is there already is skipped, what is new is taken.
    let total = bytes.len();
    let range = format!("bytes 0-{}/{total}", 2 * QUANTUM - 1);
    let second = caller.chunk(&session, &range, &bytes[..2 * QUANTUM]).send().await.unwrap();
    assert_eq!(status_and_range(second), (308, 2 * QUANTUM));
    let range = format!("bytes {}-{}/{total}", 2 * QUANTUM, total - 1);
    let last = caller.chunk(&session, &range, &bytes[2 * QUANTUM..]);
    let last = last.header("x-goog-hash", format!("crc32c={}", crc(&bytes))).send().await.unwrap();
    let done: Value = last.json().await.unwrap();
    assert_eq!((&done["name"], &done["metadata"]["k"]), (&json!("big"), &json!("v")));
    assert_eq!(gcs.object("b", "big").unwrap().bytes, bytes);

    // Whoever lost that reply asks, and gets it.
    let again: Value = caller.chunk(&session, "bytes */*", b"").send().await.unwrap().json().await.unwrap();
    assert_eq!(again, done);
    assert_eq!(gcs.unfinished_uploads(), 0);
}

#[tokio::test]
async fn an_upload_of_unknown_length_ends_when_its_total_is_said() {
    let (gcs, caller) = start();
    let session = caller.begin("empty").await;
    let done = caller.chunk(&session, "bytes */0", b"").send().await.unwrap();
    assert_eq!(done.status(), 200);
    assert!(gcs.object("b", "empty").unwrap().bytes.is_empty());

    let bytes = content(QUANTUM);
    let session = caller.begin("round").await;
    caller.chunk(&session, "bytes 0-262143/*", &bytes).send().await.unwrap();
    let early = caller.chunk(&session, "bytes */262145", b"").send().await.unwrap();
    assert_eq!(status_and_range(early), (308, QUANTUM));
    // A total, once said, stays.
    assert_eq!(caller.chunk(&session, "bytes */262144", b"").send().await.unwrap().status(), 400);

    let session = caller.begin("round").await;
    caller.chunk(&session, "bytes 0-262143/*", &bytes).send().await.unwrap();
    assert_eq!(caller.chunk(&session, "bytes */262144", b"").send().await.unwrap().status(), 200);
    assert_eq!(gcs.object("b", "round").unwrap().bytes, bytes);
    assert_eq!(caller.client.put(caller.begin("whole").await).body("x").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn preconditions_and_checksums_of_an_upload_are_looked_at_when_it_ends() {
    let (gcs, caller) = start();
    let [late, wrong, gone] = [caller.begin("a").await, caller.begin("w").await, caller.begin("g").await];
    gcs.put_object("b", "a", "faster");
    for _again in 0..2 {
        let refused = caller.chunk(&late, "bytes 0-0/1", b"x").send().await.unwrap();
        assert_eq!(refusal(refused).await, (412, "conditionNotMet".into()));
    }
    assert_eq!(&gcs.object("b", "a").unwrap().bytes[..], b"faster");
    let sum = format!("crc32c={}", crc(b"y"));
    let refused = caller.chunk(&wrong, "bytes 0-0/1", b"x").header("x-goog-hash", sum).send().await.unwrap();
    assert_eq!(refusal(refused).await.0, 400);
    assert!(gcs.object("b", "w").is_none());

    for _again in 0..2 {
        assert_eq!(caller.client.delete(&gone).send().await.unwrap().status(), 499);
    }
    assert_eq!(caller.chunk(&gone, "bytes 0-0/1", b"x").send().await.unwrap().status(), 499);
    assert_eq!(gcs.unfinished_uploads(), 0);
    let never = format!("{}/upload/storage/v1/b/b/o?uploadType=resumable&upload_id=999", gcs.url());
    assert_eq!(caller.chunk(&never, "bytes */*", b"").send().await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_at_once_one_wins() {
    let (gcs, caller) = start();
    let caller = std::sync::Arc::new(caller);
    for way in ["create", "move"] {
        for i in 0..16 {
            gcs.put_object("b", &format!("staged{i}"), "x");
        }
        let tasks: Vec<_> = (0..16)
            .map(|i| {
                let caller = caller.clone();
                tokio::spawn(async move {
                    let reply = match way {
                        "create" => caller.create(way, b"x").await,
                        _ => caller.post(&format!("/o/staged{i}/moveTo/o/{way}?ifGenerationMatch=0")).await,
                    };
                    reply.status().as_u16()
                })
            })
            .collect();
        let mut statuses = Vec::new();
        for task in tasks {
            statuses.push(task.await.unwrap());
        }
        assert_eq!(statuses.iter().filter(|&&s| s == 200).count(), 1, "{way}: {statuses:?}");
        assert_eq!(statuses.iter().filter(|&&s| s == 412).count(), 15, "{way}: {statuses:?}");
    }
    assert_eq!(gcs.requested(Op::Move), 16);
}

#[tokio::test]
async fn what_is_retained_is_neither_deleted_nor_moved_nor_replaced() {
    let (gcs, caller) = start();
    gcs.put_object("b", "a", "x");
    gcs.patch_bucket("b", &json!({"retentionPolicy": {"retentionPeriod": "3600"}}));
    let retained = (403, "retentionPolicyNotMet".to_owned());
    assert_eq!(refusal(caller.delete("/o/a").await).await, retained);
    assert_eq!(refusal(caller.post("/o/a/moveTo/o/c").await).await, retained);
    let over = caller.insertion(json!({"name": "a"}), b"y", "").send().await.unwrap();
    assert_eq!(refusal(over).await, retained);
    gcs.put_object("b", "old", "x");
    assert!(gcs.age_object("b", "old", Duration::from_secs(3601)));
    assert_eq!(caller.delete("/o/old").await.status(), 204);
    gcs.patch_bucket("b", &json!({"retentionPolicy": null}));
    assert_eq!(caller.delete("/o/a").await.status(), 204);
}

#[tokio::test]
async fn a_bucket_says_what_it_is_and_callers_have_what_was_granted() {
    let (gcs, caller) = start();
    gcs.patch_bucket("b", &json!({"storageClass": "NEARLINE", "versioning": {"enabled": true}}));
    let bucket: Value = caller.get("").await.json().await.unwrap();
    assert_eq!((&bucket["locationType"], &bucket["storageClass"]), (&json!("region"), &json!("NEARLINE")));
    assert_eq!(bucket["softDeletePolicy"]["retentionDurationSeconds"], "604800");

    let ask = "/iam/testPermissions?permissions=storage.objects.create&permissions=storage.objects.move";
    let all: Value = caller.get(ask).await.json().await.unwrap();
    assert_eq!(all["permissions"], json!(["storage.objects.create", "storage.objects.move"]));
    gcs.grant(Some(&["storage.objects.create"]));
    let some: Value = caller.get(ask).await.json().await.unwrap();
    assert_eq!(some["permissions"], json!(["storage.objects.create"]));
    assert_eq!(caller.create("a", b"x").await.status(), 200);
    assert_eq!(refusal(caller.post("/o/a/moveTo/o/c").await).await, (403, "forbidden".into()));
    assert_eq!(refusal(caller.get("").await).await, (403, "forbidden".into()));
    gcs.grant(Some(&[]));
    let none: Value = caller.get(ask).await.json().await.unwrap();
    assert!(none.get("permissions").is_none());
}

#[tokio::test]
async fn a_token_that_is_not_accepted_any_more_is_refused() {
    let (gcs, caller) = start();
    let with = |token: &str| {
        caller.request(Method::GET, "/storage/v1/b/b/o").header("authorization", format!("Bearer {token}"))
    };
    gcs.accept_tokens(Some(&["old"]));
    assert_eq!(with("old").send().await.unwrap().status(), 200);
    assert_eq!(refusal(caller.get("/o").await).await, (401, "required".into()));
    gcs.accept_tokens(Some(&["new"]));
    let expired = with("old").send().await.unwrap();
    assert!(expired.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    assert_eq!(refusal(expired).await, (401, "authError".into()));
    assert_eq!(with("new").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_full_fake_refuses_and_has_room_again_after_deletions() {
    let (gcs, caller) = start();
    gcs.set_max_bytes(3000);
    assert_eq!(caller.create("a", &[0; 2000]).await.status(), 200);
    assert_eq!(refusal(caller.create("c", &[0; 2000]).await).await.0, 507);
    assert_eq!(caller.create("d", &[0; 4000]).await.status(), 413);
    let session = caller.begin("e").await;
    assert_eq!(caller.chunk(&session, "bytes 0-1999/2000", &[0; 2000]).send().await.unwrap().status(), 507);
    assert_eq!(caller.delete("/o/a").await.status(), 204);
    assert_eq!(caller.create("c", &[0; 2000]).await.status(), 200);
}

#[tokio::test]
async fn a_refused_request_has_no_effect_and_a_lying_one_has() {
    let (gcs, caller) = start();
    gcs.faults().next(Op::Insert, Effect::Status(503));
    gcs.faults().next(Op::Insert, Effect::Throttle { status: 429, retry_after: Duration::from_millis(1500) });
    gcs.faults().next(Op::Insert, Effect::StatusAfter(503));
    assert_eq!(refusal(caller.create("a", b"x").await).await, (503, "backendError".into()));
    let throttled = caller.create("a", b"x").await;
    assert_eq!(throttled.headers()["retry-after"], "2");
    assert_eq!(refusal(throttled).await, (429, "rateLimitExceeded".into()));
    assert!(gcs.object_names("b").is_empty());
    assert_eq!(refusal(caller.create("a", b"x").await).await.0, 503);
    assert_eq!(gcs.object_names("b"), ["a"]);
    assert_eq!(caller.create("a", b"x").await.status(), 412);
    let injected = gcs.faults().injected();
    assert_eq!((injected[&(Op::Insert, "status")], injected[&(Op::Insert, "status after")]), (1, 1));
    assert_eq!(gcs.requested(Op::Insert), 4);
}

#[tokio::test]
async fn a_closed_connection_says_nothing_of_what_was_done() {
    let (gcs, caller) = start();
    let create = |name| caller.insertion(json!({"name": name}), b"x", "&ifGenerationMatch=0").send();
    for (effect, names) in [(Effect::Reset, vec![]), (Effect::DropReply, vec!["a"])] {
        gcs.faults().next(On::Mutating, effect.clone());
        let error = create("a").await.unwrap_err();
        assert!(error.is_request() && error.status().is_none(), "{effect:?}: {error:?}");
        assert_eq!(gcs.object_names("b"), names, "{effect:?}");
    }
    gcs.faults().next(Op::Insert, Effect::CutBody);
    assert!(create("cut").await.is_err());
    assert_eq!(gcs.object_names("b"), ["a"]);
    assert_eq!((gcs.requested(Op::Insert), gcs.faults().pending()), (3, 0));
    assert_eq!(create("c").await.unwrap().status(), 200);
}

#[tokio::test]
async fn of_a_chunk_that_was_cut_a_prefix_is_persisted() {
    let (gcs, caller) = start();
    let bytes = content(8 * QUANTUM);
    let session = caller.begin("big").await;
    gcs.faults().next(Op::ResumableChunk, Effect::CutBody);
    let range = format!("bytes 0-{}/{}", bytes.len() - 1, bytes.len());
    caller.chunk(&session, &range, &bytes).send().await.unwrap_err();
    assert_eq!(caller.persisted(&session).await, (308, 4 * QUANTUM));
    let range = format!("bytes {}-{}/{}", 4 * QUANTUM, bytes.len() - 1, bytes.len());
    gcs.faults().next(Op::ResumableChunk, Effect::DropReply);
    caller.chunk(&session, &range, &bytes[4 * QUANTUM..]).send().await.unwrap_err();
    assert_eq!(gcs.object("b", "big").unwrap().bytes, bytes);
    assert_eq!(caller.persisted(&session).await, (200, 0));
}

#[tokio::test]
async fn of_a_client_that_dies_in_a_chunk_a_prefix_is_persisted() {
    let (gcs, caller) = start();
    let bytes = content(3 * QUANTUM);
    let session = caller.begin("big").await;
    let (address, path) = session.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-range: bytes 0-{}/*\r\ncontent-length: {}\r\n\r\n",
        bytes.len() - 1,
        bytes.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&bytes[..bytes.len() - 1]).unwrap();
    drop(connection);
    until(|| gcs.requested(Op::ResumableChunk) == 1).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while caller.persisted(&session).await != (308, 2 * QUANTUM) {
        assert!(Instant::now() < deadline, "waited for 30 s");
    }
    let rest = format!("bytes {}-{}/{}", 2 * QUANTUM, bytes.len() - 1, bytes.len());
    let done = caller.chunk(&session, &rest, &bytes[2 * QUANTUM..]).send().await.unwrap();
    assert_eq!(done.status(), 200);
    assert_eq!(gcs.object("b", "big").unwrap().bytes, bytes);
}

#[tokio::test]
async fn a_chunk_may_be_persisted_in_part_and_a_precondition_refused_early() {
    let (gcs, caller) = start();
    let bytes = content(2 * QUANTUM);
    let session = caller.begin("big").await;
    gcs.faults().next(Op::ResumableChunk, Effect::PersistPart);
    let range = format!("bytes 0-{}/{}", bytes.len() - 1, bytes.len());
    let part = caller.chunk(&session, &range, &bytes).send().await.unwrap();
    assert_eq!(status_and_range(part), (308, QUANTUM));
    assert_eq!(caller.chunk(&session, &range, &bytes).send().await.unwrap().status(), 200);
    assert_eq!(gcs.object("b", "big").unwrap().bytes, bytes);

    gcs.refuse_uploads_early(true);
    let path = "/upload/storage/v1/b/b/o?uploadType=resumable&name=big&ifGenerationMatch=0";
    let early = caller.request(Method::POST, path).send().await.unwrap();
    assert_eq!(refusal(early).await, (412, "conditionNotMet".into()));
}

#[tokio::test]
async fn a_late_request_meets_the_world_as_it_is_then() {
    let (gcs, caller) = start();
    let generation = gcs.put_object("b", "s", "x");
    gcs.faults().next(Op::Delete, Effect::Late(LATER));
    let path = format!("/storage/v1/b/b/o/s?ifGenerationMatch={generation}");
    caller.request(Method::DELETE, &path).send().await.unwrap_err();
    assert!(gcs.object("b", "s").is_some());
    gcs.put_object("b", "s", "replaced");
    gcs.faults().next(Op::Insert, Effect::Late(LATER));
    caller.insertion(json!({"name": "new"}), b"x", "&ifGenerationMatch=0").send().await.unwrap_err();
    assert_eq!(gcs.object_names("b"), ["s"]);
    until(|| gcs.object_names("b") == ["new", "s"]).await;
    // The deletion was due before that.
    assert_eq!(&gcs.object("b", "s").unwrap().bytes[..], b"replaced");
}

#[tokio::test]
async fn a_delayed_request_is_carried_out_though_its_client_is_gone() {
    let (gcs, caller) = start();
    gcs.faults().next(Op::Insert, Effect::Delay(LATER));
    let from = Instant::now();
    assert_eq!(caller.create("a", b"x").await.status(), 200);
    assert!(from.elapsed() >= LATER);
    gcs.faults().next(Op::Insert, Effect::Delay(LATER));
    let waiting = tokio::spawn(caller.insertion(json!({"name": "c"}), b"x", "").send());
    until(|| gcs.requested(Op::Insert) == 2).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert!(gcs.object("b", "c").is_none());
    until(|| gcs.object("b", "c").is_some()).await;
}

#[tokio::test]
async fn a_download_can_break_off_or_be_corrupt() {
    let (gcs, caller) = start();
    let bytes = content(1000);
    gcs.put_object("b", "a", bytes.clone());
    gcs.faults().next(Op::GetMedia, Effect::Corrupt);
    let media = caller.get("/o/a?alt=media").await;
    assert_eq!(media.headers()["x-goog-hash"], format!("crc32c={}", crc(&bytes)));
    let got = media.bytes().await.unwrap();
    assert_eq!(got.iter().zip(&bytes).filter(|(a, b)| a != b).count(), 1);
    gcs.faults().next(Op::GetMedia, Effect::CutBody);
    let media = caller.get("/o/a?alt=media").await;
    assert_eq!((media.status().as_u16(), media.content_length()), (200, Some(1000)));
    assert!(media.bytes().await.is_err());
    assert_eq!(caller.get("/o/a?alt=media").await.bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn random_faults_come_at_their_rate_and_end_when_cleared() {
    let (gcs, caller) = start();
    gcs.faults().random(3, 0.5, &[Effect::Status(503), Effect::Corrupt]);
    let mut failed = 0;
    for _ in 0..100 {
        failed += u64::from(caller.get("/o").await.status() == 503);
    }
    assert!((25..75).contains(&failed), "{failed}");
    assert_eq!(gcs.faults().injected()[&(Op::List, "status")], failed);
    gcs.faults().clear();
    for _ in 0..20 {
        assert_eq!(caller.get("/o").await.status(), 200);
    }
}

#[tokio::test]
async fn what_has_ended_is_not_there() {
    let (gcs, caller) = start();
    gcs.faults().next(Op::List, Effect::Delay(Duration::from_secs(60)));
    let url = format!("{}/storage/v1/b/b/o", gcs.url());
    let waiting = tokio::spawn(caller.client.get(&url).send());
    until(|| gcs.requested(Op::List) == 1).await;
    let from = Instant::now();
    drop(gcs);
    assert!(from.elapsed() < Duration::from_secs(5));
    assert!(waiting.await.unwrap().is_err());
    assert!(caller.client.get(&url).send().await.unwrap_err().is_connect());
}

/// Waits for what has to become true soon.
async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited for 30 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
