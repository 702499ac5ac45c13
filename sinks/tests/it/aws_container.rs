//! Containers on AWS (ECS, Fargate, EKS with Pod Identity), which have no machine's role: in processes of their own,
//! since their credentials are in the environment.

use std::path::Path;
use std::time::Duration;

use gristmill_sinks::fake_gcs::{Effect, FakeGcs, Op, TokenKind};
use gristmill_sinks::{Create, Error, ErrorKind, GcsConfig, GcsCredentials, GcsStore, Store};
use serde_json::json;

use crate::wire::alone;

/// The address of the fake, in the processes of the tests.
const CHILD: &str = "GRISTMILL_TEST_CONTAINER";
/// The store's credentials there; without it the default ones.
const FILE: &str = "GRISTMILL_TEST_CREDENTIALS";

const WRITER: &str = "writer@test.iam.gserviceaccount.com";

fn fake() -> FakeGcs {
    let gcs = FakeGcs::start();
    gcs.create_bucket("lake");
    gcs.require_issued_tokens(true);
    gcs
}

/// A configuration as `gcloud iam workload-identity-pools create-cred-config --aws` writes it.
fn write_credentials(gcs: &FakeGcs, file: &Path, impersonates: bool) {
    let url = gcs.url();
    let mut credentials = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws",
        "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
        "token_url": format!("{url}/v1/token"),
        "credential_source": {
            "environment_id": "aws1",
            "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
            "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
            "regional_cred_verification_url":
                "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
        },
    });
    if impersonates {
        credentials["service_account_impersonation_url"] =
            format!("{url}/v1/projects/-/serviceAccounts/{WRITER}:generateAccessToken").into();
    }
    std::fs::write(file, credentials.to_string()).unwrap();
}

/// In a child: a store with the credentials that the parent wrote.
fn open() -> Option<GcsStore> {
    let url = std::env::var(CHILD).ok()?;
    let file = std::env::var_os(FILE);
    // What fails for good shall not fail by the time that a busy machine takes for the first try.
    let patient = std::env::var("GRISTMILL_TEST_CASE").is_ok_and(|case| case == "no-audience");
    let config = GcsConfig::builder("lake")
        .endpoint(url)
        .credentials(file.map_or(GcsCredentials::Default, |file| GcsCredentials::File(file.into())))
        .retry_pause(Duration::from_millis(5))
        .retry_time(Duration::from_millis(if patient { 5_000 } else { 500 }));
    Some(GcsStore::open(config.build().unwrap()).unwrap())
}

async fn fails(store: &GcsStore) -> Error {
    let error = store.create_if_absent("a", "x".into()).await.unwrap_err();
    let shown = format!("{error:?} {error} {store:?}");
    assert!(!shown.contains("secret-of") && !shown.contains("fake-"), "a secret is shown: {shown}");
    error
}

#[tokio::test]
async fn the_role_of_a_container_is_exchanged_and_renewed() {
    if let Some(store) = open() {
        for name in ["a", "b", "c"] {
            let created = store.create_if_absent(name, "x".into()).await.unwrap();
            assert!(matches!(created, Create::Created(_)), "{created:?}");
        }
        assert_eq!(store.counters().renewed, 1);
        return;
    }
    for impersonates in [false, true] {
        let (gcs, folder) = (fake(), tempfile::tempdir().unwrap());
        let [file, token] = ["credentials.json", "token"].map(|name| folder.path().join(name));
        write_credentials(&gcs, &file, impersonates);
        std::fs::write(&token, "the-agents-token\n").unwrap();
        gcs.faults().nth(Op::Insert, 3, Effect::Status(401));
        let keys = format!("{}/v2/credentials/role", gcs.url()).replace("127.0.0.1", "localhost");
        alone(
            "aws_container::the_role_of_a_container_is_exchanged_and_renewed",
            &[
                (CHILD, &gcs.url()),
                (if impersonates { "GOOGLE_APPLICATION_CREDENTIALS" } else { FILE }, file.to_str().unwrap()),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &keys),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
                ("AWS_REGION", "eu-central-1"),
                // What is asked for at `localhost`, the container's agent, does not go through a proxy.
                ("HTTP_PROXY", "http://127.0.0.1:9"),
                ("NO_PROXY", "127.0.0.1"),
            ],
        )
        .await;
        assert_eq!(gcs.object_names("lake"), ["a", "b", "c"]);
        // One token for two objects, and another after that was refused.
        let issued = |kind| gcs.issued_tokens(kind).len();
        assert_eq!((issued(TokenKind::AwsRole), issued(TokenKind::Exchanged)), (2, 2));
        assert_eq!(issued(TokenKind::Impersonated), if impersonates { 2 } else { 0 });
        let asked = gcs.authorizations(Op::Token);
        assert_eq!(asked.iter().filter(|a| *a == "the-agents-token").count(), 2, "{asked:?}");
        let used = gcs.authorizations(Op::Insert);
        let kind = if impersonates { "Bearer fake-impersonated" } else { "Bearer fake-exchanged" };
        assert!(used.len() == 4 && used.iter().all(|token| token.starts_with(kind)), "{used:?}");
    }
}

#[tokio::test]
async fn a_container_whose_role_is_refused_says_who_refuses() {
    if let Some(store) = open() {
        let error = fails(&store).await;
        match std::env::var("GRISTMILL_TEST_CASE").unwrap().as_str() {
            "no-role" => {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
                assert!(error.to_string().contains("service of the container's role answers 404"), "{error}");
            }
            "no-agent" => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                assert!(error.to_string().contains("container's role cannot be reached"), "{error}");
            }
            "no-audience" => {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
                assert!(error.to_string().contains("token exchange answers 400"), "{error}");
                assert!(error.to_string().contains("credentials_file"), "{error}");
            }
            case => {
                assert_eq!(case, "expired");
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                assert!(error.to_string().contains("is the clock right?"), "{error}");
            }
        }
        return;
    }
    for case in ["no-role", "no-agent", "no-audience", "expired"] {
        let (gcs, folder) = (fake(), tempfile::tempdir().unwrap());
        let file = folder.path().join("credentials.json");
        write_credentials(&gcs, &file, case == "expired");
        let mut keys = format!("{}/v2/credentials/role", gcs.url());
        match case {
            "no-role" => keys = format!("{}/v2/none", gcs.url()),
            "no-agent" => keys = "http://127.0.0.1:9/v2/credentials/role".to_owned(),
            "no-audience" => {
                let text = std::fs::read_to_string(&file).unwrap();
                let mut credentials: serde_json::Value = serde_json::from_str(&text).unwrap();
                credentials["audience"] = "".into();
                std::fs::write(&file, credentials.to_string()).unwrap();
                gcs.faults().next(Op::Token, Effect::Status(503));
            }
            _ => gcs.set_clock_behind(Duration::from_secs(7200)),
        }
        alone(
            "aws_container::a_container_whose_role_is_refused_says_who_refuses",
            &[
                (CHILD, &gcs.url()),
                (FILE, file.to_str().unwrap()),
                ("GRISTMILL_TEST_CASE", case),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &keys),
                ("AWS_DEFAULT_REGION", "eu-central-1"),
            ],
        )
        .await;
        assert!(gcs.object_names("lake").is_empty());
    }
}
