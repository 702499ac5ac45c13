//! `gristmill transform watch`.

use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{fs, thread};

use crate::exit::Exit;

const INTERVAL: Duration = Duration::from_millis(300);

/// Tests the folder now, and whenever something in it changes.
pub(crate) fn run(dir: &Path, seed: u64) -> Result<(), Exit> {
    let mut seen = None;
    loop {
        let now = newest(dir);
        if now.is_none() {
            return Err(Exit::mistake(format!("there is nothing in {}", dir.display())));
        }
        if now != seen {
            seen = now;
            match super::test(dir, None, false, seed) {
                Ok(()) => {}
                Err(exit) if exit.message.is_empty() => {}
                Err(exit) => println!("{}", exit.message),
            }
            println!("waiting for changes in {}", dir.display());
        }
        thread::sleep(INTERVAL);
    }
}

/// How many files there are, and when the newest was changed; what tools make is left out.
fn newest(dir: &Path) -> Option<(usize, SystemTime)> {
    let (mut count, mut newest) = (0, None);
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_made = name.starts_with('.')
            || ["target", "node_modules", "__pycache__", "venv"].contains(&name.as_str())
            || name.ends_with(".wasm")
            || name == "Cargo.lock";
        if is_made {
            continue;
        }
        let path = entry.path();
        let found = match path.is_dir() {
            true => self::newest(&path),
            false => fs::metadata(&path).and_then(|found| found.modified()).ok().map(|time| (1, time)),
        };
        if let Some((files, time)) = found {
            count += files;
            newest = newest.max(Some(time));
        }
    }
    newest.map(|newest| (count, newest))
}
