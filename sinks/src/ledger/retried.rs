//! What tries to deliver dead letters again have written, beside what the pipeline has: no row may stand in both.

use super::driver::read_entry;
use super::foreign::{before, find_again};
use super::places::{self, Place};
use super::reconcile::{AuditFinding, AuditKind, AuditReport, MAX_PLACES, Stored, Window, fetch};
use crate::config::SinkConfig;
use crate::error::Result;

/// Rows of files of tries, all of one partition of one topic; as many as are compared at once.
#[derive(Default)]
struct Gathered {
    /// And the place of each one's file in `files`.
    places: Vec<(Place, usize)>,
    files: Vec<File>,
}

struct File {
    name: String,
    number: u32,
    rows: u64,
    doubled: u64,
    /// Where the first of them stands, too.
    first: Option<(String, Place)>,
}

impl File {
    fn double(&mut self, elsewhere: &str, place: Place) {
        self.doubled += 1;
        self.first.get_or_insert_with(|| (elsewhere.to_owned(), place));
    }
}

/// Compares the files of all tries with each other and with those of the pipeline, a partition after the other. The pipeline's
/// files are read once for each two million rows of tries. That files are whole was checked with their entries.
pub(super) async fn audit(
    config: &SinkConfig,
    windows: &[Window],
    report: &mut AuditReport,
    on_file: &(dyn Fn() + Send + Sync),
) -> Result<()> {
    let is_same = |a: &Window, b: &Window| a.id.topic_id == b.id.topic_id && a.id.partition == b.id.partition;
    for (i, first) in windows.iter().enumerate().filter(|(_, w)| w.retry > 0) {
        if windows[..i].iter().any(|w| w.retry > 0 && is_same(w, first)) {
            continue;
        }
        let live = windows.iter().find(|w| w.retry == 0 && is_same(w, first));
        let mut gathered = Gathered::default();
        for of_try in windows[i..].iter().filter(|w| w.retry > 0 && is_same(w, first)) {
            let state = config.state().0;
            for first in &of_try.firsts {
                // One that cannot be read is in the findings already, and so is a file.
                let entry = read_entry(state, &of_try.paths, &of_try.id, *first).await.ok().flatten();
                for file in entry.iter().flat_map(|entry| &entry.files) {
                    let Stored::File(bytes) = fetch(config, &file.final_name).await? else { continue };
                    let mut skip = 0;
                    while let Ok(content) =
                        places::read(&file.final_name, bytes.clone(), skip, MAX_PLACES).await
                    {
                        let read = content.places.unwrap_or_default();
                        skip += read.len();
                        let is_last = read.is_empty() || skip as u64 >= content.rows;
                        if skip == read.len() || gathered.files.is_empty() {
                            gathered.files.push(File {
                                name: file.final_name.clone(),
                                number: of_try.retry,
                                rows: content.rows,
                                doubled: 0,
                                first: None,
                            });
                        }
                        let file = gathered.files.len() - 1;
                        gathered.places.extend(read.into_iter().map(|place| (place, file)));
                        if gathered.places.len() >= MAX_PLACES {
                            std::mem::take(&mut gathered)
                                .compare(config, live, first_of(of_try), report)
                                .await?;
                        }
                        if is_last {
                            break;
                        }
                    }
                    on_file();
                }
            }
        }
        gathered.compare(config, live, first_of(first), report).await?;
    }
    Ok(())
}

/// The topic id and the partition, as accounts name them.
fn first_of(window: &Window) -> (String, i32) {
    (window.id.topic_id_text(), window.id.partition)
}

impl Gathered {
    async fn compare(
        mut self,
        config: &SinkConfig,
        live: Option<&Window>,
        (topic_id, partition): (String, i32),
        report: &mut AuditReport,
    ) -> Result<()> {
        self.places.sort_unstable();
        for pair in self.places.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1) {
            let elsewhere = self.files[pair[0].1].name.clone();
            self.files[pair[1].1].double(&elsewhere, pair[1].0);
        }
        let places: Vec<Place> = self.places.iter().map(|(place, _)| *place).collect();
        let unseen = match live {
            None => places.len(),
            Some(live) if live.is_cut => usize::try_from(before(live, &places)).unwrap_or(usize::MAX),
            Some(_) => 0,
        };
        if let Some(live) = live {
            find_again(config, live, &places, |range, elsewhere, place| {
                self.places[range].iter().for_each(|(_, file)| self.files[*file].double(elsewhere, place));
            })
            .await?;
        }
        for (_, file) in &self.places[..unseen] {
            let number = self.files[*file].number;
            let account = report
                .tries
                .iter_mut()
                .find(|a| (a.number, &a.topic_id, a.partition) == (number, &topic_id, partition));
            account.into_iter().for_each(|account| account.not_compared += 1);
        }
        for File { name, rows, doubled, first, .. } in self.files {
            let Some((elsewhere, place)) = first else { continue };
            let text = format!(
                "{} of its {rows} rows, of dead letters that were tried again, stand elsewhere, too, the first in {elsewhere} \
                 (partition {}, offset {}): who reads the folder reads them twice",
                doubled.min(rows),
                place.partition,
                place.offset
            );
            let kind = AuditKind::DoubledRows;
            report.found(AuditFinding { kind, object: name, text, range: None, redundant: false });
        }
        Ok(())
    }
}
