//! The command `gristmill` as a process that tests start, kill, freeze and read the log of.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `deadline`.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The command under test: `GRISTMILL_BIN`, or the one beside this test's binary.
pub fn gristmill() -> PathBuf {
    if let Some(path) = std::env::var_os("GRISTMILL_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("this test has a path");
    let path = test.ancestors().nth(2).expect("target/debug/deps").join("gristmill");
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins`", path.display());
    path
}

/// A folder with a pipeline file, and the processes that ran it.
#[derive(Debug)]
pub struct Pipeline {
    folder: PathBuf,
    started: std::cell::Cell<usize>,
}

impl Pipeline {
    /// Writes `pipeline.yaml` into `folder`.
    pub fn new(folder: &Path, text: &str) -> Self {
        std::fs::write(folder.join("pipeline.yaml"), text).expect("the folder is ours");
        Pipeline { folder: folder.to_owned(), started: 0.into() }
    }

    /// The pipeline file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("pipeline.yaml")
    }

    /// Starts `gristmill run`; `failpoint` as in `GRISTMILL_FAILPOINT`.
    pub fn start(&self, failpoint: Option<&str>) -> Running {
        self.start_command(&["run"], &[], failpoint)
    }

    /// Starts `gristmill replay` with these options.
    pub fn replay(&self, options: &[&str], failpoint: Option<&str>) -> Running {
        self.start_command(&["replay"], options, failpoint)
    }

    /// Starts `gristmill dlq replay` with these options.
    pub fn replay_dead_letters(&self, options: &[&str], failpoint: Option<&str>) -> Running {
        self.start_command(&["dlq", "replay"], options, failpoint)
    }

    /// Starts `gristmill run` with that in its environment.
    pub fn start_with(&self, variable: &str, value: impl AsRef<std::ffi::OsStr>) -> Running {
        self.start_edited(&["run"], |command| {
            command.env(variable, value.as_ref());
        })
    }

    /// Starts `gristmill run`, whose files cannot become larger than that, as if the disk were full then.
    pub fn start_on_small_disk(&self, bytes: u64) -> Running {
        self.start_edited(&["run"], |command| {
            // SAFETY: both calls may be made between fork and exec, and touch the child alone.
            unsafe {
                command.pre_exec(move || {
                    // An ignored signal stays ignored over exec: writing fails instead.
                    libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
                    match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
            }
        })
    }

    fn start_command(&self, name: &[&str], options: &[&str], failpoint: Option<&str>) -> Running {
        self.start_edited(name, |command| {
            command.args(options);
            if let Some(failpoint) = failpoint {
                command.env("GRISTMILL_FAILPOINT", failpoint);
            }
        })
    }

    fn start_edited(&self, name: &[&str], edit: impl FnOnce(&mut Command)) -> Running {
        let number = self.started.get();
        self.started.set(number + 1);
        let log = self.folder.join(format!("run-{number}.log"));
        let log_file = File::create(&log).expect("the folder is ours");
        let mut command = Command::new(gristmill());
        command
            .args(name)
            .arg(self.file())
            .env("GRISTMILL_LOG", "info,gristmill_pipeline=debug")
            .env_remove("GRISTMILL_FAILPOINT")
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().expect("a second handle"))
            .stderr(log_file);
        edit(&mut command);
        Running { child: command.spawn().expect("the command starts"), log }
    }

    /// Runs another subcommand on the pipeline file, and gives its exit code and output.
    pub fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output =
            Command::new(gristmill()).args(arguments).arg(self.file()).output().expect("the command starts");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    }

    /// Runs a whole command line as it was printed for a user to paste, with the command under test as `gristmill`.
    pub fn paste(&self, line: &str) -> (Option<i32>, String) {
        let rest = line.strip_prefix("gristmill ").expect("a command of ours");
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("\"$GRISTMILL\" {rest}"))
            .env("GRISTMILL", gristmill())
            .env("USER", "ada")
            .env_remove("GRISTMILL_FAILPOINT")
            .output()
            .expect("sh starts");
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    }

    /// How often `text` stands in the logs of all runs.
    pub fn count_in_logs(&self, text: &str) -> usize {
        (0..self.started.get())
            .map(|i| std::fs::read_to_string(self.folder.join(format!("run-{i}.log"))).unwrap_or_default())
            .map(|log| log.matches(text).count())
            .sum()
    }

    /// The log of a run, counted from 0.
    pub fn log(&self, run: usize) -> String {
        std::fs::read_to_string(self.folder.join(format!("run-{run}.log"))).unwrap_or_default()
    }

    /// The end of every log, for the message of a failed test.
    pub fn logs(&self) -> String {
        (0..self.started.get())
            .map(|i| {
                let log = self.log(i);
                let lines: Vec<&str> = log.lines().collect();
                format!("--- run {i}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
            })
            .collect()
    }

    /// What an independent reader finds: one [`Found`] for each row and dead letter.
    pub fn read_back(&self) -> Vec<Found> {
        self.read_folders("rows", "dead_letters")
    }

    /// The same of a replay of that name.
    pub fn read_replay(&self, name: &str) -> Vec<Found> {
        self.read_folders(name, &format!("dead_letters-{name}"))
    }

    fn read_folders(&self, rows: &str, dead_letters: &str) -> Vec<Found> {
        read_rows(&self.folder.join(rows), &self.folder.join(dead_letters))
    }
}

/// What an independent reader finds in `rows` and `dead_letters` in a folder.
///
/// # Panics
/// If the reader cannot read a file.
pub fn read_rows(rows: &Path, dead_letters: &Path) -> Vec<Found> {
    let python = std::env::var("GRISTMILL_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("read_rows.py");
    let mut command = Command::new(python);
    command.arg(script).arg(rows);
    if dead_letters.exists() {
        command.arg(dead_letters);
    }
    let output = command.output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(Found::parse).collect()
}

/// A row or dead letter as the independent reader prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Partition, offset and number within the record.
    pub place: (i32, i64, u32),
    /// The output, or `dead_letter`.
    pub output: String,
    /// The order's id; for a dead letter its code and the record's key.
    pub what: String,
}

impl Found {
    fn parse(line: &str) -> Found {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or_else(|| panic!("a cell is missing in {line:?}"));
        let output = cell().to_owned();
        let mut number = || cell().parse::<i64>().expect("a number");
        let place = (number() as i32, number(), number() as u32);
        Found { place, output, what: cell().to_owned() }
    }
}

/// Fails unless `found` is what `expected` says, each exactly once and each place used once.
///
/// # Panics
/// With the first differences.
pub fn assert_exactly_once(expected: &BTreeMap<String, (String, String)>, found: &[Found], logs: &str) {
    let mut differences = Vec::new();
    let mut places = BTreeMap::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for f in found {
        if let Some(other) = places.insert(f.place, f) {
            differences.push(format!("two at one place: {f:?} and {other:?}"));
        }
        let id = f.what.rsplit(' ').next().unwrap_or_default();
        *seen.entry(id).or_default() += 1;
        match expected.get(id) {
            None => differences.push(format!("not expected: {f:?}")),
            Some((output, what)) if (output, what) != (&f.output, &f.what) => {
                differences.push(format!("expected {output} {what}, found {f:?}"));
            }
            Some(_) => {}
        }
    }
    for (id, want) in expected {
        match seen.get(id.as_str()) {
            None => differences.push(format!("lost: {id} {want:?}")),
            Some(1) => {}
            Some(n) => differences.push(format!("{n} times: {id}")),
        }
    }
    let shown = &differences[..differences.len().min(20)];
    assert!(differences.is_empty(), "{} differences: {shown:#?}\n{logs}", differences.len());
}

/// A running `gristmill run` or `replay`; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `text` stands in its log.
    pub fn wait_for(&mut self, text: &str, deadline: Duration) {
        self.wait_for_after(0, text, deadline);
    }

    /// Waits until `text` stands in its log after so many bytes.
    pub fn wait_for_after(&mut self, mark: usize, text: &str, deadline: Duration) {
        let start = Instant::now();
        while !self.log().get(mark..).is_some_and(|log| log.contains(text)) {
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "it ended ({ended:?}) without {text:?}:\n{}", self.tail());
            assert!(start.elapsed() < deadline, "no {text:?} within {deadline:?}:\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of its log: a long one helps nobody.
    pub(crate) fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(start.elapsed() < deadline, "it did not end within {deadline:?}:\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until its failpoint has killed it.
    pub fn wait_for_kill(&mut self, deadline: Duration) {
        let status = self.wait(deadline);
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended otherwise ({status}):\n{}", self.tail());
    }

    /// Waits until it has stopped itself (SIGSTOP).
    pub fn wait_for_stop(&mut self, deadline: Duration) {
        let stat = format!("/proc/{}/stat", self.child.id());
        wait_until("the process stops itself", deadline, || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            // pid (command) state ...; the command may hold spaces.
            text.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()) == Some("T")
        });
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and was not waited for, so its id is still its own.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(sent, 0, "the process is there");
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGTERM, without waiting for anything.
    pub fn ask_to_stop(&self) {
        self.signal(libc::SIGTERM);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Fails if it has ended by itself.
    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("it is our child");
        assert!(ended.is_none(), "it ended by itself ({ended:?}):\n{}", self.tail());
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.assert_alive();
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(mut self, deadline: Duration) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(deadline)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
