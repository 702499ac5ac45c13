//! Who a store acts as: tokens from google-cloud-auth, renewed when their source changes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use google_cloud_auth::credentials::{
    self, CacheableResource, Credentials as GoogleCredentials, external_account, impersonated,
    service_account, user_account,
};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::Value;
use tokio::task::JoinSet;

use super::aws_container::ContainerRole;
use super::config::{GcsCredentials, SCOPE, Settings};
use crate::error::{Error, ErrorKind, Result};

/// A token service that does not answer is asked by new means after that; the old ones may wait for ever.
const REMAKE_AFTER: Duration = Duration::from_secs(600);

pub(crate) struct Credentials {
    of: GcsCredentials,
    check_every: Duration,
    /// How long a token may take.
    patience: Duration,
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
pub(crate) struct Epoch(u64);

struct Current {
    source: Source,
    file: Option<File>,
    /// Its tokens are refused, or it has failed and keeps the failure.
    is_spent: bool,
    looked: Instant,
    made: Instant,
}

/// A file that was good when it was read.
struct File {
    path: PathBuf,
    changed: Option<SystemTime>,
    json: Value,
}

#[derive(Clone)]
enum Source {
    Google(GoogleCredentials),
    Container(Arc<ContainerRole>),
}

/// Nothing of the credentials themselves.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("of", &self.of).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let (of, check_every) = (settings.credentials.clone(), settings.credentials_check_every);
        Credentials::of(of, check_every, settings.request_timeout)
    }

    pub(crate) fn of(of: GcsCredentials, check_every: Duration, patience: Duration) -> Result<Self> {
        install_signer();
        let credentials = Credentials { of, check_every, patience, held: Mutex::default() };
        if let GcsCredentials::File(_) = &credentials.of {
            credentials.source()?;
        }
        Ok(credentials)
    }

    /// The headers of a request; none for anonymous ones. Tokens are cached, and renewed before they expire.
    ///
    /// # Errors
    /// `Unavailable` if the token service cannot be reached now, `PermissionDenied` if it refuses.
    pub(crate) async fn headers(&self) -> Result<(HeaderMap, Epoch)> {
        let (source, epoch) = self.source()?;
        let asked = async {
            match source {
                None => Ok(HeaderMap::new()),
                Some(Source::Google(google)) => self.ask(google, epoch).await,
                Some(Source::Container(role)) => {
                    Ok(HeaderMap::from_iter([(AUTHORIZATION, role.header().await?)]))
                }
            }
        };
        match tokio::time::timeout(self.patience, asked).await {
            Ok(headers) => Ok((headers?, epoch)),
            Err(_) => {
                self.remake(epoch);
                let text = "no token for Google Cloud: the token service did not answer in time";
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    async fn ask(&self, google: GoogleCredentials, epoch: Epoch) -> Result<HeaderMap> {
        // In a task of its own: the library panics on a token that has expired already (a clock that is wrong),
        // then and whenever it is asked again. A set, since that ends its task when nobody waits any more.
        let mut task = JoinSet::new();
        task.spawn(async move { google.headers(Default::default()).await });
        match task.join_next().await {
            Some(Ok(Ok(CacheableResource::New { data, .. }))) => Ok(data),
            None | Some(Ok(Ok(CacheableResource::NotModified))) => {
                Err(Error::new(ErrorKind::Unavailable, "google-cloud-auth gave no token; asking again"))
            }
            Some(Err(panicked)) => {
                self.renew(epoch);
                let text = "no token for Google Cloud: what the token service answered makes no sense; is the \
                            clock right?";
                Err(Error::new(ErrorKind::Unavailable, text).with_source(panicked))
            }
            Some(Ok(Err(e))) => {
                // It keeps a failure for good: the next token is asked for anew.
                self.renew(epoch);
                let (kind, hint) = match e.is_transient() {
                    true => (ErrorKind::Unavailable, ""),
                    false => (
                        ErrorKind::PermissionDenied,
                        "; check `credentials_file` and the roles of whom it names",
                    ),
                };
                Err(Error::new(kind, format!("no token for Google Cloud{hint}")).with_source(e))
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
        if held.epoch == epoch
            && let Some(current) = &mut held.current
        {
            current.is_spent = true;
        }
        true
    }

    /// What does not answer is given up, but seldom: the library's requests have no end of their own, and each
    /// source that is given up may leave one behind.
    fn remake(&self, epoch: Epoch) {
        let made = self.lock().current.as_ref().map(|current| current.made);
        if made.is_some_and(|made| made.elapsed() >= REMAKE_AFTER) {
            self.renew(epoch);
        }
    }

    /// Age of the file with a service account's key.
    pub(super) fn key_age(&self) -> Option<Duration> {
        let held = self.lock();
        let file =
            held.current.as_ref()?.file.as_ref().filter(|file| kind_of(&file.json) == "service_account")?;
        Some(SystemTime::now().duration_since(file.changed?).unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> Result<(Option<Source>, Epoch)> {
        let path = match &self.of {
            GcsCredentials::Anonymous => return Ok((None, Epoch::default())),
            GcsCredentials::File(path) => Some(path.clone()),
            GcsCredentials::Default => std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
        };
        let mut held = self.lock();
        let Held { current, epoch } = &mut *held;
        let Some(c) = current else {
            let new = current.insert(load(path.as_deref())?);
            epoch.0 += 1;
            return Ok((Some(new.source.clone()), *epoch));
        };
        let mut has_changed = false;
        if c.is_spent || c.looked.elapsed() >= self.check_every {
            c.looked = Instant::now();
            has_changed = c.file.as_ref().is_some_and(|file| changed(&file.path) != file.changed);
        }
        if c.is_spent || has_changed {
            let new = match (load(path.as_deref()), &c.file) {
                (Ok(new), _) => Some(new),
                (Err(error), None) => return Err(error),
                // A file that is being written, or gone: what was good before is good until it is refused for good.
                (Err(error), Some(file)) => {
                    tracing::warn!(%error, "the changed credentials of Google Cloud are not used");
                    c.is_spent.then(|| file.again()).transpose()?
                }
            };
            if let Some(new) = new {
                if has_changed {
                    tracing::info!("the credentials of Google Cloud are read again");
                }
                *c = new;
                epoch.0 += 1;
            }
        }
        Ok((Some(c.source.clone()), *epoch))
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn kind_of(json: &Value) -> &str {
    json.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn load(path: Option<&Path>) -> Result<Current> {
    if tokio::runtime::Handle::try_current().is_err() {
        // The library starts tasks, and panics where there is nothing to run them.
        let text = "a bucket with credentials is opened inside of a Tokio runtime, and there is none";
        return Err(Error::new(ErrorKind::Usage, text));
    }
    let Some(path) = path else {
        let google = credentials::Builder::default().with_scopes([SCOPE]).build().map_err(|e| {
            let text = "there are no Application Default Credentials; name a `credentials_file`, or set \
                        GOOGLE_APPLICATION_CREDENTIALS";
            Error::new(ErrorKind::InvalidConfig, text).with_source(e)
        })?;
        return Ok(Current::new(Source::Google(google), None));
    };
    let changed = changed(path);
    let bytes = std::fs::read(path).map_err(|e| unusable(path, e.to_string()))?;
    // What serde says of a file with a key in it could show a part of the key.
    let json = serde_json::from_slice(&bytes).map_err(|_| unusable(path, "it is not JSON".into()))?;
    File { path: path.to_owned(), changed, json }.again()
}

fn unusable(path: &Path, why: String) -> Error {
    let text = format!("the credentials in {} cannot be used: {why}", path.display());
    Error::new(ErrorKind::InvalidConfig, text)
}

impl Current {
    fn new(source: Source, file: Option<File>) -> Self {
        let now = Instant::now();
        Current { source, file, is_spent: false, looked: now, made: now }
    }
}

impl File {
    /// Credentials without any token yet.
    fn again(&self) -> Result<Current> {
        let File { path, changed, json } = self;
        let source = source_of(json).map_err(|why| unusable(path, why))?;
        Ok(Current::new(source, Some(File { path: path.clone(), changed: *changed, json: json.clone() })))
    }
}

fn source_of(json: &Value) -> Result<Source, String> {
    let json = json.clone();
    let built = match kind_of(&json) {
        "external_account" => {
            if let Some(role) = ContainerRole::new(&json, |name| std::env::var(name).ok())? {
                return Ok(Source::Container(Arc::new(role)));
            }
            external_account::Builder::new(json).with_scopes([SCOPE]).build()
        }
        "impersonated_service_account" => impersonated::Builder::new(json).with_scopes([SCOPE]).build(),
        "service_account" => service_account::Builder::new(json)
            .with_access_specifier(service_account::AccessSpecifier::from_scopes([SCOPE]))
            .build(),
        "authorized_user" => user_account::Builder::new(json).with_scopes([SCOPE]).build(),
        other => {
            return Err(format!(
                "its type is {other:?}; there are external_account, impersonated_service_account, service_account \
                 and authorized_user"
            ));
        }
    };
    built.map(Source::Google).map_err(|e| e.to_string())
}

/// google-cloud-auth signs with the process' default provider of rustls, and panics without one.
fn install_signer() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that the program has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
