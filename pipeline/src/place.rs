//! Where files lie: a folder, or a bucket of Cloud Storage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gristmill_sinks::{FolderStore, GcsConfig, GcsCredentials, GcsStore, Store};

use crate::check::Checked;
use crate::error::Error;
use crate::file::{DeadLetters, Gcs, Rotate, Sink};

/// A half-written file of that age, whose writer is gone, is nobody's.
const STALE: Duration = Duration::from_secs(60);

/// One place of a pipeline file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Folder(&'a Path),
    Gcs(&'a Gcs),
}

impl Sink {
    /// Where the ledger lies, and with it the files, if rows go into files; none in a file that is not checked.
    pub(crate) fn named_place(&self) -> Option<Place<'_>> {
        let (folder, gcs) = match (&self.files, &self.bigquery) {
            (Some(files), _) => (&files.folder, &files.gcs),
            (None, Some(bigquery)) => (&bigquery.state.folder, &bigquery.state.gcs),
            (None, None) => return None,
        };
        folder.as_deref().map(Place::Folder).or(gcs.as_ref().map(Place::Gcs))
    }

    /// As `named_place`, of a checked file.
    pub(crate) fn place(&self) -> Place<'_> {
        self.named_place().unwrap_or_else(|| unreachable!("checked"))
    }

    /// When entries are closed.
    pub(crate) fn rotate(&self) -> Rotate {
        let files = self.files.as_ref().map(|files| &files.rotate);
        files.or(self.bigquery.as_ref().map(|bigquery| &bigquery.rotate)).cloned().unwrap_or_default()
    }
}

impl DeadLetters {
    /// Where files of dead letters go; `None` if they go to a topic.
    pub(crate) fn place(&self) -> Option<Place<'_>> {
        self.folder.as_deref().map(Place::Folder).or(self.gcs.as_ref().map(Place::Gcs))
    }
}

impl Place<'_> {
    /// What the names of its objects start with.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Place::Folder(_) => "",
            Place::Gcs(gcs) => gcs.prefix.as_deref().unwrap_or("").trim_matches('/'),
        }
    }

    /// Where the ledger's own objects lie.
    pub(crate) fn state_prefix(&self) -> String {
        let state = gristmill_sinks::DEFAULT_STATE_PREFIX;
        match self.prefix() {
            "" => state.to_owned(),
            prefix => format!("{prefix}/{state}"),
        }
    }

    /// Whether files of this place would be seen among the other's: it is the same, or inside of it.
    pub(crate) fn is_inside(&self, checked: &Checked, other: &Place<'_>) -> bool {
        match (self, other) {
            (Place::Folder(a), Place::Folder(b)) => checked.path(a) == checked.path(b),
            (Place::Gcs(a), Place::Gcs(b)) => {
                let endpoint =
                    |gcs: &Gcs| gcs.endpoint.as_deref().map(|e| e.trim_end_matches('/').to_owned());
                let (inner, outer) = (self.prefix(), other.prefix());
                // Below a bucket's root lies everything: there who reads names the topic's folder.
                let inside = inner == outer
                    || (!outer.is_empty()
                        && inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/')));
                (&a.bucket, endpoint(a)) == (&b.bucket, endpoint(b)) && inside
            }
            _ => false,
        }
    }

    /// The place as it is named to people.
    pub(crate) fn shown(&self, checked: &Checked) -> String {
        match self {
            Place::Folder(folder) => checked.path(folder).display().to_string(),
            Place::Gcs(gcs) => format!("gs://{}/{}", gcs.bucket, self.prefix()),
        }
    }

    /// Opens it for writing. A folder is created if need be; what killed processes left half-written in it is
    /// deleted beside the work.
    pub(crate) fn open(&self, checked: &Checked) -> Result<Opened, Error> {
        match self {
            Place::Folder(folder) => {
                let store = FolderStore::open(checked.path(folder)).map_err(unfit)?;
                tidy(store.clone());
                Ok(Opened::folder(store))
            }
            Place::Gcs(gcs) => self.open_bucket(checked, gcs),
        }
    }

    /// Opens it to be looked at. Nothing is created.
    pub(crate) fn look(&self, checked: &Checked) -> Result<Opened, Error> {
        match self {
            Place::Folder(folder) => {
                let folder = checked.path(folder);
                if !folder.is_dir() {
                    return Err(Error::config(format!(
                        "there is no folder {}: the pipeline has not written anything yet",
                        folder.display()
                    )));
                }
                let store = FolderStore::look(&folder).map_err(Error::sink)?;
                Ok(Opened::folder(store))
            }
            Place::Gcs(gcs) => self.open_bucket(checked, gcs),
        }
    }

    fn open_bucket(&self, checked: &Checked, gcs: &Gcs) -> Result<Opened, Error> {
        let state = self.state_prefix();
        let mut config = GcsConfig::builder(&gcs.bucket).probe_prefix(&state);
        if let Some(endpoint) = &gcs.endpoint {
            config = config.endpoint(endpoint);
        }
        if let Some(staging) = &gcs.staging_bucket {
            config = config.staging_bucket(staging, format!("{state}/staged/"));
        }
        config = config.credentials(match (&gcs.credentials_file, gcs.credentials) {
            (Some(file), _) => GcsCredentials::File(checked.path(file)),
            (None, crate::file::GcsCredentials::Default) => GcsCredentials::Default,
            (None, crate::file::GcsCredentials::Anonymous) => GcsCredentials::Anonymous,
        });
        if let Some(file) = &gcs.ca_file {
            config = config.ca_file(checked.path(file));
        }
        let store = config
            .build()
            .and_then(GcsStore::open)
            .map_err(|e| Error::config(format!("{}: {e}", self.shown(checked))))?;
        Ok(Opened { store: Arc::new(store.clone()), folder: None, gcs: Some(store) })
    }
}

/// An opened place.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// The same, if it is a folder.
    folder: Option<FolderStore>,
    /// The same, if it is a bucket.
    pub(crate) gcs: Option<GcsStore>,
}

impl Opened {
    fn folder(store: FolderStore) -> Self {
        Opened { store: Arc::new(store.clone()), folder: Some(store), gcs: None }
    }

    /// Finds out before the first record whether files can be published there.
    pub(crate) async fn probe(&self) -> Result<(), Error> {
        if let Some(folder) = &self.folder {
            folder.probe().await.map_err(unfit)?;
        }
        if let Some(gcs) = &self.gcs {
            gcs.probe().await.map_err(unfit)?;
        }
        Ok(())
    }
}

/// What is worth knowing of the buckets that a pipeline file names, before it runs; nothing of folders.
///
/// Nothing is written. One line each; the flag says that the pipeline would stop or lose what it keeps.
///
/// # Errors
/// [`ErrorKind::Sink`](crate::ErrorKind::Sink) if a bucket is not there or cannot be asked.
pub async fn check_buckets(checked: &Checked) -> Result<Vec<(bool, String)>, Error> {
    let file = &checked.pipeline;
    let letters = file.dead_letters.as_ref().and_then(DeadLetters::place);
    let mut lines = Vec::new();
    for place in [Some(file.sink.place()), letters].into_iter().flatten() {
        let Some(gcs) = place.look(checked)?.gcs else { continue };
        for report in gcs.report(&place.state_prefix()).await.map_err(Error::sink)? {
            let bucket = &report.bucket;
            lines.extend(report.notes.iter().map(|n| (n.is_problem, format!("gs://{bucket}: {}", n.text))));
        }
    }
    Ok(lines)
}

fn unfit(error: gristmill_sinks::Error) -> Error {
    Error::sink(error).because("files cannot be published there")
}

fn tidy(store: FolderStore) {
    tokio::spawn(async move {
        match store.remove_stale_temporaries(STALE).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "deleted what a killed process left half-written"),
            Err(error) => tracing::warn!(%error, "half-written files of a killed process are left"),
        }
    });
}
