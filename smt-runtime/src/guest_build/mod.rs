//! Builds a transform's folder into a component: a crate, or a script of Python or JavaScript.

mod javascript;
mod python;
mod rust;
mod staging;

use std::path::{Path, PathBuf};
use std::{env, fs};

use sha2::{Digest, Sha256};

use crate::Error;

/// Bytes of components that are kept; one with CPython has 18 MiB.
const MAX_BYTES: u64 = 512 << 20;

/// A component that [`build_guest`] made.
#[derive(Debug, Clone)]
pub struct BuiltGuest {
    /// The file, in the user's cache, named by its content: later builds do not touch it until many have been made.
    pub component: PathBuf,
    /// What built it.
    pub toolchain: GuestToolchain,
}

/// What builds guests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestToolchain {
    /// cargo; the target is installed for the Rust toolchain in use.
    Installed,
    /// cargo, with Debian's packages `rustc-web` and `rust-web-src`: this compiler builds the library from source, once.
    Debian {
        /// The compiler.
        rustc: PathBuf,
    },
    /// [componentize-py](https://github.com/bytecodealliance/componentize-py): CPython in the component.
    ComponentizePy {
        /// The program.
        program: PathBuf,
    },
    /// [componentize-qjs](https://github.com/andreiltd/componentize-qjs): QuickJS in the component.
    ComponentizeQjs {
        /// The program.
        program: PathBuf,
    },
}

impl std::fmt::Display for GuestToolchain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GuestToolchain::Installed => f.write_str("the installed target wasm32-unknown-unknown"),
            GuestToolchain::Debian { rustc } => {
                write!(f, "{} (the target wasm32-unknown-unknown is not installed)", rustc.display())
            }
            GuestToolchain::ComponentizePy { program } | GuestToolchain::ComponentizeQjs { program } => {
                write!(f, "{}", program.display())
            }
        }
    }
}

/// What a language's builder gives.
struct Built {
    name: String,
    bytes: Vec<u8>,
    toolchain: GuestToolchain,
}

/// Builds the transform in `dir` and gives back its component. `Cargo.toml` makes it a crate, `transform.py` or
/// `transform.js` a script, into whose component goes the SDK that this crate comes with.
///
/// Messages of the tools go to standard error. The component holds no path of this machine, and not the name of the
/// registry that its crates come from.
///
/// # Errors
/// Kind `Host` where a tool is missing, with the command that installs it; kind `Load` where `dir` holds no transform or it
/// does not compile.
pub fn build_guest(dir: impl AsRef<Path>) -> Result<BuiltGuest, Error> {
    build_guest_with(dir, &GuestOptions::default())
}

/// How a guest is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestOptions {
    debug_info: bool,
}

impl GuestOptions {
    /// Keeps names and lines in the component of a crate, so that a trap says where it was. It is larger, and has another
    /// digest; it is not slower. Default: no.
    #[must_use]
    pub fn with_debug_info(mut self, debug_info: bool) -> Self {
        self.debug_info = debug_info;
        self
    }
}

/// As [`build_guest`], with options.
///
/// # Errors
/// As there.
pub fn build_guest_with(dir: impl AsRef<Path>, options: &GuestOptions) -> Result<BuiltGuest, Error> {
    let dir = dir.as_ref();
    let place = |e: Error| e.within(dir.display());
    let cache = cache_folder().map_err(place)?;
    let is_there = |file: &str| dir.join(file).is_file();
    let built = if is_there("Cargo.toml") {
        rust::build(dir, &cache, options)
    } else if is_there(python::FILE) {
        python::build(dir)
    } else if is_there(javascript::FILE) {
        javascript::build(dir)
    } else {
        Err(Error::load(
            "there is no Cargo.toml, transform.py or transform.js: this is not the folder of a transform",
        ))
    };
    let built = built.map_err(place)?;
    let component = keep(&cache, &built)
        .map_err(|e| place(Error::host(format!("the component was not kept in {}: {e}", cache.display()))))?;
    Ok(BuiltGuest { component, toolchain: built.toolchain })
}

/// The crate in `dir`, compiled for this machine, as a library for [`NativeTransform`](crate::NativeTransform).
pub(crate) fn build_native(dir: &Path) -> Result<PathBuf, Error> {
    let place = |e: Error| e.within(dir.display());
    if !dir.join("Cargo.toml").is_file() {
        return Err(place(Error::load("there is no Cargo.toml: only crates are compiled for this machine")));
    }
    rust::build_native(dir, &cache_folder().map_err(place)?).map_err(place)
}

fn cache_folder() -> Result<PathBuf, Error> {
    user_cache().ok_or_else(|| {
        Error::host("there is no cache folder: neither XDG_CACHE_HOME nor HOME is an absolute path")
    })
}

/// A name that says the content: the next build of a transform with this name does not touch it.
fn keep(cache: &Path, built: &Built) -> std::io::Result<PathBuf> {
    let digest: String = Sha256::digest(&built.bytes)[..8].iter().map(|b| format!("{b:02x}")).collect();
    let folder = cache.join("components");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}-{digest}.wasm", built.name));
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    std::io::Write::write_all(&mut file, &built.bytes)?;
    file.persist(&path)?;
    crate::cache::keep_newest(&folder, MAX_BYTES)?;
    Ok(path)
}

/// Where a program is that `folders`, or else PATH, have.
fn find_program(name: &str, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.into_iter().map(|folder| folder.join(name)).find(|p| p.is_file()).or_else(|| on_path(name))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// `$XDG_CACHE_HOME/gristmill`, or `~/.cache/gristmill`.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("gristmill"))
}
