//! A copy of a script's folder, beside the SDK and the contract, in which a tool may read and write.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use tempfile::TempDir;

use crate::Error;

const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 256 << 20;
const CONTRACT: &str = include_str!("../../../wit/transform.wit");

pub(super) struct Staging {
    folder: TempDir,
}

impl Staging {
    /// Takes what the script may import: no hidden files, no environments, no tests of the SDK.
    pub(super) fn of(dir: &Path) -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(|e| Error::host(format!("no folder to build in: {e}")))?;
        let staging = Staging { folder };
        let mut left = (MAX_FILES, MAX_BYTES);
        copy(dir, &staging.source(), &mut left).map_err(|e| match e.kind() {
            io::ErrorKind::FileTooLarge => Error::load(format!(
                "more than {MAX_FILES} files or {} MiB: keep what the transform does not import elsewhere",
                MAX_BYTES >> 20
            )),
            _ => Error::host(format!("its files were not copied: {e}")),
        })?;
        staging.write("wit/transform.wit", CONTRACT)?;
        Ok(staging)
    }

    /// Where the copy is.
    pub(super) fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub(super) fn write(&self, relative: &str, text: &str) -> Result<(), Error> {
        let path = self.path(relative);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.map_err(|e| Error::host(format!("{relative} was not written: {e}")))
    }

    /// Runs the tool, which writes `component.wasm`.
    pub(super) fn run(&self, tool: &mut Command) -> Result<Vec<u8>, Error> {
        let name = tool.get_program().display().to_string();
        let out = tool.output().map_err(|e| Error::host(format!("{name} did not start: {e}")))?;
        if !out.status.success() {
            let text = [String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)].concat();
            // Places in the copy are those in the folder.
            let text = text.replace(&self.source().display().to_string(), ".");
            return Err(Error::load(format!("{name} says:\n{}", text.trim())));
        }
        fs::read(self.path("component.wasm"))
            .map_err(|e| Error::host(format!("{name} wrote no component: {e}")))
    }
}

fn copy(from: &Path, to: &Path, left: &mut (usize, u64)) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_other = name.to_string_lossy().starts_with('.')
            || ["__pycache__", "venv", "gristmill-transform"].iter().any(|other| name == *other)
            || entry.path().join("pyvenv.cfg").is_file();
        let kind = fs::metadata(entry.path())?;
        if is_other {
            continue;
        }
        if kind.is_dir() {
            copy(&entry.path(), &to.join(&name), left)?;
            continue;
        }
        left.0 = left.0.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
        left.1 = left.1.checked_sub(kind.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        fs::copy(entry.path(), to.join(&name))?;
    }
    Ok(())
}

/// The transform's name for files: that of its folder.
pub(super) fn name_of(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    whole.file_name().map_or_else(|| "transform".to_owned(), |name| name.to_string_lossy().into_owned())
}
