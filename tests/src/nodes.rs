//! JVMs that do not outlive the test process.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

type Spawned = std::io::Result<Child>;

/// Starts a process that the kernel kills when this one dies, however it dies.
///
/// The kernel's death signal follows the *thread* that forked, and test threads end with their test: so one
/// thread forks for all, and ends only with the process.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn(command: Command) -> std::io::Result<Child> {
    type Request = (Command, mpsc::Sender<Spawned>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (requests, taken) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("kafka-keeper".into())
            .spawn(move || {
                while let Ok((mut command, reply)) = taken.recv() {
                    // SAFETY: prctl is async-signal-safe and touches only the child.
                    unsafe {
                        command.pre_exec(|| {
                            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                                return Err(std::io::Error::last_os_error());
                            }
                            Ok(())
                        })
                    };
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(requests)
    });
    let (reply, spawned) = mpsc::channel();
    keeper
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .expect("the keeper never ends");
    spawned.recv().expect("the keeper answers")
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("a process id is an i32");
    // SAFETY: the child was not reaped, so the id is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// A folder for the nodes' data, removed with the value, at exit, or by the next run.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

const PREFIX: &str = "gristmill-kafka-";

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Folder {
    pub(crate) fn create() -> Self {
        remove_left_over();
        let path = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()
            .expect("a temporary folder can be made")
            .keep();
        static AT_EXIT: OnceLock<()> = OnceLock::new();
        // SAFETY: registers a function that takes nothing and does not unwind.
        AT_EXIT.get_or_init(|| unsafe {
            libc::atexit(remove_at_exit);
        });
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        Folder { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| *p != self.path);
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A cluster that tests share lives in a static, which nobody drops.
extern "C" fn remove_at_exit() {
    for path in FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = fs::remove_dir_all(path);
    }
}

/// Removes the folders of test processes that were killed.
fn remove_left_over() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.split('-').next());
        if let Some(pid) = owner.and_then(|p| p.parse::<u32>().ok())
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
