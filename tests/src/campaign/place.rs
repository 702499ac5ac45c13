//! Where a campaign's files land, and how a reader sees them there.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use gristmill_sinks::fake_gcs::Faults;
use tempfile::TempDir;

/// A data file or a file of dead letters, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `rows/..` or `dead_letters/..`, separated by slashes.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// A kind of store that pipelines write to: rows under `rows`, dead letters under `dead_letters`.
pub trait Place: Debug + Send + Sync {
    /// What stands in the pipeline file under `sink`.
    fn sink(&self, format: &str, rotate_rows: u64) -> String;

    /// What stands in the pipeline file under `dead_letters`.
    fn dead_letters(&self) -> String;

    /// Commands that have to find nothing wrong at the end.
    fn checks(&self) -> &'static [&'static [&'static str]] {
        &[&["ledger", "verify"], &["audit"]]
    }

    /// What a reader sees: every file but those that are [`hidden`].
    ///
    /// # Errors
    /// If the place does not answer.
    fn list(&self) -> io::Result<Vec<Listed>>;

    /// A file that was listed; `None` if there is none of that name.
    ///
    /// # Errors
    /// If the place does not answer.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// A folder with everything that is visible, for the independent reader: a copy under `into`, or the place
    /// itself.
    ///
    /// # Errors
    /// If the place does not answer.
    fn download(&self, into: &Path) -> io::Result<PathBuf> {
        for listed in self.list()? {
            let bytes = self.read(&listed.name)?.ok_or_else(|| io::Error::other(listed.name.clone()))?;
            let path = into.join(&listed.name);
            std::fs::create_dir_all(path.parent().expect("a folder is above it"))?;
            std::fs::write(path, bytes)?;
        }
        Ok(into.to_owned())
    }

    /// The store's faults, where they can be switched on.
    fn store_faults(&self) -> Option<&Faults> {
        None
    }
}

/// A sink of files in that place.
pub(super) fn files(place: &str, format: &str, rotate_rows: u64) -> String {
    format!(
        "  files:\n    {place}\n    format: {format}\n    directories: dt=%Y-%m-%d/hour=%H\n    rotate: {{rows: {rotate_rows}, age: 1s}}\n"
    )
}

/// Whether Hive and Spark would take a name for data: `_gristmill` and its like they do not.
pub fn hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with(['_', '.']))
}

/// A local folder, removed with the value.
#[derive(Debug)]
pub struct Folder {
    root: TempDir,
}

impl Default for Folder {
    fn default() -> Self {
        Folder { root: tempfile::tempdir().expect("a temporary folder can be made") }
    }
}

impl Folder {
    fn walk(&self, name: &str, found: &mut Vec<Listed>) -> io::Result<()> {
        for entry in std::fs::read_dir(self.root.path().join(name))? {
            let entry = entry?;
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            if hidden(&name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.walk(&name, found)?;
            } else {
                // One that is gone by now was no data file, or will be missed.
                match entry.metadata() {
                    Ok(metadata) => found.push(Listed { name, size: metadata.len() }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        found.push(Listed { name, size: 0 });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl Place for Folder {
    fn sink(&self, format: &str, rotate_rows: u64) -> String {
        let place = format!("folder: '{}'", self.root.path().join("rows").display());
        files(&place, format, rotate_rows)
    }

    fn dead_letters(&self) -> String {
        format!("folder: '{}'", self.root.path().join("dead_letters").display())
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        for top in ["rows", "dead_letters"] {
            if self.root.path().join(top).is_dir() {
                self.walk(top, &mut found)?;
            }
        }
        Ok(found)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.root.path().join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn download(&self, _: &Path) -> io::Result<PathBuf> {
        Ok(self.root.path().to_owned())
    }
}
