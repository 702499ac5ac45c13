//! What tries to deliver dead letters again have written, beside what the pipeline has: no row may stand in both.

use super::foreign::{before, entry, find_again};
use super::places::{self, Place};
use super::report::{AuditFinding, AuditKind, AuditReport, MAX_PLACES, Stored, TryAudit, Window, fetch};
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
    /// Of records before what is audited of the pipeline.
    unseen: u64,
    /// Where the first of them stands, too.
    first: Option<(String, Place)>,
}

impl File {
    fn double(&mut self, elsewhere: &str, place: Place) {
        self.doubled += 1;
        self.first.get_or_insert_with(|| (elsewhere.to_owned(), place));
    }
}

/// Compares the files of all tries with those of earlier ones and of the pipeline, a partition after the other. These are read once for
/// each two million rows of tries. That files are whole was checked with their entries.
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
        let same: Vec<&Window> = windows.iter().filter(|w| is_same(w, first)).collect();
        let mut gathered = Gathered::default();
        for of_try in same.iter().filter(|w| w.retry > 0) {
            for first in &of_try.firsts {
                let entry = entry(config, &of_try.paths, &of_try.id, *first).await?;
                for file in entry.iter().flat_map(|entry| &entry.files) {
                    let Stored::File(bytes) = fetch(config, &file.final_name).await? else { continue };
                    let mut skip = 0;
                    // What cannot be read is in the findings already.
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
                                unseen: 0,
                                first: None,
                            });
                        }
                        let file = gathered.files.len() - 1;
                        gathered.places.extend(read.into_iter().map(|place| (place, file)));
                        if gathered.places.len() >= MAX_PLACES {
                            std::mem::take(&mut gathered).compare(config, &same, report).await?;
                        }
                        if is_last {
                            break;
                        }
                    }
                    on_file();
                }
            }
        }
        gathered.compare(config, &same, report).await?;
    }
    Ok(())
}

impl Gathered {
    /// With what the pipeline has written, and earlier tries.
    async fn compare(
        mut self,
        config: &SinkConfig,
        same: &[&Window],
        report: &mut AuditReport,
    ) -> Result<()> {
        self.places.sort_unstable();
        let places: Vec<Place> = self.places.iter().map(|(place, _)| *place).collect();
        let newest = self.files.iter().map(|file| file.number).max().unwrap_or_default();
        for window in same.iter().filter(|window| window.retry < newest) {
            find_again(config, window, &places, |range, elsewhere, place| {
                for (_, file) in &self.places[range] {
                    if self.files[*file].number > window.retry {
                        self.files[*file].double(elsewhere, place);
                    }
                }
            })
            .await?;
        }
        let live = same.iter().find(|window| window.retry == 0);
        let unseen = match live {
            None => places.len(),
            Some(live) if live.is_cut => usize::try_from(before(live, &places)).unwrap_or(usize::MAX),
            Some(_) => 0,
        };
        for (_, file) in &self.places[..unseen] {
            self.files[*file].unseen += 1;
        }
        for file in self.files.iter().filter(|file| file.unseen > 0) {
            let of = |account: &&mut TryAudit| {
                let id = &same[0].id;
                (account.number, account.partition) == (file.number, id.partition)
                    && account.topic_id == id.topic_id_text()
            };
            if let Some(account) = report.tries.iter_mut().find(of) {
                account.not_compared += file.unseen;
            }
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
