//! A child process, and what it has cost.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command};

/// A child that is killed when dropped.
pub(crate) struct Process {
    child: Child,
    ended: bool,
}

/// What a process has cost from its start to its end.
pub(crate) struct Cost {
    pub(crate) cpu: f64,
    /// The most memory that was resident at once, in MiB.
    pub(crate) resident: f64,
    pub(crate) success: bool,
}

impl Process {
    pub(crate) fn spawn(command: Command) -> Process {
        Process { child: gristmill_tests::spawn(command).expect("the program starts"), ended: false }
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.id()))
            .is_ok_and(|stat| !matches!(after_name(&stat).first(), None | Some(&"Z")))
    }

    /// Seconds of CPU time so far, in steps of 10 ms.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let fields = after_name(&stat);
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
        // SAFETY: asks for a number.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        (ticks(11) + ticks(12)) / per_second
    }

    /// Seconds of CPU time by the name of the thread, of those that run now.
    pub(crate) fn threads(&self) -> BTreeMap<String, f64> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let ns = read("schedstat").split(' ').next().and_then(|n| n.parse::<f64>().ok());
            *threads.entry(read("comm").trim().to_owned()).or_default() += ns.unwrap_or_default() / 1e9;
        }
        threads
    }

    /// MiB that are resident now, or have been at most.
    pub(crate) fn most_resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    }

    /// Bytes that its TCP connections have received, if `ss` is installed.
    pub(crate) fn received(&self) -> Option<f64> {
        let output = Command::new("ss").args(["-tinHOp"]).output().ok()?;
        let owner = format!("pid={},", self.id());
        let text = String::from_utf8_lossy(&output.stdout);
        let received = text.lines().filter(|l| l.contains(&owner)).filter_map(|line| {
            line.split_whitespace().find_map(|word| word.strip_prefix("bytes_received:")?.parse::<f64>().ok())
        });
        Some(received.sum())
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so the id is still its own.
        unsafe { libc::kill(self.id() as i32, signal) };
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Cost {
        let mut status = 0;
        // SAFETY: all zeros is a valid rusage; the child is ours and was not waited for.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            let waited = libc::wait4(self.id() as i32, &mut status, 0, &mut usage);
            assert_eq!(waited, self.id() as i32, "the child is ours");
            usage
        };
        self.ended = true;
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        Cost {
            cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            resident: usage.ru_maxrss as f64 / 1024.0,
            success: libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The fields of `/proc/PID/stat` from the state on; the name before it may hold spaces.
fn after_name(stat: &str) -> Vec<&str> {
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect()
}
