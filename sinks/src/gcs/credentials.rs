//! Who a store acts as: tokens from google-cloud-auth, renewed when their source changes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use google_cloud_auth::credentials::{
    self, CacheableResource, Credentials as Source, external_account, impersonated, service_account,
    user_account,
};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::config::GcsCredentials;
use crate::error::{Error, ErrorKind, Result};

/// How often a credentials file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

pub(super) struct Credentials {
    of: GcsCredentials,
    /// A leaf lock, never held across an await.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    current: Option<Current>,
    epoch: Epoch,
}

/// Rises whenever the credentials are made anew: tells a token that was refused from one that came after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch(u64);

struct Current {
    source: Source,
    file: Option<(PathBuf, Option<SystemTime>)>,
    is_key: bool,
    looked: Instant,
}

/// Nothing of the credentials themselves.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("of", &self.of).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn new(of: GcsCredentials) -> Result<Self> {
        install_signer();
        let credentials = Credentials { of, held: Mutex::default() };
        if let GcsCredentials::File(_) = &credentials.of {
            credentials.source()?;
        }
        Ok(credentials)
    }

    /// The headers of a request; none for anonymous ones. Tokens are cached, and renewed before they expire.
    ///
    /// # Errors
    /// `Unavailable` if the token service cannot be reached now, `PermissionDenied` if it refuses.
    pub(super) async fn headers(&self) -> Result<(HeaderMap, Epoch)> {
        let (source, epoch) = self.source()?;
        let Some(source) = source else { return Ok((HeaderMap::new(), epoch)) };
        match source.headers(Default::default()).await {
            Ok(CacheableResource::New { data, .. }) => Ok((data, epoch)),
            Ok(CacheableResource::NotModified) => {
                Err(Error::new(ErrorKind::Unavailable, "google-cloud-auth gave no token; asking again"))
            }
            Err(e) => {
                // It keeps a failure for good: the next token is asked for anew.
                self.renew(epoch);
                let (kind, hint) = match e.is_transient() {
                    true => (ErrorKind::Unavailable, ""),
                    false => (
                        ErrorKind::PermissionDenied,
                        "; check `credentials_file` and the roles of whom it names",
                    ),
                };
                Err(Error::new(kind, format!("no token for Cloud Storage{hint}")).with_source(e))
            }
        }
    }

    /// Sees to it that the next request has another token than those of `epoch`; `false` if there are no tokens.
    pub(super) fn renew(&self, epoch: Epoch) -> bool {
        if self.of == GcsCredentials::Anonymous {
            return false;
        }
        let mut held = self.lock();
        // Another request may have been faster.
        if held.epoch == epoch {
            held.current = None;
        }
        true
    }

    /// Age of the file with a service account's key.
    pub(super) fn key_age(&self) -> Option<Duration> {
        let held = self.lock();
        let (_, changed) = held.current.as_ref().filter(|c| c.is_key)?.file.as_ref()?;
        Some(SystemTime::now().duration_since((*changed)?).unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> Result<(Option<Source>, Epoch)> {
        let file = match &self.of {
            GcsCredentials::Anonymous => return Ok((None, Epoch::default())),
            GcsCredentials::File(path) => Some(path.clone()),
            GcsCredentials::Default => std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
        };
        let mut held = self.lock();
        let Held { current, epoch } = &mut *held;
        if let Some(c) = current {
            if c.looked.elapsed() >= LOOK_EVERY {
                c.looked = Instant::now();
                if c.file.as_ref().is_some_and(|(path, at)| changed(path) != *at) {
                    match load(file.as_deref()) {
                        Ok(new) => {
                            tracing::info!(
                                "the credentials of Cloud Storage have changed and are read again"
                            );
                            *c = new;
                            epoch.0 += 1;
                        }
                        // A file that is being written: what was good before is good until it expires.
                        Err(error) => {
                            tracing::warn!(%error, "the changed credentials of Cloud Storage are not used");
                        }
                    }
                }
            }
            return Ok((Some(c.source.clone()), *epoch));
        }
        let new = load(file.as_deref())?;
        let source = new.source.clone();
        *current = Some(new);
        epoch.0 += 1;
        Ok((Some(source), *epoch))
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn load(file: Option<&Path>) -> Result<Current> {
    let now = Instant::now();
    let Some(path) = file else {
        let source = credentials::Builder::default().with_scopes([SCOPE]).build().map_err(|e| {
            let text = "there are no Application Default Credentials; name a `credentials_file`, or set \
                        GOOGLE_APPLICATION_CREDENTIALS";
            Error::new(ErrorKind::InvalidConfig, text).with_source(e)
        })?;
        return Ok(Current { source, file: None, is_key: false, looked: now });
    };
    let bad = |why: String| {
        let text = format!("the credentials in {} cannot be used: {why}", path.display());
        Error::new(ErrorKind::InvalidConfig, text)
    };
    let at = changed(path);
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    // What serde says of a file with a key in it could show a part of the key.
    let json: Value = serde_json::from_slice(&bytes).map_err(|_| bad("it is not JSON".into()))?;
    let kind = json.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let built = match kind.as_str() {
        "external_account" => external_account::Builder::new(json).with_scopes([SCOPE]).build(),
        "impersonated_service_account" => impersonated::Builder::new(json).with_scopes([SCOPE]).build(),
        "service_account" => service_account::Builder::new(json)
            .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
            .build(),
        "authorized_user" => user_account::Builder::new(json).with_scopes([SCOPE]).build(),
        other => {
            return Err(bad(format!(
                "its type is {other:?}; there are external_account, impersonated_service_account, service_account \
                 and authorized_user"
            )));
        }
    };
    let source = built.map_err(|e| bad(e.to_string()))?;
    let is_key = kind == "service_account";
    Ok(Current { source, file: Some((path.to_owned(), at)), is_key, looked: now })
}

/// google-cloud-auth signs with the process' default provider of rustls, and panics without one.
fn install_signer() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that the program has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
