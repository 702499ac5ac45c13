//! fake-gcs-server, an independent emulator of Cloud Storage, as a process.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_sinks::{GcsConfig, GcsConfigBuilder, GcsCredentials, GcsStore, Store, conformance};

/// Where the emulator's program is; `make test` builds it.
const PROGRAM: &str = "GRISTMILL_FAKE_GCS_SERVER";

#[derive(Debug)]
pub(crate) struct Emulator {
    process: Child,
    pub(crate) url: String,
    _folder: tempfile::TempDir,
}

impl Emulator {
    /// Starts it with an empty bucket `lake`. `None`, with a note, where the program is not there and this is not
    /// CI.
    pub(crate) fn start() -> Option<Emulator> {
        let Some(program) = std::env::var(PROGRAM).ok().filter(|p| !p.is_empty()) else {
            assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "{PROGRAM} is not set");
            eprintln!("SKIPPED: {PROGRAM} is not set; `make test` sets it where there is Go");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lake")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-log-level", "error"])
            .args(["-port", &port.to_string(), "-public-host", &format!("127.0.0.1:{port}")])
            .arg("-data")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the emulator starts");
        let emulator = Emulator { process, url: format!("http://127.0.0.1:{port}"), _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the emulator does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(emulator)
    }

    pub(crate) fn config(&self) -> GcsConfigBuilder {
        GcsConfig::builder("lake").endpoint(&self.url).credentials(GcsCredentials::Anonymous)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_emulator_is_a_store_that_keeps_every_promise() {
    let Some(emulator) = Emulator::start() else { return };
    let store = GcsStore::open(emulator.config().build().unwrap()).unwrap();
    store.probe().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    conformance::run(store.clone(), "suite").await;
}
