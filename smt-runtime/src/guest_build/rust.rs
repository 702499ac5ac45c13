//! A transform in Rust: cargo, with whatever standard library for WebAssembly there is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

use super::{Built, GuestOptions, GuestToolchain, on_path};
use crate::Error;

const TARGET: &str = "wasm32-unknown-unknown";
const PACKAGES: &str = "rustc-web rust-web-src rust-web-llvm lld-22";

impl GuestToolchain {
    /// What builds crates: where the standard library for WebAssembly comes from. Does not install anything and does not call
    /// rustup.
    ///
    /// # Errors
    /// Kind `Host`, with the one command that installs it.
    pub fn find() -> Result<Self, Error> {
        if has_installed_target() {
            return Ok(GuestToolchain::Installed);
        }
        if let Some(rustc) = debian_rustc() {
            return Ok(GuestToolchain::Debian { rustc });
        }
        let command = if on_path("rustup").is_none() && on_path("apt-get").is_some() {
            format!("apt-get install --no-install-recommends {PACKAGES}")
        } else {
            format!("rustup target add {TARGET}")
        };
        Err(Error::host(format!(
            "there is no Rust standard library for {TARGET}: install it with `{command}`"
        )))
    }
}

/// Builds the crate. Guests share a target directory in the cache, so that the standard library is built once where it has
/// to be.
pub(super) fn build(dir: &Path, cache: &Path, options: &GuestOptions) -> Result<Built, Error> {
    let package = package(dir)?;
    let toolchain = GuestToolchain::find()?;
    let mut cargo = cargo(&toolchain);
    cargo
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(&package.manifest)
        .env("CARGO_TARGET_DIR", cache.join("guests"))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&package.root));
    if let GuestToolchain::Debian { .. } = toolchain {
        cargo.args(["-Z", "build-std=std,panic_abort"]);
    }
    let messages = compile(&mut cargo, options)?;
    let built = artifact(&messages, &package.target, ".wasm")
        .ok_or_else(|| Error::load("cargo built no WebAssembly of the crate"))?;
    let bytes =
        fs::read(&built).map_err(|e| Error::host(format!("{} was not read: {e}", built.display())))?;
    Ok(Built { name: package.target, bytes, toolchain })
}

/// Compiles the crate for this machine, with the C functions of the SDK's `native.rs`.
pub(super) fn build_native(dir: &Path, cache: &Path) -> Result<PathBuf, Error> {
    let package = package(dir)?;
    let mut cargo = cargo(&GuestToolchain::Installed);
    cargo
        .args(["rustc", "--release", "--lib", "--crate-type", "cdylib"])
        .args(["--message-format", "json-render-diagnostics", "--manifest-path"])
        .arg(&package.manifest)
        // Of its own: what the macros write there is not what they write elsewhere.
        .env("CARGO_TARGET_DIR", cache.join("native"))
        .env("GRISTMILL_NATIVE_EXPORT", "1");
    let built = compile(&mut cargo, &GuestOptions::default())?;
    artifact(&built, &package.target, std::env::consts::DLL_SUFFIX)
        .ok_or_else(|| Error::load("cargo built no library of the crate"))
}

/// Compiles with one profile, since another would mean another standard library of guests; what cargo says of it.
fn compile(cargo: &mut Command, options: &GuestOptions) -> Result<String, Error> {
    cargo
        // ahash, which arrow-rs uses, takes its keys from the building machine where there is no randomness at run time: the same
        // source would be another component each time.
        .env("CONST_RANDOM_SEED", "gristmill")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_STRIP", if options.debug_info { "none" } else { "true" })
        .env("CARGO_PROFILE_RELEASE_DEBUG", if options.debug_info { "line-tables-only" } else { "0" })
        .stderr(Stdio::inherit());
    let out = cargo.output().map_err(|e| Error::host(format!("cargo did not start: {e}")))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(Error::load("the guest does not compile; the compiler's messages are above")),
    }
}

struct Package {
    manifest: PathBuf,
    /// Of the checkout, for the paths inside the component.
    root: PathBuf,
    target: String,
}

fn package(dir: &Path) -> Result<Package, Error> {
    let manifest = dir.join("Cargo.toml");
    let manifest = fs::canonicalize(&manifest)
        .map_err(|_| Error::load("there is no Cargo.toml: this is not the folder of a guest crate"))?;
    let out = Command::new(cargo_program())
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|e| Error::host(format!("cargo did not start: {e}")))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        return Err(Error::load(format!("cargo cannot read the crate: {}", text.trim())));
    }
    let metadata: Value = serde_json::from_slice(&out.stdout)
        .map_err(|e| Error::host(format!("cargo metadata is not JSON: {e}")))?;
    let packages = metadata["packages"].as_array();
    let package = packages
        .into_iter()
        .flatten()
        .find(|p| p["manifest_path"].as_str().map(Path::new) == Some(&manifest))
        .ok_or_else(|| Error::load("Cargo.toml is a workspace: name the folder of the guest crate itself"))?;
    let target = package["targets"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|t| t["kind"].as_array().is_some_and(|k| k.iter().any(|k| k == "cdylib")))
        .and_then(|t| t["name"].as_str())
        .ok_or_else(|| {
            Error::load("the crate has no cdylib: add `crate-type = [\"cdylib\", \"rlib\"]` to [lib]")
        })?
        .to_owned();
    let folder = manifest.parent().unwrap_or(&manifest);
    let root = folder.ancestors().find(|a| a.join(".git").exists()).unwrap_or(folder).to_owned();
    Ok(Package { manifest, root, target })
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn cargo(toolchain: &GuestToolchain) -> Command {
    let mut cargo = Command::new(cargo_program());
    // Variables of an outer cargo that would mean something else to the inner one.
    for name in [
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTUP_AUTO_INSTALL", "0");
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld");
    if let GuestToolchain::Debian { rustc } = toolchain {
        cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    cargo
}

fn rustflags(root: &Path) -> String {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
    flags.push(format!("--remap-path-prefix={}=.", root.display()));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
        // The folder of a registry is named after its host; the last match counts.
        let mut registries: Vec<_> =
            fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten().collect();
        registries.sort_by_key(fs::DirEntry::file_name);
        for registry in registries {
            flags.push(format!("--remap-path-prefix={}=crates", registry.path().display()));
        }
    }
    flags.join("\x1f")
}

fn artifact(messages: &str, target: &str, suffix: &str) -> Option<PathBuf> {
    let mut found = None;
    for message in messages.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
        if message["reason"] == "compiler-artifact" && message["target"]["name"] == target {
            let mut files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found = files.rfind(|f| f.ends_with(suffix)).map(PathBuf::from).or(found);
        }
    }
    found
}

fn has_installed_target() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stderr(Stdio::null())
        .output();
    let Ok(out) = out else { return false };
    let libraries = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    let mut files = fs::read_dir(libraries).into_iter().flatten().flatten();
    files.any(|f| f.file_name().to_string_lossy().starts_with("libstd-"))
}

/// The compiler of rustc-web, where the packages that it needs are there too. Without lld-22 its linker is
/// a dangling link.
fn debian_rustc() -> Option<PathBuf> {
    let files = |package: &str| -> Option<Vec<PathBuf>> {
        let out = Command::new("dpkg").args(["-L", package]).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        out.status.success().then(|| text.lines().map(PathBuf::from).collect())
    };
    let has = |package: &str, name: &str| {
        files(package).is_some_and(|f| f.iter().any(|f| f.ends_with(name) && f.exists()))
    };
    let rustc = files("rustc-web")?.into_iter().find(|f| f.ends_with("bin/rustc") && f.exists())?;
    let complete = has("lld-22", "bin/wasm-ld-22")
        && has("rust-web-llvm", "bin/wasm-component-ld")
        && files("rust-web-src").is_some();
    complete.then_some(rustc)
}
