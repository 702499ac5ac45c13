//! A Google Cloud Storage in the process, for tests: the part of its JSON API that an exactly-once sink
//! needs, with scripted faults.
//!
//! Preconditions, generations, checksums, resumable uploads, moves, copies in several calls, retention and
//! pages follow Google's documentation; a parameter that is not known here is refused rather than ignored.
//! Nothing is stored: everything ends with the [`FakeGcs`].
//!
//! ```
//! use std::time::Duration;
//!
//! use gristmill_sinks::fake_gcs::{Effect, FakeGcs, On, Op};
//!
//! let gcs = FakeGcs::start();
//! gcs.create_bucket("lake");
//! println!("point a client, or a process, to {}", gcs.url());
//!
//! // The next deletion is carried out, but nobody hears of it. The third change from now on gets a lying 503.
//! gcs.faults().next(Op::Delete, Effect::DropReply);
//! gcs.faults().nth(On::Mutating, 3, Effect::StatusAfter(503));
//! // And about every tenth request suffers something, the same for the same seed.
//! gcs.faults().random(7, 0.1, &[Effect::Reset, Effect::Late(Duration::from_secs(1))]);
//! assert!(gcs.object_names("lake").is_empty());
//! ```

mod aws;
mod copies;
mod faults;
mod objects;
mod reply;
mod routes;
mod server;
mod tokens;
mod uploads;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use self::objects::{Bucket, Draft, Place};
use self::server::Shared;

pub use self::faults::{Effect, Faults, On, Op};
pub use self::tokens::TokenKind;

/// A Cloud Storage on a port of the loopback interface, on a thread and a runtime of its own.
///
/// Every request happens at one moment, under one lock: of any number of requests that create one name, one
/// wins. Methods may be called from any thread, also inside of another runtime, and change what requests
/// see from then on. Dropping it closes the port and every connection, and waits for that.
#[derive(Debug)]
pub struct FakeGcs {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What tests see of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FakeObject {
    /// The content.
    pub bytes: Bytes,
    /// Which incarnation.
    pub generation: i64,
    /// CRC-32C (Castagnoli) of the content.
    pub crc32c: u32,
    /// Custom metadata.
    pub metadata: BTreeMap<String, String>,
}

impl FakeGcs {
    /// Starts an empty one; any caller may do anything until told otherwise.
    ///
    /// # Panics
    /// If the machine has no port or thread left.
    pub fn start() -> FakeGcs {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback interface");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let shared = Arc::new(Shared::new(format!("http://{address}")));
        let (stop, stopped) = oneshot::channel();
        let serving = shared.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
                server::serve(listener, serving, stopped).await;
            });
        };
        let thread = std::thread::Builder::new().name("fake-gcs".into()).spawn(serve).expect("a thread");
        FakeGcs { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:{port}`, without a slash at the end.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Creates an empty bucket in one region with uniform access and Google's default of seven days of soft
    /// deletion. One of that name is replaced.
    pub fn create_bucket(&self, name: &str) {
        let mut state = self.shared.state();
        if let Some(old) = state.buckets.insert(name.to_owned(), Bucket::new(name)) {
            state.release(old.objects.values().map(|o| o.bytes.len() as u64).sum());
        }
    }

    /// Changes a bucket's metadata; a JSON merge patch (RFC 7396), so `null` removes.
    ///
    /// Of it, `retentionPolicy` is enforced, `storageClass` is inherited by objects, and the rest is shown.
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn patch_bucket(&self, name: &str, patch: &Value) {
        let mut state = self.shared.state();
        merge(&mut state.buckets.get_mut(name).expect("the bucket was created").metadata, patch);
    }

    /// The names in a bucket, in byte order; none if there is no such bucket.
    pub fn object_names(&self, bucket: &str) -> Vec<String> {
        let state = self.shared.state();
        state.buckets.get(bucket).map_or_else(Vec::new, |b| b.objects.keys().cloned().collect())
    }

    /// An object, if there is one.
    pub fn object(&self, bucket: &str, name: &str) -> Option<FakeObject> {
        let state = self.shared.state();
        let object = state.buckets.get(bucket)?.objects.get(name)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(FakeObject {
            bytes: object.bytes.clone(),
            generation: object.generation,
            crc32c: object.crc32c,
            metadata: object.draft.metadata.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        })
    }

    /// Puts an object there as somebody else would, over one that is there; gives its generation.
    ///
    /// # Panics
    /// If there is no such bucket, the name is none, or the fake is full.
    pub fn put_object(&self, bucket: &str, name: &str, bytes: impl Into<Bytes>) -> i64 {
        let (place, bytes) = (Place { bucket: bucket.into(), name: name.into() }, bytes.into());
        let mut state = self.shared.state();
        state.reserve(bytes.len() as u64).expect("room in the fake");
        state.put(&place, Draft::default(), bytes, None).expect("a bucket and a valid name");
        state.object(&place, None).expect("it was put there").generation
    }

    /// Deletes an object as a user would, whatever retains it; says whether there was one.
    pub fn delete_object(&self, bucket: &str, name: &str) -> bool {
        let mut state = self.shared.state();
        let removed = state.buckets.get_mut(bucket).and_then(|b| b.objects.remove(name));
        let freed = removed.as_ref().map_or(0, |object| object.bytes.len() as u64);
        state.release(freed);
        removed.is_some()
    }

    /// Makes an object that much older than it is; says whether there is one.
    pub fn age_object(&self, bucket: &str, name: &str, by: Duration) -> bool {
        let mut state = self.shared.state();
        let object = state.buckets.get_mut(bucket).and_then(|b| b.objects.get_mut(name));
        let aged = object.and_then(|o| o.created.checked_sub(by).map(|created| o.created = created).ok());
        aged.is_some()
    }

    /// How many requests came for each operation, also those that suffered a fault.
    pub fn requests(&self) -> BTreeMap<Op, u64> {
        self.shared.requests().clone()
    }

    /// How many requests came for one operation.
    pub fn requested(&self, op: Op) -> u64 {
        self.shared.requests().get(&op).copied().unwrap_or(0)
    }

    /// The headers `Authorization` that came for one operation, in order; of very many, the last ones.
    pub fn authorizations(&self, op: Op) -> Vec<String> {
        self.shared.authorizations().get(&op).into_iter().flatten().cloned().collect()
    }

    /// How many resumable uploads are neither finished nor refused nor cancelled.
    pub fn unfinished_uploads(&self) -> usize {
        self.shared.state().uploads.unfinished()
    }

    /// The bearer tokens that are accepted from now on; every other, and none at all, is answered with 401.
    /// `None` accepts anything, also anonymous callers, unless issued tokens are required.
    pub fn accept_tokens(&self, tokens: Option<&[&str]>) {
        let tokens = tokens.map(|tokens| tokens.iter().map(|&token| token.to_owned()).collect());
        self.shared.state().tokens.accepted = tokens;
    }

    /// Whether the object API wants a live token that one of the token services of this server issued (or
    /// one of [`accept_tokens`](Self::accept_tokens)).
    ///
    /// Token services are served under their own paths: `/v1/token` (Google's token exchange),
    /// `/v1/projects/-/serviceAccounts/{email}:generateAccessToken`, `/token` (OAuth, refresh tokens), the
    /// metadata server of Google Compute Engine, `/latest/..` (EC2's metadata, version 2) and
    /// `/v2/credentials/{id}` (ECS). An AWS subject token is verified: its signature, its audience, and for a
    /// temporary key (`ASIA..`) that its session is live. Of any other access key `X`, as a test may put in
    /// the environment, the secret is `secret-of-X`.
    pub fn require_issued_tokens(&self, required: bool) {
        self.shared.state().tokens.requires_issued = required;
    }

    /// How long tokens that are issued from now on live, and are said to live; an hour unless set.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.state().tokens.lifetime = lifetime;
    }

    /// How far the clock of the service that impersonates is behind: what it issues seems to have expired.
    pub fn set_clock_behind(&self, by: Duration) {
        self.shared.state().tokens.behind = by;
    }

    /// From now on no token issued so far is good, whatever lifetime its holder was told.
    pub fn expire_issued_tokens(&self) {
        self.shared.state().tokens.expire();
    }

    /// The tokens of a kind that were issued, in order.
    pub fn issued_tokens(&self, kind: TokenKind) -> Vec<String> {
        self.shared.state().tokens.issued(kind)
    }

    /// The permissions that every caller has, such as `storage.objects.create`; what needs another is
    /// answered with 403. `None` is all of them.
    pub fn grant(&self, permissions: Option<&[&str]>) {
        let permissions = permissions.map(|granted| granted.iter().map(|&p| p.to_owned()).collect());
        self.shared.state().rules.permissions = permissions;
    }

    /// Bytes of objects and unfinished uploads that the fake holds at most, 2 GiB unless set; what would
    /// be more is answered with 507. A request body has this bound too.
    pub fn set_max_bytes(&self, bytes: u64) {
        self.shared.state().rules.max_bytes = bytes;
    }

    /// Objects on a page of a listing at most, whatever is asked for; 1000 unless set, as Google's.
    ///
    /// # Panics
    /// If it is 0.
    pub fn set_max_page(&self, objects: usize) {
        assert!(objects > 0, "a page without objects never ends");
        self.shared.state().rules.max_page = objects;
    }

    /// Bytes that one call of a copy copies at most; all of them unless set.
    ///
    /// # Panics
    /// If it is 0.
    pub fn set_max_bytes_per_rewrite(&self, bytes: u64) {
        assert!(bytes > 0, "a copy of nothing never ends");
        self.shared.state().rules.max_bytes_per_rewrite = bytes;
    }

    /// Whether moves are served; if not, they are answered as by a server that has no such route.
    pub fn serve_move(&self, served: bool) {
        self.shared.state().rules.serves_move = served;
    }

    /// Whether copies look at `ifGenerationMatch` and `ifSourceGenerationMatch`; some emulators do not.
    pub fn honour_rewrite_preconditions(&self, honoured: bool) {
        self.shared.state().rules.honours_rewrite_preconditions = honoured;
    }

    /// Whether a resumable upload whose precondition does not hold is refused when it begins, and not only
    /// when it ends.
    pub fn refuse_uploads_early(&self, early: bool) {
        self.shared.state().rules.refuses_uploads_early = early;
    }

    /// Whether a move or copy whose source is gone AND whose destination is taken is answered with 412
    /// rather than 404. Google does not say which, so clients have to bear both.
    pub fn check_destination_first(&self, first: bool) {
        self.shared.state().rules.destination_first = first;
    }
}

impl Drop for FakeGcs {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been printed; a second one here would abort the tests.
            let _ = thread.join();
        }
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
