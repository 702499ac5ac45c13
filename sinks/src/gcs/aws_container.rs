//! The role of a container on AWS (ECS, Fargate, EKS with Pod Identity) as an identity of Google's: what
//! google-cloud-auth does for the role of a machine, it does not do for these.
//!
//! Sources: AIP-4117 (the subject token), RFC 8693 (the exchange), "Container credential provider" in the AWS SDKs
//! and Tools Reference Guide.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Url, redirect};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

use super::answer::shown;
use super::aws_signature::{Key, authorization};
use super::config::SCOPE;
use crate::error::{Error, ErrorKind, Result};

/// No answer and no file with a token is longer.
const MAX_BYTES: usize = 64 << 10;

/// A token that could not be renewed is used on for so long before that is tried again.
const RENEW_PAUSE: Duration = Duration::from_secs(30);

const STS: &str = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";

/// Where ECS serves what `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` names.
const ECS: &str = "http://169.254.170.2";

/// Exchanges a container's role for a token of Google's, and keeps that until it is about to expire.
pub(super) struct ContainerRole {
    file: File,
    /// The request that proves the role.
    identity: Url,
    region: String,
    keys: Url,
    keys_authorization: Option<Authorization>,
    /// For the container's own network: no proxy.
    inside: Client,
    outside: Client,
    held: Mutex<Option<Token>>,
}

/// What is needed of an `external_account` file.
#[derive(Deserialize)]
struct File {
    audience: String,
    subject_token_type: String,
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: Source,
}

#[derive(Deserialize)]
struct Source {
    environment_id: String,
    regional_cred_verification_url: Option<String>,
}

enum Authorization {
    /// Read each time: it is renewed.
    File(PathBuf),
    Value(String),
}

struct Token {
    header: HeaderValue,
    fresh_until: Instant,
    until: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleKeys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

/// Nothing of the role's keys or the tokens.
impl fmt::Debug for ContainerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerRole").field("audience", &self.file.audience).finish_non_exhaustive()
    }
}

impl ContainerRole {
    /// What the file and the environment's variables say; `None` if they are not about a container's role.
    ///
    /// # Errors
    /// What is missing or wrong, in words.
    pub(super) fn new(
        json: &Value,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let environment = json.pointer("/credential_source/environment_id").and_then(Value::as_str);
        if !environment.is_some_and(|e| e.starts_with("aws")) || variable("AWS_ACCESS_KEY_ID").is_some() {
            return Ok(None);
        }
        let Some(keys) = keys_address(&variable)? else { return Ok(None) };
        let file: File = serde_json::from_value(json.clone()).map_err(|e| e.to_string())?;
        if file.credential_source.environment_id != "aws1" {
            return Err(format!(
                "its environment_id is {:?}; there is aws1",
                environment.unwrap_or_default()
            ));
        }
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.ok_or("AWS_REGION is not set, and a container's role needs it")?;
        if !region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            return Err(format!("{region:?} in AWS_REGION is no region"));
        }
        let identity = file.credential_source.regional_cred_verification_url.as_deref().unwrap_or(STS);
        let identity = identity.replace("{region}", &region);
        let identity = Url::parse(&identity).ok().filter(|u| u.scheme() == "https" && u.path() == "/");
        let identity = identity.ok_or("its regional_cred_verification_url is not an https address of AWS")?;
        let keys_authorization = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => Some(Authorization::File(path.into())),
            None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Authorization::Value),
        };
        let client = |seconds| {
            Client::builder()
                .timeout(Duration::from_secs(seconds))
                .redirect(redirect::Policy::none())
                .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")))
        };
        let built = |e: reqwest::Error| format!("the HTTP client cannot be made: {e}");
        Ok(Some(ContainerRole {
            file,
            identity,
            region,
            keys,
            keys_authorization,
            inside: client(5).no_proxy().build().map_err(built)?,
            outside: client(30).build().map_err(built)?,
            held: Mutex::new(None),
        }))
    }

    /// The header `Authorization` of a request to Google.
    ///
    /// # Errors
    /// `Unavailable` if one of the services cannot be reached now, `PermissionDenied` if one refuses.
    pub(super) async fn header(&self) -> Result<HeaderValue> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.fresh_until) {
            return Ok(token.header.clone());
        }
        match self.exchanged().await {
            Ok(token) => Ok(held.insert(token).header.clone()),
            Err(error) => match held.as_mut().filter(|token| Instant::now() < token.until) {
                Some(token) => {
                    tracing::warn!(%error, "the token for Google Cloud is not renewed yet");
                    token.fresh_until = Instant::now() + RENEW_PAUSE;
                    Ok(token.header.clone())
                }
                None => Err(error),
            },
        }
    }

    async fn exchanged(&self) -> Result<Token> {
        let keys = self.role_keys().await?;
        let subject = self.subject(&keys, Timestamp::now());
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", &self.file.audience),
            ("scope", SCOPE),
            ("subject_token_type", &self.file.subject_token_type),
            ("subject_token", &subject),
        ];
        let form = fields.map(|(name, value)| format!("{name}={}", encode(value))).join("&");
        let request = self.outside.post(&self.file.token_url);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let answer = ask(request, "Google's token exchange").await?;
        let lifetime = answer.get("expires_in").and_then(Value::as_u64).unwrap_or_default();
        let token = token(&answer, "access_token", Duration::from_secs(lifetime))?;
        let Some(url) = &self.file.service_account_impersonation_url else { return Ok(token) };
        let request = self.outside.post(url).header(AUTHORIZATION, token.header);
        let request = request.json(&json!({ "scope": [SCOPE] }));
        let answer = ask(request, "Google's service that impersonates accounts").await?;
        let until =
            answer.get("expireTime").and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok());
        let lifetime = until.map(|until| until.duration_since(Timestamp::now()));
        let lifetime = lifetime.and_then(|lifetime| Duration::try_from(lifetime).ok()).unwrap_or_default();
        self::token(&answer, "accessToken", lifetime)
    }

    async fn role_keys(&self) -> Result<RoleKeys> {
        let mut request = self.inside.get(self.keys.clone());
        if let Some(authorization) = &self.keys_authorization {
            let value = match authorization {
                Authorization::Value(value) => value.clone(),
                Authorization::File(path) => read(path).await.map_err(|e| {
                    let text =
                        format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names {}: {e}", path.display());
                    Error::new(ErrorKind::Unavailable, text)
                })?,
            };
            request = request.header(AUTHORIZATION, secret(value.trim())?);
        }
        let answer = ask(request, "AWS's service of the container's role").await?;
        // What serde says could show a secret.
        serde_json::from_value(answer).map_err(|_| {
            Error::new(ErrorKind::Unavailable, "AWS's service of the container's role gave no keys")
        })
    }

    /// The signed request for the caller's identity; Google sends it to AWS to learn the role.
    fn subject(&self, keys: &RoleKeys, now: Timestamp) -> String {
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut headers =
            vec![("host", self.identity.host_str().unwrap_or_default()), ("x-amz-date", time.as_str())];
        if let Some(token) = &keys.token {
            headers.push(("x-amz-security-token", token));
        }
        headers.push(("x-goog-cloud-target-resource", &self.file.audience));
        let key = Key {
            id: &keys.access_key_id,
            secret: &keys.secret_access_key,
            region: &self.region,
            service: "sts",
            time: &time,
        };
        let signed = authorization(&key, "POST", &self.identity, &headers);
        headers.push(("Authorization", &signed));
        let headers: Vec<_> =
            headers.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let request = json!({
            "url": self.identity.as_str(), "method": "POST", "headers": headers, "body": "",
        });
        encode(&request.to_string())
    }
}

/// Where the role's keys are.
///
/// As AWS's own libraries do, the whole address is used only if nobody on the way can listen: that of a container's
/// agent, or https.
fn keys_address(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Url>, String> {
    if let Some(relative) = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        let url = Url::parse(&format!("{ECS}{relative}")).ok().filter(|_| relative.starts_with('/'));
        return url.map(Some).ok_or("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path".into());
    }
    let Some(full) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else { return Ok(None) };
    let url = Url::parse(&full).map_err(|e| format!("AWS_CONTAINER_CREDENTIALS_FULL_URI: {e}"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let agents = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost"];
    let is_near = agents.contains(&host) || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(Some(url)),
        "http" if is_near => Ok(Some(url)),
        _ => Err(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI names {host:?} without https")),
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

async fn read(path: &PathBuf) -> std::io::Result<String> {
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(MAX_BYTES as u64).read_to_string(&mut text).await?;
    Ok(text)
}

fn secret(value: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(value)
        .map_err(|_| Error::new(ErrorKind::Unavailable, "a token that cannot stand in a header"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn token(answer: &Value, name: &str, lifetime: Duration) -> Result<Token> {
    let text = answer.get(name).and_then(Value::as_str).filter(|token| !token.is_empty());
    // An absurd lifetime would be past the end of time; a renewal a day costs nothing.
    let lifetime = lifetime.min(Duration::from_secs(86_400));
    let Some(text) = text.filter(|_| !lifetime.is_zero()) else {
        let text =
            "no token for Google Cloud: what the token service answered makes no sense; is the clock right?";
        return Err(Error::new(ErrorKind::Unavailable, text));
    };
    let now = Instant::now();
    let header = secret(&format!("Bearer {text}"))?;
    Ok(Token { header, fresh_until: now + lifetime.mul_f64(0.9), until: now + lifetime })
}

async fn ask(request: RequestBuilder, who: &str) -> Result<Value> {
    let unreachable = |e: reqwest::Error| {
        let what = if e.is_timeout() { "did not answer in time" } else { "cannot be reached" };
        Error::new(ErrorKind::Unavailable, format!("{who} {what}")).with_source(e.without_url())
    };
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            let text = format!("{who} answers more than {MAX_BYTES} bytes");
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
    }
    let answer = serde_json::from_slice::<Value>(&body);
    if status.is_success() {
        return answer.map_err(|_| Error::new(ErrorKind::Unavailable, format!("{who} answers no JSON")));
    }
    let answer = answer.unwrap_or_default();
    let said = ["/error_description", "/error/message", "/message"].iter().find_map(|p| answer.pointer(p));
    let said = shown(said.and_then(Value::as_str).unwrap_or_default());
    let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
    let (kind, hint) = match passing {
        true => (ErrorKind::Unavailable, ""),
        false => (ErrorKind::PermissionDenied, "; check `credentials_file` and the roles of whom it names"),
    };
    Err(Error::new(kind, format!("{who} answers {} ({said}){hint}", status.as_u16())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Value {
        json!({
            "type": "external_account", "audience": "//a", "subject_token_type": "t", "token_url": "https://t.example",
            "credential_source": {"environment_id": "aws1"},
        })
    }

    fn role(json: &Value, variables: &[(&str, &str)]) -> Result<Option<ContainerRole>, String> {
        ContainerRole::new(json, |name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const PATH: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x");
    const REGION: (&str, &str) = ("AWS_REGION", "eu-central-1");

    #[test]
    fn a_containers_role_is_used_where_there_is_one_and_no_key_in_the_environment() {
        let found = role(&file(), &[PATH, REGION]).unwrap().unwrap();
        assert_eq!(found.keys.as_str(), "http://169.254.170.2/v2/credentials/x");
        assert_eq!(
            found.identity.as_str(),
            "https://sts.eu-central-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15"
        );
        assert!(role(&file(), &[REGION]).unwrap().is_none(), "EC2");
        assert!(role(&file(), &[PATH, REGION, ("AWS_ACCESS_KEY_ID", "k")]).unwrap().is_none());
        let mut kubernetes = file();
        kubernetes["credential_source"] = json!({"file": "/token"});
        assert!(role(&kubernetes, &[PATH, REGION]).unwrap().is_none());
    }

    #[test]
    fn keys_are_asked_for_only_where_nobody_listens() {
        let keys = |full| role(&file(), &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", full), REGION]);
        for good in ["http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/", "http://127.0.0.1:9/"]
        {
            assert_eq!(keys(good).unwrap().unwrap().keys.as_str(), good);
        }
        assert!(keys("https://keys.example/").unwrap().is_some());
        for bad in
            ["http://keys.example/", "http://10.0.0.1/", "http://127.0.0.1.example/", "file:///etc/keys"]
        {
            assert!(keys(bad).unwrap_err().contains("without https"), "{bad}");
        }
        assert!(keys("keys").unwrap_err().contains("FULL_URI"));
        let path = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@keys.example/");
        assert!(role(&file(), &[path, REGION]).unwrap_err().contains("not a path"));
    }

    #[test]
    fn what_is_missing_is_told() {
        assert!(role(&file(), &[PATH]).unwrap_err().contains("AWS_REGION is not set"));
        assert!(role(&file(), &[PATH, ("AWS_DEFAULT_REGION", "x/y")]).unwrap_err().contains("no region"));
        let mut wrong = file();
        wrong["credential_source"]["environment_id"] = "aws2".into();
        assert!(role(&wrong, &[PATH, REGION]).unwrap_err().contains("aws2"));
        wrong = file();
        wrong["credential_source"]["regional_cred_verification_url"] = "http://sts.example".into();
        assert!(role(&wrong, &[PATH, REGION]).unwrap_err().contains("regional_cred_verification_url"));
        wrong = file();
        wrong.as_object_mut().unwrap().remove("token_url");
        assert!(role(&wrong, &[PATH, REGION]).unwrap_err().contains("token_url"));
    }
}
