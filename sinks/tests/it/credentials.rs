//! Who the store acts as, against token services that verify what they are asked: keyless first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_sinks::fake_gcs::{Effect, FakeGcs, Op, TokenKind};
use gristmill_sinks::{Create, ErrorKind, GcsConfig, GcsCredentials, GcsStore, Store};
use serde_json::{Value, json};

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws";
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
            .build()
            .unwrap();
        GcsStore::open(config).unwrap()
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
async fn a_token_service_that_fails_in_passing_is_asked_again() {
    let keyed = Keyed::new();
    keyed.write(&keyed.user());
    keyed.gcs.faults().next(Op::Token, Effect::Status(503));
    keyed.gcs.faults().next(Op::Token, Effect::Reset);
    writes(&keyed.open(), "a").await;
    assert_eq!(keyed.gcs.faults().pending(), 0);
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

#[test]
fn a_credentials_file_that_is_none_is_refused_before_anything_is_sent() {
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
