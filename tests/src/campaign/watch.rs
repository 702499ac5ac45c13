//! A reader that lists the place in a loop, as a query engine might at any moment.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::place::{Listed, Place};

/// Between two listings: the reader shares the machine with what it watches.
const PAUSE: Duration = Duration::from_millis(25);

/// What a reader has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    pub(super) listings: u64,
    pub(super) files: u64,
    /// Listings that the place refused.
    pub(super) refused: u64,
    pub(super) problems: Vec<String>,
}

/// Sees that a file, once visible, is whole, has a final name, and stays as it is.
struct Reader {
    topic: String,
    sizes: HashMap<String, u64>,
}

impl Reader {
    fn new(topic: &str) -> Self {
        Reader { topic: topic.to_owned(), sizes: HashMap::new() }
    }

    /// What is wrong with a listing.
    fn look(
        &mut self,
        listed: &[Listed],
        mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>, String>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let before = self.sizes.len();
        let mut known = 0;
        for file in listed {
            match self.sizes.get(&file.name) {
                Some(size) => {
                    known += 1;
                    if *size != file.size {
                        problems
                            .push(format!("{} was {size} bytes long and is {} now", file.name, file.size));
                    }
                    continue;
                }
                None if !is_final_name(&file.name, &self.topic) => {
                    problems.push(format!("{} is no name of a finished file", file.name));
                }
                None => match read(&file.name) {
                    Ok(Some(bytes)) if bytes.len() as u64 != file.size => {
                        problems.push(format!("{}: listed as {} bytes long", file.name, file.size));
                    }
                    Ok(Some(bytes)) => problems
                        .extend(incomplete(&file.name, &bytes).map(|what| format!("{}: {what}", file.name))),
                    Ok(None) => problems.push(format!("{} vanished after it was listed", file.name)),
                    // It is looked at again at the next listing.
                    Err(_) => continue,
                },
            }
            self.sizes.entry(file.name.clone()).or_insert(file.size);
        }
        if known < before {
            let now: HashSet<&str> = listed.iter().map(|f| f.name.as_str()).collect();
            let gone: Vec<String> =
                self.sizes.keys().filter(|name| !now.contains(name.as_str())).cloned().collect();
            for name in gone {
                self.sizes.remove(&name);
                problems.push(format!("{name} vanished"));
            }
        }
        problems
    }
}

/// `{topic}[+{output}]/../{topic}[+{output}]+{incarnation}+{partition}+{first}+{seq}.{ext}`, or for dead letters
/// `{topic}/{topic}+{incarnation}+{partition}+{first}+{attempt}.jsonl`.
fn is_final_name(name: &str, topic: &str) -> bool {
    let digits = |text: &str, n| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = name.split('/').collect();
    let [top, stem, .., file] = parts[..] else { return false };
    let stem_is_ours = stem.split('+').next() == Some(topic);
    let Some(rest) = file.strip_prefix(stem).and_then(|r| r.strip_prefix('+')) else { return false };
    let Some((rest, extension)) = rest.split_once('.') else { return false };
    let cells: Vec<&str> = rest.split('+').collect();
    let [incarnation, partition, first, last] = cells[..] else { return false };
    let placed = hex(incarnation) && digits(partition, 5) && digits(first, 20);
    stem_is_ours
        && placed
        && match top {
            "rows" => digits(last, 3) && matches!(extension, "parquet" | "jsonl"),
            "dead_letters" => hex(last) && extension == "jsonl" && stem == topic,
            _ => false,
        }
}

/// Why a file cannot be read to its end.
fn incomplete(name: &str, bytes: &[u8]) -> Option<String> {
    if name.ends_with(".parquet") {
        let framed = bytes.len() >= 12 && bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1");
        let Some(footer) = framed.then(|| bytes[bytes.len() - 8..bytes.len() - 4].try_into().ok()).flatten()
        else {
            return Some("it is no whole Parquet file".to_owned());
        };
        let footer = u64::from(u32::from_le_bytes(footer));
        return (footer == 0 || footer + 12 > bytes.len() as u64)
            .then(|| format!("its footer would be {footer} bytes long"));
    }
    if bytes.last() != Some(&b'\n') {
        return Some("its last line has no end".to_owned());
    }
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).err())
        .map(|error| format!("a line is no JSON: {error}"))
        .next()
}

/// The reader's thread.
pub(super) struct Watch {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    watched: Arc<Mutex<Watched>>,
}

impl Watch {
    pub(super) fn start(place: Arc<dyn Place>, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watched = Arc::new(Mutex::new(Watched::default()));
        let (stopped, results) = (stop.clone(), watched.clone());
        let mut reader = Reader::new(topic);
        let thread = std::thread::spawn(move || {
            loop {
                // One more look after the end, so that the last files are seen too.
                let last = stopped.load(Ordering::Relaxed);
                let listed = place.list();
                let problems = match &listed {
                    Ok(listed) => reader.look(listed, |name| place.read(name).map_err(|e| e.to_string())),
                    Err(_) => Vec::new(),
                };
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.listings += 1;
                results.refused += u64::from(listed.is_err());
                results.files = reader.sizes.len() as u64;
                results.problems.extend(problems);
                drop(results);
                if last {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Watch { thread: Some(thread), stop, watched }
    }

    /// What it has seen so far.
    pub(super) fn watched(&self) -> Watched {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks once more, and ends.
    pub(super) fn finish(mut self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is running").join().expect("the reader ended well");
        self.watched()
    }
}

impl Drop for Watch {
    /// Also if a test panics.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = "rows/t+gold/dt=2026-01-01/t+gold+0a1b2c3d+00003+00000000000000000042+000.parquet";
    const LETTERS: &str = "dead_letters/t/t+0a1b2c3d+00003+00000000000000000042+01234567.jsonl";

    fn listed(name: &str, size: usize) -> Listed {
        Listed { name: name.to_owned(), size: size as u64 }
    }

    fn parquet() -> Vec<u8> {
        [b"PAR1".as_slice(), b"footer", &6u32.to_le_bytes(), b"PAR1"].concat()
    }

    #[test]
    fn only_final_names_pass() {
        assert!(is_final_name(ROWS, "t") && is_final_name(LETTERS, "t"));
        for name in [
            &ROWS.replace("+000.parquet", "+000.parquet.tmp"),
            &ROWS.replace("+000.parquet", "+6f0a.parquet"),
            &ROWS.replace("rows/", "elsewhere/"),
            &LETTERS.replace(".jsonl", ".parquet"),
            "rows/t/part-0.parquet",
            "rows/x",
        ] {
            assert!(!is_final_name(name, "t"), "{name}");
        }
        assert!(!is_final_name(ROWS, "other"));
    }

    #[test]
    fn a_file_that_is_torn_grows_or_vanishes_is_told() {
        let look = |reader: &mut Reader, files: &[Listed], bytes: &[u8]| {
            reader.look(files, |_| Ok(Some(bytes.to_vec()))).join("; ")
        };
        let whole = parquet();
        let mut reader = Reader::new("t");
        assert_eq!(look(&mut reader, &[listed(ROWS, whole.len())], &whole), "");
        assert_eq!(look(&mut reader, &[listed(ROWS, whole.len()), listed(LETTERS, 3)], b"{}\n"), "");
        assert!(look(&mut reader, &[listed(ROWS, 9), listed(LETTERS, 3)], b"").contains("9 now"));
        assert!(look(&mut reader, &[listed(ROWS, whole.len())], b"").contains("jsonl vanished"));
        for torn in [&whole[..whole.len() - 1], b"PAR1", b"", b"PAR1PAR1"] {
            let told = look(&mut Reader::new("t"), &[listed(ROWS, torn.len())], torn);
            assert!(told.contains("Parquet"), "{told}");
        }
        let told = look(&mut Reader::new("t"), &[listed(LETTERS, 9)], b"{}\n{\"a\":1");
        assert!(told.contains("last line"), "{told}");
        let gone = Reader::new("t").look(&[listed(ROWS, 3)], |_| Ok(None));
        assert!(gone[0].contains("vanished"), "{gone:?}");
    }
}
