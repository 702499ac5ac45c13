use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder with the sources of this crate's `kafka/`.
pub(crate) fn kafka_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka")
}

fn pom() -> String {
    fs::read_to_string(kafka_folder().join("pom.xml")).expect("kafka/pom.xml is part of the sources")
}

/// The version in the POM, which is the one place where it is written.
fn version() -> String {
    let pom = pom();
    let (_, rest) = pom.split_once("<kafka.version>").expect("the POM names Kafka's version");
    rest.split_once("</kafka.version>").expect("the element is closed").0.to_owned()
}

fn cache() -> PathBuf {
    let base =
        std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cache"))
        });
    base.unwrap_or_else(std::env::temp_dir).join("gristmill").join(format!("kafka-{}", version()))
}

/// Whether a program answers at all.
pub(crate) fn runs(program: &str, argument: &str) -> bool {
    let command = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

/// The folder with Kafka's jars, fetched on first use. Processes that need it at once wait for the first one.
/// `Err` says what is missing on this machine.
pub(crate) fn libs() -> Result<PathBuf, String> {
    let cache = cache();
    // By what is asked for, so that another checkout with another POM does not take it away.
    let mut hasher = DefaultHasher::new();
    pom().hash(&mut hasher);
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
        .arg(kafka_folder().join("pom.xml"))
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
