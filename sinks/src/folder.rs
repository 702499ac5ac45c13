use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{
    BoxFuture, Create, Generation, Listed, Move, Object, Staged, StagedWrite, Stat, Store, validate_name,
};

/// Where unfinished files live: hidden, so that no reader of the folder takes them for data.
const TEMPORARY: &str = ".gristmill-tmp";

/// How many directories are remembered as durable before the list starts over.
const REMEMBERED_DIRECTORIES: usize = 10_000;

/// A folder of a local file system as a [`Store`].
///
/// Writing is: a temporary file in the hidden folder `.gristmill-tmp` of the same file system, `fsync`, a
/// rename that never replaces (`renameat2` with `RENAME_NOREPLACE`; `link` and `unlink` where the file
/// system has no such rename), `fsync` of the directory. So a file appears under its name whole and durable,
/// and of concurrent writers one wins, between threads and between processes.
///
/// A generation is the modification time in nanoseconds: it survives renames and copies that keep times
/// (`cp -a`, `rsync -a`).
///
/// Network file systems keep these promises only if their rename and fsync do.
#[derive(Clone, Debug)]
pub struct FolderStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Directories whose own entry in their parent this process has made durable. A leaf lock.
    durable: Mutex<HashSet<PathBuf>>,
}

impl FolderStore {
    /// Opens the folder `root`, creating it if need be.
    ///
    /// # Errors
    /// `PermissionDenied`, `Unavailable` and so on, with the path. Blocks for a few system calls.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let temporary = root.join(TEMPORARY);
        fs::create_dir_all(&temporary).map_err(|e| failed("create the folder", &temporary, e))?;
        let root = root.canonicalize().map_err(|e| failed("open the folder", root, e))?;
        sync_directory(&root)?;
        if let Some(parent) = root.parent() {
            // The folder itself may be new. A parent that we may not open is not ours to sync.
            let _ = sync_directory(parent);
        }
        Ok(FolderStore { inner: Arc::new(Inner { root, durable: Mutex::new(HashSet::new()) }) })
    }

    /// As [`FolderStore::open`], to look at a folder that is there. Nothing is created.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn look(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let root = root.canonicalize().map_err(|e| failed("open the folder", root, e))?;
        Ok(FolderStore { inner: Arc::new(Inner { root, durable: Mutex::new(HashSet::new()) }) })
    }

    /// The folder, as an absolute path.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Deletes temporary files that a killed process left behind and says how many. A file is left alone
    /// if a living process has it open for writing (it holds a lock) or if it is younger than `min_age`.
    ///
    /// # Errors
    /// If the folder cannot be read. Cancel safe.
    pub async fn remove_stale_temporaries(&self, min_age: Duration) -> Result<usize> {
        self.run(move |inner| inner.remove_stale_temporaries(min_age)).await
    }

    /// Finds out whether files can be written, by a small one that nobody sees and that is removed again.
    ///
    /// # Errors
    /// `PermissionDenied`, `OutOfSpace` and so on. Cancel safe.
    pub async fn probe(&self) -> Result<()> {
        self.run(|inner| {
            let mut temporary = Temporary::create(inner)?;
            temporary.write(b"probe")?;
            temporary.sync().map(|_| ())
        })
        .await
    }

    fn run<T, F>(&self, work: F) -> BoxFuture<'static, Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T> + Send + 'static,
    {
        let inner = self.inner.clone();
        Box::pin(async move { blocking(move || work(&inner)).await })
    }
}

async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(Error::new(ErrorKind::OutcomeUnknown, "the file system task was stopped before it answered")
            .with_source(e))
    })
}

impl Store for FolderStore {
    fn create_if_absent<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Create>> {
        let name = name.to_owned();
        self.run(move |inner| {
            let path = inner.path(&name)?;
            if path.exists() {
                // The winner may not have made it durable yet, and the caller will build on it.
                sync_parent(&path)?;
                return Ok(Create::Exists);
            }
            let mut temporary = Temporary::create(inner)?;
            temporary.write(&bytes)?;
            let generation = temporary.sync()?;
            match inner.place(&temporary.path, &path)? {
                Placed::Done => Ok(Create::Created(generation)),
                Placed::Taken => {
                    sync_parent(&path)?;
                    Ok(Create::Exists)
                }
                Placed::SourceGone => Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "temporary file for {} was removed by another process; try again",
                        path.display()
                    ),
                )),
            }
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Object>>> {
        let name = name.to_owned();
        self.run(move |inner| {
            let path = inner.path(&name)?;
            let Some(mut file) = open_existing(&path)? else { return Ok(None) };
            // What is read may be acted on: it must not vanish with the power.
            sync_parent(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(|e| failed("read", &path, e))?;
            let metadata = file.metadata().map_err(|e| failed("read the metadata of", &path, e))?;
            Ok(Some(Object { bytes: bytes.into(), generation: generation_of(&metadata) }))
        })
    }

    fn stat<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Stat>>> {
        let name = name.to_owned();
        self.run(move |inner| {
            let path = inner.path(&name)?;
            let Some(mut file) = open_existing(&path)? else { return Ok(None) };
            let (mut crc, mut bytes, mut chunk) = (0, 0, vec![0; 256 * 1024]);
            loop {
                let n = file.read(&mut chunk).map_err(|e| failed("read", &path, e))?;
                if n == 0 {
                    break;
                }
                crc = crc32c::crc32c_append(crc, &chunk[..n]);
                bytes += n as u64;
            }
            let metadata = file.metadata().map_err(|e| failed("read the metadata of", &path, e))?;
            Ok(Some(Stat { generation: generation_of(&metadata), bytes, crc32c: crc }))
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let (prefix, start_after) = (prefix.to_owned(), start_after.map(str::to_owned));
        self.run(move |inner| {
            let mut walk = Walk { prefix: &prefix, after: start_after.as_deref(), limit, found: Vec::new() };
            let (folder, _) = prefix.rsplit_once('/').unwrap_or(("", ""));
            if !folder.is_empty() {
                validate_name(folder)?;
            }
            let at = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            walk.directory(&inner.root.join(folder), &at)?;
            Ok(walk.found)
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        let name = name.to_owned();
        self.run(move |inner| {
            let path = inner.path(&name)?;
            match fs::remove_file(&path) {
                Ok(()) => Ok(true),
                Err(e) if is_absent(&e) => Ok(false),
                Err(e) => Err(failed("delete", &path, e)),
            }
        })
    }

    fn stage<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        let (name, store) = (name.to_owned(), self.inner.clone());
        self.run(move |inner| {
            inner.path(&name)?;
            let temporary = Temporary::create(inner)?;
            Ok(Box::new(FolderWrite { name, store, crc32c: 0, bytes: 0, temporary: Some(temporary) })
                as Box<dyn StagedWrite>)
        })
    }

    fn move_if_absent<'a>(
        &'a self,
        staged: &'a str,
        generation: Generation,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Move>> {
        let (staged, to) = (staged.to_owned(), to.to_owned());
        self.run(move |inner| {
            let (from, to) = (inner.path(&staged)?, inner.path(&to)?);
            let gone = || {
                // Whoever moved it may not have made it durable yet, and the caller will commit on it.
                match to.parent() {
                    Some(parent) if parent.exists() => sync_directory(parent),
                    _ => Ok(()),
                }
                .map(|()| Move::AlreadyMoved)
            };
            let metadata = match fs::metadata(&from) {
                Ok(metadata) => metadata,
                Err(e) if is_absent(&e) => return gone(),
                Err(e) => return Err(failed("read the metadata of", &from, e)),
            };
            if generation_of(&metadata) != generation {
                return Err(Error::new(
                    ErrorKind::Changed,
                    format!("{} is not the file that was staged: it was written again since", from.display()),
                ));
            }
            match inner.place(&from, &to)? {
                Placed::Done => {
                    sync_parent(&from)?;
                    Ok(Move::Moved)
                }
                Placed::SourceGone => gone(),
                Placed::Taken => Ok(Move::DestinationExists),
            }
        })
    }
}

enum Placed {
    Done,
    Taken,
    SourceGone,
}

impl Inner {
    fn path(&self, name: &str) -> Result<PathBuf> {
        validate_name(name)?;
        if name.split('/').next() == Some(TEMPORARY) {
            return Err(Error::new(
                ErrorKind::InvalidName,
                format!("object name {name:?} is in the folder for temporary files"),
            ));
        }
        Ok(self.root.join(name))
    }

    /// Creates the directories above `path` and makes each of them durable.
    fn create_parents(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent().filter(|p| *p != self.root) else { return Ok(()) };
        if self.is_durable(parent) && parent.is_dir() {
            return Ok(());
        }
        self.create_parents(parent)?;
        match fs::create_dir(parent) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("create the folder", parent, e)),
        }
        sync_parent(parent)?;
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() >= REMEMBERED_DIRECTORIES {
            durable.clear();
        }
        durable.insert(parent.to_owned());
        Ok(())
    }

    fn is_durable(&self, directory: &Path) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(directory)
    }

    /// Renames without replacing, and makes the new name durable.
    fn place(&self, from: &Path, to: &Path) -> Result<Placed> {
        self.create_parents(to)?;
        let placed = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Placed::Done,
            // The new folder can vanish too, if somebody tidies up empty folders: then nothing was moved.
            Err(Errno::NOENT) if from.exists() => {
                return Err(failed("move into place", to, Errno::NOENT.into()));
            }
            Err(Errno::NOENT) => Placed::SourceGone,
            Err(Errno::EXIST) => self.finish_half_move(from, to)?,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_then_unlink(from, to)?,
            Err(e) => return Err(failed("move into place", to, e.into())),
        };
        if let Placed::Done = placed {
            sync_parent(to)?;
        }
        Ok(placed)
    }

    fn link_then_unlink(&self, from: &Path, to: &Path) -> Result<Placed> {
        match fs::hard_link(from, to) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return self.finish_half_move(from, to),
            Err(e) if is_absent(&e) => return Ok(Placed::SourceGone),
            Err(e) => return Err(failed("link into place", to, e)),
        }
        sync_parent(to)?;
        fs::remove_file(from)
            .or_else(|e| if is_absent(&e) { Ok(()) } else { Err(failed("unlink", from, e)) })?;
        Ok(Placed::Done)
    }

    /// Both names exist. If they are one file, a process died between link and unlink.
    fn finish_half_move(&self, from: &Path, to: &Path) -> Result<Placed> {
        let id = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        match (id(from), id(to)) {
            (None, _) => Ok(Placed::SourceGone),
            (Some(a), Some(b)) if a == b => {
                sync_parent(to)?;
                fs::remove_file(from)
                    .or_else(|e| if is_absent(&e) { Ok(()) } else { Err(failed("unlink", from, e)) })?;
                Ok(Placed::Done)
            }
            _ => Ok(Placed::Taken),
        }
    }

    fn remove_stale_temporaries(&self, min_age: Duration) -> Result<usize> {
        let folder = self.root.join(TEMPORARY);
        let mut removed = 0;
        for entry in fs::read_dir(&folder).map_err(|e| failed("list", &folder, e))? {
            let path = entry.map_err(|e| failed("list", &folder, e))?.path();
            let Ok(file) = File::open(&path) else { continue };
            let age = file.metadata().and_then(|m| m.modified()).ok();
            let old =
                age.is_some_and(|t| SystemTime::now().duration_since(t).is_ok_and(|age| age >= min_age));
            if old
                && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && fs::remove_file(&path).is_ok()
            {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A file that nobody sees; removed when dropped, unless it was renamed away before.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn create(inner: &Inner) -> Result<Self> {
        let path = inner.root.join(TEMPORARY).join(uuid::Uuid::new_v4().to_string());
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| failed("create the temporary file", &path, e))?;
        // Tells the remover of stale files that we live. Not every file system has locks: then age decides.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
        Ok(Temporary { file, path })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| failed("write", &self.path, e))
    }

    fn sync(&self) -> Result<Generation> {
        self.file.sync_all().map_err(|e| failed("fsync", &self.path, e))?;
        Ok(generation_of(&self.file.metadata().map_err(|e| failed("read the metadata of", &self.path, e))?))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            // After a rename there is nothing under this name, which is as it should be.
            let _ = fs::remove_file(path);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[derive(Debug)]
struct FolderWrite {
    name: String,
    store: Arc<Inner>,
    crc32c: u32,
    bytes: u64,
    /// Absent while a system call runs, and for ever if that call failed or was dropped.
    temporary: Option<Temporary>,
}

fn torn(name: &str) -> Error {
    Error::new(ErrorKind::Torn, format!("the upload of {name} was interrupted before; start it again"))
}

impl StagedWrite for FolderWrite {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut temporary = self.temporary.take().ok_or_else(|| torn(&self.name))?;
            let crc32c = self.crc32c;
            let length = bytes.len() as u64;
            let (temporary, crc32c) = blocking(move || {
                temporary.write(&bytes)?;
                Ok((temporary, crc32c::crc32c_append(crc32c, &bytes)))
            })
            .await?;
            (self.temporary, self.crc32c, self.bytes) = (Some(temporary), crc32c, self.bytes + length);
            Ok(())
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Staged>> {
        Box::pin(blocking(move || {
            let FolderWrite { name, store, crc32c, bytes, temporary } = *self;
            let temporary = temporary.ok_or_else(|| torn(&name))?;
            let generation = temporary.sync()?;
            match store.place(&temporary.path, &store.path(&name)?)? {
                Placed::Done => Ok(Staged { name, generation, bytes, crc32c }),
                Placed::Taken => Err(Error::new(
                    ErrorKind::DestinationTaken,
                    format!("staged name {name} is in use; staged names must be unique"),
                )),
                Placed::SourceGone => Err(torn(&name)),
            }
        }))
    }
}

/// Collects names in byte order, without looking into folders that cannot hold any.
struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    found: Vec<Listed>,
}

impl Walk<'_> {
    /// `at` is the name of the directory with a slash at its end, or empty for the root.
    fn directory(&mut self, path: &Path, at: &str) -> Result<()> {
        let mut children = Vec::new();
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) if is_absent(&e) => return Ok(()),
            Err(e) => return Err(failed("list", path, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| failed("list", path, e))?;
            let is_directory = match entry.file_type() {
                Ok(kind) if kind.is_dir() => true,
                Ok(kind) if kind.is_file() => false,
                _ => continue,
            };
            let file_name = entry.file_name();
            // A name that is not UTF-8 was not written by a store.
            let Some(file_name) = utf8(&file_name) else { continue };
            if at.is_empty() && file_name == TEMPORARY {
                continue;
            }
            children.push(format!("{at}{file_name}{}", if is_directory { "/" } else { "" }));
        }
        // Folders are sorted with their slash, as their contents are.
        children.sort_unstable();
        for name in children {
            if self.found.len() >= self.limit {
                break;
            }
            if let Some(directory) = name.strip_suffix('/') {
                let may_match = name.starts_with(self.prefix) || self.prefix.starts_with(name.as_str());
                let all_before =
                    self.after.is_some_and(|after| after > name.as_str() && !after.starts_with(&name));
                if may_match && !all_before {
                    let child = path.join(directory.rsplit('/').next().unwrap_or(directory));
                    self.directory(&child, &name)?;
                }
            } else if name.starts_with(self.prefix) && self.after.is_none_or(|after| name.as_str() > after) {
                let file = path.join(name.rsplit('/').next().unwrap_or(&name));
                match fs::metadata(&file) {
                    Ok(m) => self.found.push(Listed { name, generation: generation_of(&m), bytes: m.len() }),
                    Err(e) if is_absent(&e) => {}
                    Err(e) => return Err(failed("read the metadata of", &file, e)),
                }
            }
        }
        Ok(())
    }
}

fn utf8(name: &OsStr) -> Option<&str> {
    std::str::from_utf8(name.as_bytes()).ok()
}

fn generation_of(metadata: &fs::Metadata) -> Generation {
    let nanoseconds = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
    Generation(nanoseconds.cast_unsigned())
}

fn open_existing(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|m| m.is_file()) => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(failed("open", path, e)),
    }
}

fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|e| failed("fsync the folder", path, e))
}

/// An I/O error in the terms of [`ErrorKind`], with what was tried and where.
fn failed(what: &str, path: &Path, e: io::Error) -> Error {
    let (kind, advice) = match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::PermissionDenied, "; give this process the right to write there")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (ErrorKind::OutOfSpace, "; free some space and start again, nothing is lost")
        }
        io::ErrorKind::CrossesDevices => (ErrorKind::Unsupported, "; the folder must lie on one file system"),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => (
            ErrorKind::Unsupported,
            "; a file is where a folder has to be: move it away, or name another folder",
        ),
        // A failed fsync may have dropped the dirty pages: nobody knows what is on the disk.
        _ if what.starts_with("fsync") || e.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            (ErrorKind::OutcomeUnknown, "")
        }
        _ => (ErrorKind::Unavailable, ""),
    };
    Error::new(kind, format!("cannot {what} {}{advice}", path.display())).with_source(e)
}
