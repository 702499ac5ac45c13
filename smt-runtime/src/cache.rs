//! Compiled components on disk. The file is native code, so it is only ever read from a directory that
//! nobody but us can write, and only if its checksum says that we wrote all of it.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Error;

/// Begins every file; the last byte is the version of this layout: magic, SHA-256 of the rest, the rest.
const MAGIC: &[u8; 16] = b"gristmill-aot\0\0\x01";

/// Bytes of compiled code that are kept; a component with CPython takes 75 MiB.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens the directory, makes it where it is missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let refused = |why: String| {
            Error::host(format!(
                "the cache directory {} is refused: {why}; it holds native code, so make it with `mkdir -m 700`, or \
                 choose another",
                dir.display()
            ))
        };
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(|e| refused(e.to_string()))?;
        }
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(refused(e.to_string())),
            _ => {}
        }
        let found = fs::symlink_metadata(dir).map_err(|e| refused(e.to_string()))?;
        let me = rustix::process::geteuid().as_raw();
        let mode = found.permissions().mode() & 0o7777;
        if !found.is_dir() {
            Err(refused("it is not a directory".into()))
        } else if found.uid() != me {
            Err(refused(format!("it belongs to user {}, and this process runs as user {me}", found.uid())))
        } else if mode & 0o077 != 0 {
            Err(refused(format!("its mode is {mode:04o}, which lets others in")))
        } else {
            Ok(Cache { dir: dir.to_owned() })
        }
    }

    /// The compiled component, from disk or compiled now and then stored. Trouble with the cache costs a
    /// compilation, never the load.
    pub(crate) fn component(
        &self,
        engine: &Engine,
        digest: &str,
        wasm: &[u8],
    ) -> wasmtime::Result<Component> {
        let path = self.path(engine, digest);
        match self.read(&path) {
            Ok(Some(code)) => {
                // SAFETY: the directory is ours alone (checked in `open`) and so is the file, its checksum says
                // that it is what we stored, and its name says that it was stored by an engine that is
                // compatible with this one.
                match unsafe { Component::deserialize(engine, &code) } {
                    Ok(component) => return Ok(component),
                    Err(e) => tracing::warn!(path = %path.display(), error = %e, "cached code does not load"),
                }
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(path = %path.display(), %why, "cached code is not used, compiling again")
            }
        }
        let component = Component::new(engine, wasm)?;
        if let Err(error) =
            component.serialize().map_err(|e| e.to_string()).and_then(|code| self.write(&path, &code))
        {
            tracing::warn!(path = %path.display(), %error, "compiled code was not cached");
        }
        Ok(component)
    }

    fn path(&self, engine: &Engine, digest: &str) -> PathBuf {
        let mut hasher = Sha(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.dir.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        let found = match fs::symlink_metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.to_string()),
            Ok(found) => found,
        };
        if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0
        {
            return Err("it is not a file that only this user can write".into());
        }
        let mut bytes = fs::read(path).map_err(|e| e.to_string())?;
        let head = MAGIC.len() + 32;
        if bytes.len() < head || bytes[..MAGIC.len()] != MAGIC[..] {
            return Err("it does not begin as a file of this cache".into());
        }
        if Sha256::digest(&bytes[head..])[..] != bytes[MAGIC.len()..head] {
            return Err("its checksum is wrong".into());
        }
        // For `keep_newest`.
        _ = fs::File::open(path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Ok(Some(bytes.split_off(head)))
    }

    fn write(&self, path: &Path, code: &[u8]) -> Result<(), String> {
        let store = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(&self.dir)?;
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(code))?;
            file.write_all(code)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            keep_newest(&self.dir, MAX_BYTES)
        };
        store().map_err(|e| e.to_string())
    }
}

/// Deletes the files that were written or used longest ago, until those of the folder have no more bytes than that.
pub(crate) fn keep_newest(dir: &Path, max_bytes: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        // What another process deletes meanwhile is gone.
        if let Ok(entry) = entry
            && let Ok(found) = entry.metadata()
            && found.is_file()
        {
            files.push((found.modified()?, found.len(), entry.path()));
        }
    }
    files.sort_by(|a, b| b.cmp(a));
    let mut bytes = 0;
    for (_, len, path) in files {
        bytes += len;
        if bytes > max_bytes {
            _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// A hash that is the same in every process.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_be_bytes(*digest.first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age) in [("old", 30), ("new", 10), ("middle", 20)] {
            let path = folder.path().join(name);
            fs::write(&path, [0; 10]).unwrap();
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        }
        keep_newest(folder.path(), 25).unwrap();
        let is_there = |name: &str| folder.path().join(name).exists();
        assert_eq!([is_there("old"), is_there("middle"), is_there("new")], [false, true, true]);
    }
}
