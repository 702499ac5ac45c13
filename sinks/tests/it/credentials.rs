//! Who the store acts as, against token services that verify what they are asked: keyless first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use gristmill_sinks::fake_gcs::{Effect, FakeGcs, Op, TokenKind};
use gristmill_sinks::{Create, ErrorKind, GcsConfig, GcsCredentials, GcsStore, Store};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use serde_json::{Value, json};

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws";
const CHECK_EVERY: Duration = Duration::from_millis(20);
const WRITER: &str = "writer@test.iam.gserviceaccount.com";

/// A store whose only credentials are a file.
struct Keyed {
    gcs: FakeGcs,
    file: PathBuf,
    folder: tempfile::TempDir,
}

impl Keyed {
    fn new() -> Self {
        let gcs = FakeGcs::start();
        gcs.create_bucket("lake");
        gcs.require_issued_tokens(true);
        let folder = tempfile::tempdir().unwrap();
        Keyed { gcs, file: folder.path().join("credentials.json"), folder }
    }

    fn write(&self, credentials: &Value) {
        std::fs::write(&self.file, credentials.to_string()).unwrap();
    }

    fn open(&self) -> GcsStore {
        let config = GcsConfig::builder("lake")
            .endpoint(self.gcs.url())
            .credentials(GcsCredentials::File(self.file.clone()))
            .upload_part_bytes(256 << 10)
            .retry_pause(Duration::from_millis(5))
            .credentials_check_every(CHECK_EVERY)
            .build()
            .unwrap();
        GcsStore::open(config).unwrap()
    }

    /// Writes the file; its time is another one, however coarse the clock of the file system is.
    fn touch(&self, credentials: &Value) {
        self.write(credentials);
        let file = std::fs::File::options().write(true).open(&self.file).unwrap();
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
    }

    /// Writes until a token of that kind was issued.
    async fn eventually(&self, store: &GcsStore, kind: TokenKind) {
        for i in 0..500 {
            writes(store, &format!("until-{i}")).await;
            if !self.gcs.issued_tokens(kind).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the changed credentials were not taken");
    }

    /// A pod of EKS or any Kubernetes: the kubelet writes the token, and renews it, in a file.
    fn projected_token(&self) -> Value {
        let token = self.folder.path().join("token");
        std::fs::write(&token, "eyJ.a-projected-token.x").unwrap();
        json!({
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", self.gcs.url()),
            "credential_source": {"file": token},
        })
    }

    fn user(&self) -> Value {
        json!({
            "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
            "token_uri": format!("{}/token", self.gcs.url()),
        })
    }
}

async fn writes(store: &GcsStore, name: &str) {
    let created = store.create_if_absent(name, "x".into()).await.unwrap();
    assert!(matches!(created, Create::Created(_)), "{name}: {created:?}");
}

#[tokio::test]
async fn a_projected_token_of_kubernetes_is_exchanged() {
    let keyed = Keyed::new();
    keyed.write(&keyed.projected_token());
    writes(&keyed.open(), "a").await;
    assert_eq!(keyed.gcs.issued_tokens(TokenKind::Exchanged).len(), 1);
}

#[tokio::test]
async fn a_projected_token_is_exchanged_and_then_impersonates() {
    let keyed = Keyed::new();
    let mut credentials = keyed.projected_token();
    credentials["service_account_impersonation_url"] =
        format!("{}/v1/projects/-/serviceAccounts/{WRITER}:generateAccessToken", keyed.gcs.url()).into();
    keyed.write(&credentials);
    writes(&keyed.open(), "a").await;
    assert_eq!(keyed.gcs.issued_tokens(TokenKind::Impersonated).len(), 1);
}

#[tokio::test]
async fn the_role_of_an_ec2_machine_is_exchanged() {
    let keyed = Keyed::new();
    let url = keyed.gcs.url();
    keyed.write(&json!({
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
        "token_url": format!("{url}/v1/token"),
        "credential_source": {
            "environment_id": "aws1",
            "region_url": format!("{url}/latest/meta-data/placement/availability-zone"),
            "url": format!("{url}/latest/meta-data/iam/security-credentials"),
            "regional_cred_verification_url":
                "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
            "imdsv2_session_token_url": format!("{url}/latest/api/token"),
        },
    }));
    writes(&keyed.open(), "a").await;
    assert_eq!(keyed.gcs.issued_tokens(TokenKind::Exchanged).len(), 1);
}

#[tokio::test]
async fn another_account_is_impersonated() {
    let keyed = Keyed::new();
    keyed.write(&json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url":
            format!("{}/v1/projects/-/serviceAccounts/{WRITER}:generateAccessToken", keyed.gcs.url()),
        "source_credentials": keyed.user(),
    }));
    writes(&keyed.open(), "a").await;
    assert_eq!(keyed.gcs.issued_tokens(TokenKind::Impersonated).len(), 1);
}

#[tokio::test]
async fn tokens_that_expire_in_the_middle_of_an_upload_lose_nothing() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    let store = keyed.open();
    let bytes: Bytes = (0..1_500_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    let mut upload = store.stage("staged/a").await.unwrap();
    for (i, part) in bytes.chunks(200_000).enumerate() {
        if i % 3 == 1 {
            keyed.gcs.expire_issued_tokens();
        }
        upload.append(Bytes::copy_from_slice(part)).await.unwrap();
    }
    keyed.gcs.expire_issued_tokens();
    let staged = upload.finish().await.unwrap();
    assert_eq!(staged.crc32c, crc32c::crc32c(&bytes));
    assert_eq!(keyed.gcs.object("lake", "staged/a").unwrap().bytes, bytes);
    assert!(store.counters().renewed >= 2, "{:?}", store.counters());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_whose_token_is_refused_at_once_all_go_on() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    let store = Arc::new(keyed.open());
    writes(&store, "first").await;
    keyed.gcs.expire_issued_tokens();
    let mut all = tokio::task::JoinSet::new();
    for i in 0..32 {
        let store = store.clone();
        all.spawn(async move { writes(&store, &format!("o-{i}")).await });
    }
    all.join_all().await;
    let issued = keyed.gcs.issued_tokens(TokenKind::Refreshed).len();
    assert!(issued < 10, "{issued} tokens for 32 requests");
}

#[tokio::test]
async fn changed_credentials_are_taken_without_a_restart() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    let store = keyed.open();
    writes(&store, "a").await;
    // The old ones are revoked; the file names others by now.
    keyed.gcs.expire_issued_tokens();
    keyed.write(&keyed.projected_token());
    writes(&store, "b").await;
    assert_eq!(keyed.gcs.issued_tokens(TokenKind::Exchanged).len(), 1);
}

#[tokio::test]
async fn a_file_that_changes_is_taken_also_where_nothing_is_refused() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    let store = keyed.open();
    writes(&store, "a").await;
    assert!(keyed.gcs.issued_tokens(TokenKind::Exchanged).is_empty());
    keyed.touch(&keyed.projected_token());
    keyed.eventually(&store, TokenKind::Exchanged).await;
    assert_eq!(store.counters().renewed, 0, "no token was refused");
}

#[tokio::test]
async fn a_file_that_is_half_written_or_gone_keeps_the_old_credentials_even_if_their_token_is_refused() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    let store = keyed.open();
    writes(&store, "a").await;
    let whole = keyed.projected_token().to_string();
    std::fs::write(&keyed.file, &whole[..whole.len() / 2]).unwrap();
    tokio::time::sleep(CHECK_EVERY * 3).await;
    writes(&store, "b").await;
    keyed.gcs.expire_issued_tokens();
    writes(&store, "c").await;
    std::fs::remove_file(&keyed.file).unwrap();
    keyed.gcs.expire_issued_tokens();
    tokio::time::sleep(CHECK_EVERY * 3).await;
    writes(&store, "d").await;
    assert!(keyed.gcs.issued_tokens(TokenKind::Exchanged).is_empty());
    keyed.touch(&serde_json::from_str(&whole).unwrap());
    keyed.eventually(&store, TokenKind::Exchanged).await;
}

#[tokio::test]
async fn a_service_accounts_key_signs_what_it_may_do_and_is_sent_nowhere() {
    let keyed = Keyed::new();
    keyed.gcs.require_issued_tokens(false);
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let secret = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    keyed.write(&json!({
        "type": "service_account", "project_id": "p", "private_key_id": "key-7", "private_key": secret,
        "client_email": WRITER, "client_id": "1", "token_uri": format!("{}/token", keyed.gcs.url()),
    }));
    let two_days = std::time::SystemTime::now() - Duration::from_secs(172_800);
    std::fs::File::options().write(true).open(&keyed.file).unwrap().set_modified(two_days).unwrap();
    let store = keyed.open();
    writes(&store, "a").await;
    assert_eq!(keyed.gcs.requested(Op::Token), 0, "the token is made here");

    let sent = keyed.gcs.authorizations(Op::Insert);
    let [header, claims, signature] =
        sent[0].strip_prefix("Bearer ").unwrap().split('.').collect::<Vec<_>>()[..]
    else {
        panic!("no JWT: {sent:?}")
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
    verifier.update(format!("{header}.{claims}").as_bytes()).unwrap();
    assert!(verifier.verify(&decode(signature)).unwrap());
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&"RS256".into(), &"key-7".into()));
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&WRITER.into(), &WRITER.into()));
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (from, until) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(from <= now && now + 1800 < until && until - from < 3700, "{from} {now} {until}");

    let age = store.key_age().unwrap().as_secs();
    assert!((172_800..172_900).contains(&age), "{age}");
    assert!(!format!("{store:?}").contains("PRIVATE"), "{store:?}");
    // The age is told all the time, also when a token was refused.
    keyed.gcs.faults().next(Op::Insert, Effect::Status(401));
    writes(&store, "b").await;
    assert_eq!(store.counters().renewed, 1);
    assert!(store.key_age().is_some());
    // And there is none for credentials that expire by themselves.
    keyed.write(&keyed.user());
    assert_eq!(keyed.open().key_age(), None);
}

#[tokio::test]
async fn a_token_that_is_refused_again_and_again_is_not_renewed_again_and_again() {
    let keyed = Keyed::new();
    keyed.gcs.accept_tokens(Some(&["none of those"]));
    keyed.gcs.require_issued_tokens(false);
    keyed.write(&keyed.user());
    let store = keyed.open();
    let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.to_string().contains("does not accept their token"), "{error}");
    assert_eq!((keyed.gcs.requested(Op::Insert), store.counters().renewed), (2, 1));
    let mut upload = store.stage("staged/a").await.unwrap();
    let error = upload.append(vec![1; 300 << 10].into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert_eq!(keyed.gcs.requested(Op::ResumableStart), 2);
}

#[tokio::test]
async fn a_token_service_that_never_answers_is_not_waited_for_for_ever() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    keyed.gcs.faults().next(Op::Token, Effect::Delay(Duration::from_secs(6)));
    let config = GcsConfig::builder("lake")
        .endpoint(keyed.gcs.url())
        .credentials(GcsCredentials::File(keyed.file.clone()))
        .request_timeout(Duration::from_secs(1))
        .retry_time(Duration::from_secs(2));
    let store = GcsStore::open(config.build().unwrap()).unwrap();
    let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("did not answer in time"), "{error}");
    // What was asked for comes late, and is used.
    tokio::time::sleep(Duration::from_secs(6)).await;
    writes(&store, "a").await;
    assert_eq!(keyed.gcs.requested(Op::Token), 1);
}

#[test]
fn credentials_outside_of_a_runtime_are_an_error_and_no_panic() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    let config = GcsConfig::builder("lake").credentials(GcsCredentials::File(keyed.file.clone()));
    assert_eq!(GcsStore::open(config.build().unwrap()).unwrap_err().kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn a_token_service_that_fails_in_passing_is_asked_again() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    keyed.gcs.faults().next(Op::Token, Effect::Status(503));
    keyed.gcs.faults().next(Op::Token, Effect::Reset);
    writes(&keyed.open(), "a").await;
    assert_eq!(keyed.gcs.faults().pending(), 0);
}

#[tokio::test]
async fn a_token_that_has_expired_when_it_comes_does_not_take_the_process_down() {
    let keyed = Keyed::new();
    keyed.write(&json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url":
            format!("{}/v1/projects/-/serviceAccounts/{WRITER}:generateAccessToken", keyed.gcs.url()),
        "source_credentials": keyed.user(),
    }));
    keyed.gcs.set_clock_behind(Duration::from_secs(7200));
    let config = GcsConfig::builder("lake")
        .endpoint(keyed.gcs.url())
        .credentials(GcsCredentials::File(keyed.file.clone()))
        .retry_pause(Duration::from_millis(5))
        .retry_time(Duration::from_millis(200));
    let store = GcsStore::open(config.build().unwrap()).unwrap();
    let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("is the clock right?"), "{error}");
    keyed.gcs.set_clock_behind(Duration::ZERO);
    writes(&store, "a").await;
}

#[tokio::test]
async fn a_token_service_that_refuses_says_so_and_shows_no_secret() {
    let keyed = Keyed::new();
    let mut wrong = keyed.projected_token();
    wrong["audience"] = "".into();
    keyed.write(&wrong);
    let store = keyed.open();
    let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.to_string().contains("credentials_file"), "{error}");
    assert!(!format!("{error:?}").contains("a-projected-token"), "{error:?}");
    assert!(!format!("{store:?}").contains("projected"), "{store:?}");
}

#[tokio::test]
async fn a_credentials_file_that_is_none_is_refused_before_anything_is_sent() {
    let keyed = Keyed::new();
    let refused = |text: &str| {
        std::fs::write(&keyed.file, text).unwrap();
        let config = GcsConfig::builder("lake").credentials(GcsCredentials::File(keyed.file.clone()));
        let error = GcsStore::open(config.build().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        error.to_string()
    };
    assert!(refused("{\"private_key\": \"secret").ends_with("it is not JSON"));
    assert!(refused("{\"type\": \"certificate\"}").contains("there are external_account"));
    assert!(refused("{\"type\": \"service_account\"}").contains("cannot be used"));
    std::fs::remove_file(&keyed.file).unwrap();
    let config = GcsConfig::builder("lake").credentials(GcsCredentials::File(keyed.file.clone()));
    assert!(GcsStore::open(config.build().unwrap()).unwrap_err().to_string().contains("No such file"));
}
