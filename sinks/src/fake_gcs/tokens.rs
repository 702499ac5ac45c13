//! Which bearer tokens are accepted, and the services that issue them: Google's token exchange, service
//! account credentials, OAuth, and the metadata servers of Google Compute Engine, EC2 and ECS.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::aws;
use super::objects::rfc3339;
use super::reply::{Refusal, Reply};
use super::routes::{Call, pairs};

/// More than these, and the oldest token is forgotten.
const MAX_ISSUED: usize = 10_000;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const AWS_REQUEST: &str = "urn:ietf:params:aws:token-type:aws4_request";

/// Who issued a token, and so how its holder came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TokenKind {
    /// Google's Security Token Service, for the token of another cloud or identity provider.
    Exchanged,
    /// Google's service account credentials, for another of Google's tokens.
    Impersonated,
    /// The metadata server of Google Compute Engine.
    Metadata,
    /// Google's OAuth service, for a refresh token.
    Refreshed,
    /// EC2's metadata server, for a session with it. No Google token.
    Ec2Session,
    /// EC2's metadata server or ECS: the session token of a role's credentials. No Google token.
    AwsRole,
}

impl TokenKind {
    fn is_googles(self) -> bool {
        !matches!(self, TokenKind::Ec2Session | TokenKind::AwsRole)
    }
}

/// The tokens of one fake.
#[derive(Debug)]
pub(super) struct Tokens {
    /// `None`: any, also none at all.
    pub(super) accepted: Option<BTreeSet<String>>,
    pub(super) requires_issued: bool,
    pub(super) lifetime: Duration,
    issued: BTreeMap<u64, Issued>,
    last: u64,
}

#[derive(Debug)]
struct Issued {
    kind: TokenKind,
    token: String,
    until: Instant,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens {
            accepted: None,
            requires_issued: false,
            lifetime: Duration::from_secs(3600),
            issued: BTreeMap::new(),
            last: 0,
        }
    }
}

/// Whether this path is one of a token service.
pub(super) fn serves(path: &str) -> bool {
    [
        "/v1/token",
        "/token",
        "/v1/projects/-/serviceAccounts/",
        "/computeMetadata/",
        "/latest/",
        "/v2/credentials/",
    ]
    .iter()
    .any(|known| if known.ends_with('/') { path.starts_with(known) } else { path == *known })
}

impl Tokens {
    /// Whether a bearer of this token may use the object API.
    pub(super) fn check(&self, token: Option<&str>) -> Result<(), Refusal> {
        if self.accepted.is_none() && !self.requires_issued {
            return Ok(());
        }
        let Some(token) = token else {
            let message = "Anonymous caller does not have access to the Google Cloud Storage resource.";
            return Err(Refusal::new(401, "required", message)
                .with("www-authenticate", "Bearer realm=\"https://accounts.google.com/\""));
        };
        let listed = self.accepted.as_ref().is_some_and(|accepted| accepted.contains(token));
        let issued = self.requires_issued && self.is_live(token, TokenKind::is_googles);
        if listed || issued { Ok(()) } else { Err(invalid_credentials()) }
    }

    /// All tokens of a kind in the order in which they were issued.
    pub(super) fn issued(&self, kind: TokenKind) -> Vec<String> {
        let of_kind = self.issued.values().filter(|issued| issued.kind == kind);
        of_kind.map(|issued| issued.token.clone()).collect()
    }

    /// No token issued so far is good any more.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        self.issued.values_mut().for_each(|issued| issued.until = issued.until.min(now));
    }

    pub(super) fn serve(&mut self, call: &Call, body: &Bytes) -> Reply {
        let method = call.method.as_str();
        let path = percent_decode_str(&call.path).decode_utf8_lossy();
        let served = match (method, path.as_ref()) {
            ("POST", "/v1/token") => self.exchange(body),
            ("POST", "/token") => self.refresh(call, body),
            ("POST", path) if path.ends_with(":generateAccessToken") => self.impersonate(call, body),
            ("GET", path) if path.starts_with("/computeMetadata/v1/") => self.metadata(call, path),
            ("PUT", "/latest/api/token") => self.ec2_session(call),
            ("GET", path) if path.starts_with("/latest/meta-data/") => self.ec2(call, path),
            ("GET", path) if path.starts_with("/v2/credentials/") => Ok(Reply::json(200, &self.aws_role())),
            _ => Err(Refusal::not_found("Not Found").reply()),
        };
        served.unwrap_or_else(|refused| refused)
    }

    /// Google's Security Token Service (RFC 8693).
    fn exchange(&mut self, body: &Bytes) -> Result<Reply, Reply> {
        let form: BTreeMap<_, _> = pairs(&String::from_utf8_lossy(body)).into_iter().collect();
        let field = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let required = |name: &str| {
            field(name).ok_or_else(|| oauth_error("invalid_request", &format!("Missing parameter {name}")))
        };
        if required("grant_type")? != EXCHANGE {
            return Err(oauth_error("unsupported_grant_type", "grant_type has to be the token exchange"));
        }
        let (subject, kind) = (required("subject_token")?, required("subject_token_type")?);
        let audience = required("audience")?;
        if field("requested_token_type").is_some_and(|wanted| wanted != ACCESS_TOKEN) {
            return Err(oauth_error("invalid_request", "requested_token_type has to be an access token"));
        }
        if kind == AWS_REQUEST {
            let session_is_live = |token: &str| self.is_live(token, |kind| kind == TokenKind::AwsRole);
            aws::verify(subject, audience, session_is_live)
                .map_err(|why| oauth_error("invalid_grant", &why))?;
        }
        let token = self.issue(TokenKind::Exchanged);
        Ok(Reply::json(
            200,
            &json!({
                "access_token": token,
                "issued_token_type": ACCESS_TOKEN,
                "token_type": "Bearer",
                "expires_in": self.lifetime.as_secs(),
            }),
        ))
    }

    /// Google's OAuth service; the form or JSON.
    fn refresh(&mut self, call: &Call, body: &Bytes) -> Result<Reply, Reply> {
        let is_json = call.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let fields: Value = if is_json {
            serde_json::from_slice(body).map_err(|_| oauth_error("invalid_request", "Invalid JSON"))?
        } else {
            pairs(&String::from_utf8_lossy(body)).into_iter().collect()
        };
        if fields["grant_type"] != "refresh_token" {
            return Err(oauth_error("unsupported_grant_type", "Invalid grant_type"));
        }
        for name in ["client_id", "client_secret", "refresh_token"] {
            if fields[name].as_str().is_none_or(str::is_empty) {
                return Err(oauth_error("invalid_request", &format!("Missing parameter {name}")));
            }
        }
        Ok(self.bearer(TokenKind::Refreshed))
    }

    /// Google's IAM Service Account Credentials API.
    fn impersonate(&mut self, call: &Call, body: &Bytes) -> Result<Reply, Reply> {
        let live = call.bearer().is_some_and(|token| self.is_live(token, TokenKind::is_googles));
        if !live {
            return Err(invalid_credentials().reply());
        }
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        if request["scope"].as_array().is_none_or(Vec::is_empty) {
            return Err(Refusal::invalid("Request contains an invalid argument: scope").reply());
        }
        let token = self.issue(TokenKind::Impersonated);
        let until = Timestamp::now().checked_add(self.lifetime).unwrap_or(Timestamp::MAX);
        Ok(Reply::json(200, &json!({"accessToken": token, "expireTime": rfc3339(until)})))
    }

    /// The metadata server of Google Compute Engine.
    fn metadata(&mut self, call: &Call, path: &str) -> Result<Reply, Reply> {
        if call.header("metadata-flavor") != Some("Google") {
            return Err(Reply::text(403, "Missing required header \"Metadata-Flavor\": \"Google\""));
        }
        let account = "/computeMetadata/v1/instance/service-accounts/default";
        let reply = match path.strip_prefix(account) {
            Some("/token") => self.bearer(TokenKind::Metadata),
            Some("/email") => Reply::text(200, "gristmill@test.iam.gserviceaccount.com"),
            _ if path == "/computeMetadata/v1/universe/universe-domain" => Reply::text(200, "googleapis.com"),
            _ if path == "/computeMetadata/v1/project/project-id" => Reply::text(200, "test"),
            _ => Reply::text(404, "Not Found"),
        };
        Ok(reply.with("metadata-flavor", "Google"))
    }

    /// EC2's metadata server, version 2: a session first.
    fn ec2_session(&mut self, call: &Call) -> Result<Reply, Reply> {
        let seconds =
            call.header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.parse::<u32>().ok());
        match seconds {
            Some(1..=21_600) => Ok(Reply::text(200, self.issue(TokenKind::Ec2Session))),
            _ => Err(Reply::text(400, "Bad Request")),
        }
    }

    fn ec2(&mut self, call: &Call, path: &str) -> Result<Reply, Reply> {
        let session = call.header("x-aws-ec2-metadata-token");
        if !session.is_some_and(|token| self.is_live(token, |kind| kind == TokenKind::Ec2Session)) {
            return Err(Reply::text(401, "Unauthorized"));
        }
        match path.strip_prefix("/latest/meta-data/") {
            Some("placement/availability-zone") => Ok(Reply::text(200, "eu-central-1a")),
            Some("placement/region") => Ok(Reply::text(200, "eu-central-1")),
            Some("iam/security-credentials" | "iam/security-credentials/") => Ok(Reply::text(200, aws::ROLE)),
            Some(below) if below.strip_prefix("iam/security-credentials/") == Some(aws::ROLE) => {
                Ok(Reply::json(200, &self.aws_role()))
            }
            _ => Err(Reply::text(404, "Not Found")),
        }
    }

    /// A role's credentials, as EC2 and ECS give them.
    fn aws_role(&mut self) -> Value {
        let session = self.issue(TokenKind::AwsRole);
        let key = format!("ASIA{:016}", self.last);
        let until = Timestamp::now().checked_add(self.lifetime).unwrap_or(Timestamp::MAX);
        json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": rfc3339(Timestamp::now()),
            "RoleArn": format!("arn:aws:iam::123456789012:role/{}", aws::ROLE),
            "SecretAccessKey": aws::secret_of(&key),
            "AccessKeyId": key,
            "Token": session,
            "Expiration": rfc3339(until),
        })
    }

    fn bearer(&mut self, kind: TokenKind) -> Reply {
        let token = self.issue(kind);
        let expires_in = self.lifetime.as_secs();
        Reply::json(200, &json!({"access_token": token, "expires_in": expires_in, "token_type": "Bearer"}))
    }

    fn issue(&mut self, kind: TokenKind) -> String {
        self.last += 1;
        let token = format!("fake-{kind:?}-{}", self.last).to_lowercase();
        let until = Instant::now() + self.lifetime;
        self.issued.insert(self.last, Issued { kind, token: token.clone(), until });
        if self.issued.len() > MAX_ISSUED {
            self.issued.pop_first();
        }
        token
    }

    fn is_live(&self, token: &str, kind: impl Fn(TokenKind) -> bool) -> bool {
        let now = Instant::now();
        self.issued.values().any(|issued| issued.token == token && kind(issued.kind) && now < issued.until)
    }
}

fn invalid_credentials() -> Refusal {
    Refusal::new(401, "authError", "Invalid Credentials")
        .with("www-authenticate", "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"")
}

fn oauth_error(error: &str, description: &str) -> Reply {
    Reply::json(400, &json!({"error": error, "error_description": description}))
}
