//! The fake token services issue what Google's own client library asks for, and the object API accepts that
//! and nothing else.

use std::time::{Duration, Instant};

use google_cloud_auth::credentials::{
    AccessTokenCredentials, external_account, impersonated, mds, user_account,
};
use gristmill_sinks::fake_gcs::{Effect, FakeGcs, Op, TokenKind};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

const AUDIENCE: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws";
const SA: &str = "writer@test.iam.gserviceaccount.com";

fn start() -> (FakeGcs, Client) {
    let gcs = FakeGcs::start();
    gcs.create_bucket("b");
    gcs.require_issued_tokens(true);
    (gcs, Client::builder().no_proxy().build().unwrap())
}

/// A configuration as `gcloud iam workload-identity-pools create-cred-config --aws` writes it.
fn aws_config(url: &str) -> Value {
    json!({
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
    })
}

/// The status of a listing with this token.
async fn listed_with(gcs: &FakeGcs, client: &Client, token: &str) -> u16 {
    let request = client.get(format!("{}/storage/v1/b/b/o", gcs.url())).bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// The one token of this kind is what the library got, and it opens the object API until it expires.
async fn opens_the_bucket(
    gcs: &FakeGcs,
    client: &Client,
    credentials: AccessTokenCredentials,
    kind: TokenKind,
) {
    let token = credentials.access_token().await.unwrap().token;
    assert_eq!(gcs.issued_tokens(kind), std::slice::from_ref(&token));
    assert_eq!(listed_with(gcs, client, &token).await, 200);
    gcs.expire_issued_tokens();
    assert_eq!(listed_with(gcs, client, &token).await, 401);
}

#[tokio::test]
async fn a_signed_aws_request_is_exchanged_and_the_token_opens_the_bucket() {
    let (gcs, client) = start();
    let credentials = external_account::Builder::new(aws_config(&gcs.url()));
    let credentials = credentials.build_access_token_credentials().unwrap();
    opens_the_bucket(&gcs, &client, credentials, TokenKind::Exchanged).await;
    assert_eq!(gcs.issued_tokens(TokenKind::Ec2Session).len(), 1);
    assert_eq!(gcs.issued_tokens(TokenKind::AwsRole).len(), 1);
}

#[tokio::test]
async fn an_exchanged_token_is_one_for_impersonation() {
    let (gcs, client) = start();
    let mut config = aws_config(&gcs.url());
    let impersonation = format!("{}/v1/projects/-/serviceAccounts/{SA}:generateAccessToken", gcs.url());
    config["service_account_impersonation_url"] = impersonation.clone().into();
    let credentials = external_account::Builder::new(config).build_access_token_credentials().unwrap();
    opens_the_bucket(&gcs, &client, credentials, TokenKind::Impersonated).await;
    assert_eq!(gcs.issued_tokens(TokenKind::Exchanged).len(), 1);

    // Neither a stranger, nor a token of AWS's, nor an expired one may impersonate.
    let exchanged = gcs.issued_tokens(TokenKind::Exchanged).remove(0);
    let aws = gcs.issued_tokens(TokenKind::AwsRole).remove(0);
    for token in ["made-up", &aws, &exchanged] {
        let asked = client.post(&impersonation).bearer_auth(token).json(&json!({"scope": ["s"]}));
        assert_eq!(status(asked).await, 401, "{token}");
    }
}

#[tokio::test]
async fn metadata_servers_and_refresh_tokens_give_tokens() {
    let (gcs, client) = start();
    let metadata = mds::Builder::default().with_endpoint(gcs.url()).build_access_token_credentials().unwrap();
    opens_the_bucket(&gcs, &client, metadata, TokenKind::Metadata).await;
    let user = json!({
        "type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r",
        "token_uri": format!("{}/token", gcs.url()),
    });
    let refreshed = user_account::Builder::new(user.clone()).build_access_token_credentials().unwrap();
    opens_the_bucket(&gcs, &client, refreshed, TokenKind::Refreshed).await;

    let impersonated = impersonated::Builder::new(json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url":
            format!("{}/v1/projects/-/serviceAccounts/{SA}:generateAccessToken", gcs.url()),
        "source_credentials": user,
    }));
    let impersonated = impersonated.build_access_token_credentials().unwrap();
    opens_the_bucket(&gcs, &client, impersonated, TokenKind::Impersonated).await;
}

#[tokio::test]
async fn a_token_lives_as_long_as_was_set() {
    let (gcs, client) = start();
    gcs.set_token_lifetime(Duration::from_secs(2));
    let token_of = |flavor: &'static str| {
        let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/token", gcs.url());
        client.get(url).header("metadata-flavor", flavor)
    };
    let reply: Value = token_of("Google").send().await.unwrap().json().await.unwrap();
    let token = reply["access_token"].as_str().unwrap();
    assert_eq!(listed_with(&gcs, &client, token).await, 200);
    let deadline = Instant::now() + Duration::from_secs(30);
    while listed_with(&gcs, &client, token).await != 401 {
        assert!(Instant::now() < deadline, "it still lives after 30 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(listed_with(&gcs, &client, "made-up").await, 401);
    assert_eq!(status(token_of("Other")).await, 403);
    // Listed tokens are good beside issued ones.
    gcs.accept_tokens(Some(&["listed"]));
    assert_eq!(listed_with(&gcs, &client, "listed").await, 200);
}

#[tokio::test]
async fn an_exchange_without_its_parts_is_refused() {
    let (gcs, client) = start();
    let whole = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "a.b.c"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("audience", AUDIENCE),
    ];
    let exchange = |form: String| {
        client
            .post(format!("{}/v1/token", gcs.url()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
    };
    let form = |skipped: &str| {
        let kept = whole.iter().filter(|(key, _)| *key != skipped);
        kept.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
    };
    assert_eq!(status(exchange(form(""))).await, 200);
    for (skipped, _) in whole {
        assert_eq!(status(exchange(form(skipped))).await, 400, "{skipped}");
    }
    let unsigned = form("").replace("oauth:token-type:jwt", "aws:token-type:aws4_request");
    let refused: Value = exchange(unsigned).send().await.unwrap().json().await.unwrap();
    assert_eq!(refused["error"], "invalid_grant");

    gcs.faults().next(Op::Token, Effect::Status(503));
    assert_eq!(status(exchange(form(""))).await, 503);
    assert_eq!(gcs.issued_tokens(TokenKind::Exchanged).len(), 1);
}

#[tokio::test]
async fn a_request_that_was_tampered_with_is_not_exchanged() {
    let (gcs, client) = start();
    let (signing, url) = (FakeGcs::start(), gcs.url());
    // Signed with a session that this server did not issue: another server's.
    let mut foreign = aws_config(&signing.url());
    foreign["token_url"] = format!("{url}/v1/token").into();
    let foreign = external_account::Builder::new(foreign).build_access_token_credentials().unwrap();
    let error = foreign.access_token().await.unwrap_err();
    assert!(format!("{error:?}").contains("unknown or expired"), "{error:?}");
    // Signed for another audience than the one that the exchange names. The library uses one for both.
    let subject = json!({
        "url": "https://sts.eu-central-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
        "method": "POST",
        "headers": [
            {"key": "host", "value": "sts.eu-central-1.amazonaws.com"},
            {"key": "x-amz-date", "value": "20260101T000000Z"},
            {"key": "x-goog-cloud-target-resource", "value": AUDIENCE},
            {"key": "Authorization", "value": "AWS4-HMAC-SHA256 Credential=AKIA1/20260101/eu-central-1/sts/\
                aws4_request, SignedHeaders=host;x-amz-date;x-goog-cloud-target-resource, Signature=00"},
        ],
    });
    for (audience, why) in [(AUDIENCE, "signature does not match"), ("//other", "is not the audience")] {
        let encoded =
            percent_encoding::utf8_percent_encode(&subject.to_string(), percent_encoding::NON_ALPHANUMERIC)
                .to_string()
                .replace('%', "%25");
        let form = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&audience={audience}&\
             subject_token_type=urn:ietf:params:aws:token-type:aws4_request&subject_token={encoded}"
        );
        let refused = client.post(format!("{url}/v1/token")).body(form).send().await.unwrap();
        let text = refused.text().await.unwrap();
        assert!(text.contains(why), "{audience}: {text}");
    }
    assert!(gcs.issued_tokens(TokenKind::Exchanged).is_empty());
}

#[tokio::test]
async fn aws_keeps_its_own_rules() {
    let (gcs, client) = start();
    let at = |path: &str| format!("{}{path}", gcs.url());
    let role = "/latest/meta-data/iam/security-credentials/gristmill-role";
    assert_eq!(status(client.get(at(role))).await, 401);
    assert_eq!(status(client.put(at("/latest/api/token"))).await, 400);
    let session = client.put(at("/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let session = session.send().await.unwrap().text().await.unwrap();
    let with = |path: &str| client.get(at(path)).header("x-aws-ec2-metadata-token", &session);
    let credentials: Value = with(role).send().await.unwrap().json().await.unwrap();
    for key in ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"] {
        assert!(credentials[key].is_string(), "{credentials}");
    }
    assert_eq!(status(with("/latest/meta-data/iam/security-credentials/other")).await, 404);
    let zone = with("/latest/meta-data/placement/availability-zone").send().await.unwrap();
    assert_eq!(zone.text().await.unwrap(), "eu-central-1a");

    let task: Value = client.get(at("/v2/credentials/1")).send().await.unwrap().json().await.unwrap();
    assert_ne!(task["AccessKeyId"], credentials["AccessKeyId"]);
    let secret = format!("secret-of-{}", task["AccessKeyId"].as_str().unwrap());
    assert_eq!(task["SecretAccessKey"], secret);
    // A role's session token is nothing to Google.
    assert_eq!(listed_with(&gcs, &client, task["Token"].as_str().unwrap()).await, 401);
}
