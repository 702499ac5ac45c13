use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder with the sources of this crate's `kafka/`.
pub(crate) fn kafka_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka")
}

/// The version in a POM, which is the one place where it is written.
fn version(pom: &str) -> &str {
    let (_, rest) = pom.split_once("<kafka.version>").expect("the POM names Kafka's version");
    rest.split_once("</kafka.version>").expect("the element is closed").0
}

fn cache(name: &str) -> PathBuf {
    let base =
        std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cache"))
        });
    base.unwrap_or_else(std::env::temp_dir).join("gristmill").join(name)
}

/// Whether a program answers at all.
pub(crate) fn runs(program: &str, argument: &str) -> bool {
    let command = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

/// The folder with the broker's jars, as [`fetched`].
pub(crate) fn libs() -> Result<PathBuf, String> {
    fetched("kafka", &kafka_folder().join("pom.xml"))
}

/// The folder with Kafka Connect's jars and its SMTs', fetched on first use.
///
/// # Errors
/// What is missing on this machine.
pub fn connect_libs() -> Result<PathBuf, String> {
    fetched("connect", &kafka_folder().join("connect/pom.xml"))
}

/// The folder with the jars that a POM asks for, fetched on first use. Processes that need it at once wait for the
/// first one. `Err` says what is missing on this machine.
fn fetched(name: &str, pom: &Path) -> Result<PathBuf, String> {
    let text = fs::read_to_string(pom).expect("the POM is part of the sources");
    let cache = cache(&format!("{name}-{}", version(&text)));
    // By what is asked for, so that another checkout with another POM does not take it away.
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let libs = cache.join(format!("libs-{:016x}", hasher.finish()));
    fs::create_dir_all(&cache).map_err(|e| format!("cannot create {}: {e}", cache.display()))?;
    let lock = File::create(cache.join("lock")).map_err(|e| format!("cannot create the lock file: {e}"))?;
    lock.lock().map_err(|e| format!("cannot lock the cache: {e}"))?;
    if libs.is_dir() {
        return Ok(libs);
    }
    if !runs("mvn", "--version") {
        return Err("Maven (mvn) is not installed, and Kafka's jars are not in the cache".into());
    }
    let fetched = cache.join("fetching");
    let _ = fs::remove_dir_all(&fetched);
    let output = Command::new("mvn")
        .args(["-B", "-q", "-f"])
        .arg(pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", fetched.display()))
        .output()
        .map_err(|e| format!("cannot run mvn: {e}"))?;
    if !output.status.success() {
        return Err(format!("mvn could not fetch Kafka's jars: {}", String::from_utf8_lossy(&output.stdout)));
    }
    // The folder has its name only when it is whole.
    fs::rename(&fetched, &libs).map_err(|e| format!("cannot move the jars into place: {e}"))?;
    Ok(libs)
}
