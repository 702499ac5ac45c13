//! Buckets of Cloud Storage: the fake in this process, whose faults can be switched on, and the independent
//! emulator fake-gcs-server.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use gristmill_sinks::fake_gcs::{FakeGcs, Faults};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::place::{Listed, Place, files, hidden};
use crate::kafka::free_ports;
use crate::nodes::{self, signal};
use crate::pipeline::wait_until;

const BUCKET: &str = "lake";

fn gcs(endpoint: &str, prefix: &str) -> String {
    format!("gcs: {{bucket: {BUCKET}, prefix: {prefix}, endpoint: '{endpoint}', credentials: anonymous}}")
}

/// A bucket of Gristmill's own fake. The reader looks into it without requests, which might suffer faults.
#[derive(Debug)]
pub struct FakeBucket {
    fake: FakeGcs,
}

impl Default for FakeBucket {
    fn default() -> Self {
        let fake = FakeGcs::start();
        fake.create_bucket(BUCKET);
        FakeBucket { fake }
    }
}

impl Place for FakeBucket {
    fn sink(&self, format: &str, rotate_rows: u64) -> String {
        files(&gcs(&self.fake.url(), "rows"), format, rotate_rows)
    }

    fn dead_letters(&self) -> String {
        gcs(&self.fake.url(), "dead_letters")
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let names = self.fake.object_names(BUCKET).into_iter().filter(|name| !hidden(name));
        let size = |name: &str| self.fake.object(BUCKET, name).map_or(0, |o| o.bytes.len() as u64);
        Ok(names.map(|name| Listed { size: size(&name), name }).collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.fake.object(BUCKET, name).map(|object| object.bytes.to_vec()))
    }

    fn store_faults(&self) -> Option<&Faults> {
        Some(self.fake.faults())
    }
}

/// A bucket of fake-gcs-server, which nobody of Gristmill has written.
#[derive(Debug)]
pub struct ServerBucket {
    process: Mutex<Child>,
    url: String,
    client: reqwest::Client,
    runtime: Runtime,
    _data: TempDir,
}

impl ServerBucket {
    /// Starts `GRISTMILL_FAKE_GCS_SERVER`. `None`, with a note, where that is not set and this is not CI.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Option<Self> {
        const PROGRAM: &str = "GRISTMILL_FAKE_GCS_SERVER";
        let Some(program) = std::env::var_os(PROGRAM).filter(|p| !p.is_empty()) else {
            assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "{PROGRAM} is not set");
            eprintln!("SKIPPED: {PROGRAM} is not set; the Makefile's targets set it");
            return None;
        };
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir(data.path().join(BUCKET)).expect("the folder is ours");
        let address = format!("127.0.0.1:{}", free_ports(1)[0]);
        let (host, port) = address.split_once(':').expect("it has a port");
        let mut command = Command::new(program);
        command
            .args(["-scheme", "http", "-backend", "memory", "-log-level", "error", "-host", host])
            .args(["-port", port, "-public-host", &address, "-data"])
            .arg(data.path())
            .stdout(Stdio::null());
        let process = nodes::spawn(command).expect("the emulator starts");
        wait_until("the emulator listens", Duration::from_secs(30), || {
            std::net::TcpStream::connect(&address).is_ok()
        });
        Some(ServerBucket {
            process: Mutex::new(process),
            url: format!("http://{address}"),
            client: reqwest::Client::builder().no_proxy().build().expect("a client can be made"),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime can be made"),
            _data: data,
        })
    }

    /// `None` for 404.
    fn get(&self, path: &str, query: &[(&str, &str)]) -> io::Result<Option<Vec<u8>>> {
        self.runtime.block_on(async {
            let mut url = reqwest::Url::parse(&self.url).expect("a valid address");
            // The slashes in an object's name are part of one segment.
            url.path_segments_mut().expect("it has a path").extend(["storage", "v1", "b", BUCKET, "o"]);
            if !path.is_empty() {
                url.path_segments_mut().expect("it has a path").push(path);
            }
            url.query_pairs_mut().extend_pairs(query);
            let reply = self.client.get(url).send().await.map_err(io::Error::other)?;
            if reply.status() == reqwest::StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let reply = reply.error_for_status().map_err(io::Error::other)?;
            Ok(Some(reply.bytes().await.map_err(io::Error::other)?.to_vec()))
        })
    }
}

impl Place for ServerBucket {
    fn sink(&self, format: &str, rotate_rows: u64) -> String {
        files(&gcs(&self.url, "rows"), format, rotate_rows)
    }

    fn dead_letters(&self) -> String {
        gcs(&self.url, "dead_letters")
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        let mut page = String::new();
        loop {
            let query = [("pageToken", page.as_str())];
            let query = if page.is_empty() { &[] } else { &query[..] };
            let bytes = self.get("", query)?.ok_or_else(|| io::Error::other("the bucket is gone"))?;
            let listing: serde_json::Value = serde_json::from_slice(&bytes)?;
            for item in listing["items"].as_array().into_iter().flatten() {
                let name = item["name"].as_str().unwrap_or_default();
                if !hidden(name) {
                    let size = item["size"].as_str().and_then(|s| s.parse().ok()).unwrap_or_default();
                    found.push(Listed { name: name.to_owned(), size });
                }
            }
            match listing["nextPageToken"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => token.clone_into(&mut page),
                None => return Ok(found),
            }
        }
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.get(name, &[("alt", "media")])
    }
}

impl Drop for ServerBucket {
    fn drop(&mut self) {
        if let Ok(mut process) = self.process.lock() {
            signal(&process, libc::SIGKILL);
            let _ = process.wait();
        }
    }
}
