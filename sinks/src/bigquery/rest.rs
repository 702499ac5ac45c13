//! The part of [BigQuery's REST interface](https://cloud.google.com/bigquery/docs/reference/rest/v2/tables) that makes and changes
//! tables.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::IF_MATCH;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::Patience;
use crate::error::{Error, ErrorKind, Result};
use crate::gcs::credentials::Credentials;

const GOOGLE: &str = "https://bigquery.googleapis.com";
const CALL: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
/// Of what an error says.
const MAX_WHY: usize = 1_000;
/// A table has 10,000 columns at most.
const MAX_ANSWER: usize = 16 << 20;

pub(super) struct Rest {
    http: reqwest::Client,
    /// `https://bigquery.googleapis.com/bigquery/v2`
    base: String,
    credentials: Arc<Credentials>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("base", &self.base).finish_non_exhaustive()
    }
}

/// What was answered.
pub(super) enum Answer {
    Done(Value),
    NotFound(String),
    /// There is one of that name.
    Exists,
    /// Somebody else has changed it.
    Changed,
}

impl Rest {
    pub(super) fn new(endpoint: Option<&str>, credentials: Arc<Credentials>) -> Result<Self> {
        let wrong = |e: reqwest::Error| {
            Error::new(ErrorKind::InvalidConfig, "no client for BigQuery's REST interface").with_source(e)
        };
        let http =
            reqwest::Client::builder().timeout(CALL).connect_timeout(CONNECT).build().map_err(wrong)?;
        let base = format!("{}/bigquery/v2", endpoint.unwrap_or(GOOGLE).trim_end_matches('/'));
        Ok(Rest { http, base, credentials })
    }

    /// `path` is that of the storage interface: `projects/../datasets/../tables/..`.
    pub(super) async fn table(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, None, None).await
    }

    pub(super) async fn make_table(&self, dataset: &str, table: &Value) -> Result<Answer> {
        self.call(Method::POST, &format!("{dataset}/tables"), Some(table), None).await
    }

    pub(super) async fn make_dataset(&self, project: &str, dataset: &str, location: &str) -> Result<Answer> {
        let body = json!({
            "datasetReference": {"projectId": project, "datasetId": dataset},
            "location": location,
        });
        self.call(Method::POST, &format!("projects/{project}/datasets"), Some(&body), None).await
    }

    /// Gives a table that is still as `etag` says another schema.
    pub(super) async fn change_schema(&self, path: &str, schema: &Value, etag: &str) -> Result<Answer> {
        self.call(Method::PATCH, path, Some(&json!({ "schema": schema })), Some(etag)).await
    }

    /// Of these permissions those that whoever asks has not, by [`tables.testIamPermissions`](https://cloud.google.com/bigquery/docs/reference/rest/v2/tables/testIamPermissions);
    /// none where a server does not know it, as emulators do not.
    pub(super) async fn lacking(
        &self,
        path: &str,
        permissions: &[&'static str],
    ) -> Result<Vec<&'static str>> {
        let body = json!({ "permissions": permissions });
        let answer = self.call(Method::POST, &format!("{path}:testIamPermissions"), Some(&body), None).await;
        let granted = match answer {
            Ok(Answer::Done(answer)) if answer["permissions"].is_array() => answer["permissions"].clone(),
            // Nobody who may ask for nothing is told a list.
            Ok(Answer::Done(_)) => json!([]),
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == ErrorKind::InvalidConfig => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let has = |name: &&'static str| granted.as_array().is_some_and(|all| all.iter().any(|g| g == name));
        Ok(permissions.iter().copied().filter(|name| !has(name)).collect())
    }

    /// Tries until it is answered. Each request has the same effect twice as once, or is refused the second time.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer> {
        let mut patience = Patience::new();
        loop {
            let (status, text) = match self.ask(method.clone(), path, body, etag).await {
                Ok(answered) => answered,
                Err(e) if e.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(error = %e, "asking BigQuery again");
                    patience.wait(|| e).await?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let parsed: Value = serde_json::from_slice(&text).unwrap_or_default();
            if status.is_success() {
                return match parsed.is_object() {
                    true => Ok(Answer::Done(parsed)),
                    false => Err(Error::new(
                        ErrorKind::Corrupt,
                        format!("BigQuery: {path} is answered with no JSON"),
                    )),
                };
            }
            let told = parsed["error"]["message"].as_str().map(str::to_owned);
            let told = told.unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned());
            let why: String = told.chars().filter(|c| !c.is_control()).take(MAX_WHY).collect();
            let reason = parsed["error"]["errors"][0]["reason"].as_str().unwrap_or_default();
            let text = format!("BigQuery: {method} {path}: {why} ({status})");
            let kind = match status {
                StatusCode::NOT_FOUND => return Ok(Answer::NotFound(why)),
                StatusCode::CONFLICT => return Ok(Answer::Exists),
                StatusCode::PRECONDITION_FAILED => return Ok(Answer::Changed),
                StatusCode::FORBIDDEN if reason == "rateLimitExceeded" || reason == "quotaExceeded" => {
                    ErrorKind::Unavailable
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ErrorKind::Unavailable,
                status if status.is_server_error() => ErrorKind::Unavailable,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::PermissionDenied,
                _ => ErrorKind::InvalidConfig,
            };
            let error = Error::new(kind, text);
            if kind != ErrorKind::Unavailable {
                return Err(error);
            }
            tracing::warn!(%error, "asking BigQuery again");
            patience.wait(|| error).await?;
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<(StatusCode, Vec<u8>)> {
        let (headers, _) = self.credentials.headers().await?;
        let mut request = self.http.request(method, format!("{}/{path}", self.base)).headers(headers);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(etag) = etag {
            request = request.header(IF_MATCH, etag);
        }
        let failed = |e: reqwest::Error| {
            Error::new(ErrorKind::Unavailable, format!("BigQuery's REST interface: {}", e.without_url()))
        };
        let mut answer = request.send().await.map_err(failed)?;
        let mut text = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&part);
            if text.len() > MAX_ANSWER {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("BigQuery: the answer to {path} has no end"),
                ));
            }
        }
        Ok((answer.status(), text))
    }
}
