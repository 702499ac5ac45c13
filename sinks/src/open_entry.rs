use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{BooleanArray, RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take_record_batch;
use bytes::Bytes;
use gristmill_records::{RawBatch, Record};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::config::SinkSettings;
use crate::dead_letter::{Blob, DeadLetter, Payload, RejectedPayload, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Encoder;
use crate::ledger::entry::{Counts, FileEntry};
use crate::left_out::{LeftOut, NEW_COLUMN};
use crate::memory::{MemoryBudget, MemoryShare};
use crate::names::{PartitionId, Paths, file_number, final_name};
use crate::store::{RefusedRow, RowsOf, StagedWrite};

/// How many encoded bytes are gathered before they go to the store.
const PART_BYTES: usize = 1 << 20;

/// The code of dead letters of rows that the store has refused, in the store's own words.
pub const ROW_REFUSED: &str = "ROW_REFUSED";

/// Codes come from guests: what is counted by code has to be bounded.
const MAX_CODES: usize = 64;
const MAX_CODE_BYTES: usize = 128;
const MAX_MESSAGE_BYTES: usize = 4096;

/// Rows as they go into files, and which of them go into which directory.
#[derive(Debug)]
pub(crate) struct Divided {
    rows: RecordBatch,
    /// Never empty.
    directories: Vec<(String, Vec<u64>)>,
}

impl SinkSettings {
    /// Finds the directory of each row, and takes out the columns that directories hold. Writes nothing.
    pub(crate) fn divide(&self, rows: &RecordBatch, coords: &[RowCoord]) -> Result<Divided> {
        let Some(template) = &self.directories else {
            return Ok(Divided { rows: rows.clone(), directories: vec![(String::new(), Vec::new())] });
        };
        let directories = template.divide(rows, coords)?;
        let rows = match template.columns_of_files(rows.schema_ref()) {
            None => rows.clone(),
            Some(left) => rows.project(&left).map_err(|e| {
                Error::new(ErrorKind::Encode, "columns cannot be left out of the files").with_source(e)
            })?,
        };
        Ok(Divided { rows, directories })
    }
}

/// Where a row came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowCoord {
    /// The offset of the record that the row was made from.
    pub offset: i64,
    /// 0 for the record itself, 1.. for what a transform emitted from it.
    pub sub: u32,
    /// Milliseconds since the Unix epoch; decides the directory.
    pub timestamp: Option<i64>,
}

/// A record that was refused on its way, as it was in the topic.
#[derive(Clone, Debug)]
pub struct RejectedRecord {
    /// Its offset.
    pub offset: i64,
    /// 0 for the record itself, 1.. for what a transform emitted from it.
    pub sub: u32,
    /// Which step refused it.
    pub stage: Stage,
    /// Of a transform, its place in the pipeline file, from 0.
    pub transform: Option<u32>,
    /// As [`DeadLetter::due_from`].
    pub due_from: Option<u32>,
    /// A short code for the reason; cut at 128 bytes.
    pub code: String,
    /// The reason; cut at 4,096 bytes.
    pub message: String,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
    /// The headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
}

/// What has come in since the last checkpoint: the entry that is not sealed yet.
#[derive(Debug)]
pub(crate) struct OpenEntry {
    pub(crate) first: i64,
    /// The consumer's position: where the entry would end now.
    pub(crate) position: i64,
    pub(crate) leader_epoch: Option<i32>,
    pub(crate) attempt: Uuid,
    pub(crate) opened_at: Option<Instant>,
    /// The greatest offset that was appended or rejected.
    newest: Option<i64>,
    files: Vec<OpenFile>,
    /// Closed files.
    pub(crate) staged: Vec<FileEntry>,
    pub(crate) rejects: Vec<DeadLetter>,
    pub(crate) reject_bytes: usize,
    pub(crate) counts: Counts,
    schemas: BTreeSet<String>,
    next_seq: usize,
    /// Rises with every write; tells which file was used least recently.
    clock: u64,
    /// A file was closed early because too many were open.
    pub(crate) crowded: bool,
    /// Records of rows that a store may still refuse, as they were in the topic; the newest are of what is appended next.
    originals: VecDeque<RawBatch>,
    memory: MemoryShare,
}

/// Rows that were appended together, by a store that answers for each.
#[derive(Debug)]
struct Unanswered {
    /// The number of its first row in the file.
    first: u64,
    coords: Vec<(i64, u32)>,
}

#[derive(Debug)]
struct Upload {
    to: Box<dyn StagedWrite>,
    rows: u64,
    /// Of them those that the store does not take.
    refused: u64,
    unanswered: VecDeque<Unanswered>,
}

#[derive(Debug)]
struct OpenFile {
    output: String,
    directory: String,
    /// Of the rows as they come.
    schema: SchemaRef,
    left_out: Option<LeftOut>,
    seq: usize,
    encoder: Encoder,
    upload: Upload,
    sent: u64,
    /// The least and the greatest offset of its rows.
    offsets: Option<(i64, i64)>,
    used: u64,
}

impl OpenEntry {
    pub(crate) fn new(first: i64, memory: &Arc<MemoryBudget>) -> Self {
        OpenEntry {
            first,
            position: first,
            leader_epoch: None,
            attempt: Uuid::new_v4(),
            opened_at: None,
            newest: None,
            files: Vec::new(),
            staged: Vec::new(),
            rejects: Vec::new(),
            reject_bytes: 0,
            counts: Counts::default(),
            schemas: BTreeSet::new(),
            next_seq: 0,
            clock: 0,
            crowded: false,
            originals: VecDeque::new(),
            memory: MemoryShare::new(memory),
        }
    }

    pub(crate) fn touch(&mut self) {
        self.opened_at.get_or_insert_with(Instant::now);
    }

    /// Whether there is anything to publish or deliver.
    pub(crate) fn has_content(&self) -> bool {
        !self.files.is_empty() || !self.staged.is_empty() || !self.rejects.is_empty()
    }

    /// Bytes that wait in memory: in the open files, in their uploads, and the rejects.
    pub(crate) fn buffered(&self) -> usize {
        let originals: usize = self.originals.iter().map(RawBatch::byte_size).sum();
        self.files.iter().map(OpenFile::buffered).sum::<usize>() + self.reject_bytes + originals
    }

    /// Whether another partition needs the memory that waits here.
    pub(crate) fn has_to_give(&self) -> bool {
        self.memory.has_to_give()
    }

    /// Bytes of all files, as far as they are encoded, and of the rejects.
    pub(crate) fn bytes(&self) -> u64 {
        let open: u64 = self.files.iter().map(|f| f.encoder.size(f.sent)).sum();
        let closed: u64 = self.staged.iter().map(|f| f.bytes).sum();
        open + closed + self.reject_bytes as u64
    }

    pub(crate) fn file_count(&self) -> usize {
        self.files.len() + self.staged.len()
    }

    pub(crate) fn schema_digest(&self) -> Option<String> {
        (!self.schemas.is_empty()).then(|| digest(self.schemas.iter()))
    }

    /// Refuses an offset that an earlier delivery has covered: it would be in the files twice.
    pub(crate) fn check_offset(&self, offset: i64) -> Result<()> {
        if offset < self.position {
            let text = format!("offset {offset} came after the position had advanced to {}", self.position);
            return Err(Error::new(ErrorKind::Usage, text));
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, next: i64, leader_epoch: Option<i32>) -> Result<()> {
        if next < self.position || self.newest.is_some_and(|newest| next <= newest) {
            let newest = self.newest.map_or(String::new(), |n| format!(" and offset {n} was appended"));
            let text = format!("cannot advance to {next}: the position is {}{newest}", self.position);
            return Err(Error::new(ErrorKind::Usage, text));
        }
        if next > self.position {
            self.touch();
            self.position = next;
        }
        self.leader_epoch = leader_epoch.or(self.leader_epoch);
        Ok(())
    }

    /// Refuses to close the entry in the middle of a delivery.
    pub(crate) fn check_complete(&self) -> Result<()> {
        match self.newest {
            Some(newest) if newest >= self.position => Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "offset {newest} was appended, but the position is still {}; advance first",
                    self.position
                ),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn reject(&mut self, record: RejectedRecord, payload: Payload) -> Result<()> {
        self.check_offset(record.offset)?;
        self.put_aside(record, payload);
        Ok(())
    }

    /// Keeps a dead letter of another ledger as it is.
    pub(crate) fn reject_again(&mut self, letter: DeadLetter) -> Result<()> {
        self.check_offset(letter.offset)?;
        self.keep(letter);
        Ok(())
    }

    fn put_aside(&mut self, record: RejectedRecord, payload: Payload) {
        let payload = match payload {
            Payload::Omitted => None,
            Payload::Full => Some(RejectedPayload {
                key: record.key.map(Blob),
                value: record.value.map(Blob),
                headers: record.headers.into_iter().map(|(n, v)| (Blob(n), v.map(Blob))).collect(),
            }),
        };
        self.keep(DeadLetter {
            offset: record.offset,
            sub: record.sub,
            timestamp: record.timestamp,
            stage: record.stage,
            transform: record.transform,
            due_from: record.due_from,
            code: record.code,
            message: record.message,
            payload,
        });
    }

    fn keep(&mut self, letter: DeadLetter) {
        self.touch();
        self.newest = self.newest.max(Some(letter.offset));
        let (code, message) = (cut(letter.code, MAX_CODE_BYTES), cut(letter.message, MAX_MESSAGE_BYTES));
        let letter = DeadLetter { code, message, ..letter };
        let counted = match self.counts.rejected.len() {
            MAX_CODES.. if !self.counts.rejected.contains_key(&letter.code) => "other".to_owned(),
            _ => letter.code.clone(),
        };
        *self.counts.rejected.entry(counted).or_default() += 1;
        if matches!(letter.stage, Stage::Decode | Stage::DecodeKey) {
            self.counts.undecodable += 1;
        }
        self.reject_bytes += json_size(&letter);
        self.rejects.push(letter);
        let buffered = self.buffered();
        self.memory.set(buffered);
    }

    /// The records that the next rows are of.
    pub(crate) fn originate(&mut self, records: RawBatch) {
        if !records.is_empty() {
            self.originals.push_back(records);
            self.forget_originals();
        }
    }

    /// Those of which every row is answered for; of the newest there may be more to come.
    fn forget_originals(&mut self) {
        let least = self
            .files
            .iter()
            .filter_map(|file| Some(file.upload.unanswered.front()?.coords.first()?.0))
            .min();
        let is_answered = |records: &RawBatch| {
            least.is_none_or(|least| records.last_offset().is_none_or(|last| last < least))
        };
        while self.originals.len() > 1 && self.originals.front().is_some_and(is_answered) {
            self.originals.pop_front();
        }
    }

    fn original(&self, offset: i64) -> Option<Record<'_>> {
        let at =
            self.originals.partition_point(|records| records.last_offset().is_none_or(|last| last < offset));
        let records = self.originals.get(at)?.rows();
        records.get(records.offsets.binary_search(&offset).ok()?)
    }

    /// Makes a dead letter of a row that counts as written.
    fn refuse(&mut self, to: &Target<'_>, row: (i64, u32), code: &str, message: String) -> Result<()> {
        let (offset, sub) = row;
        if to.settings.resources.dead_letters.is_none() {
            let text = format!(
                "the row of offset {offset} is refused by the store and there are no dead letters to set it aside: {message}"
            );
            return Err(Error::new(ErrorKind::Encode, text));
        }
        let copy = Bytes::copy_from_slice;
        let original = self.original(offset);
        let record = RejectedRecord {
            offset,
            sub,
            stage: Stage::Write,
            transform: None,
            due_from: None,
            code: code.to_owned(),
            message,
            key: original.and_then(|record| record.key()).map(copy),
            value: original.and_then(|record| record.value()).map(copy),
            headers: original.map_or_else(Vec::new, |record| {
                record.headers().map(|h| (copy(h.name), h.value.map(copy))).collect()
            }),
            timestamp: original.and_then(|record| record.timestamp()),
        };
        self.counts.written -= 1;
        self.put_aside(record, to.settings.payload);
        Ok(())
    }

    /// The rows without the columns that their place does not have, and of those that may not go without them dead letters.
    fn without_left_out(
        &mut self,
        to: &Target<'_>,
        left_out: &LeftOut,
        rows: &RecordBatch,
        coords: &[RowCoord],
    ) -> Result<(RecordBatch, Vec<RowCoord>)> {
        let refused = left_out.refused(rows);
        let mut stays = vec![true; rows.num_rows()];
        for (row, column) in &refused {
            stays[*row] = false;
            let message = format!("column {column} has a value, and the table does not have it");
            self.refuse(to, (coords[*row].offset, coords[*row].sub), NEW_COLUMN, message)?;
        }
        let left = left_out.rows(rows)?;
        if refused.is_empty() {
            return Ok((left, coords.to_vec()));
        }
        let kept = coords.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(coord, _)| *coord).collect();
        let rows = filter_record_batch(&left, &BooleanArray::from(stays)).map_err(|e| {
            Error::new(ErrorKind::Encode, "rows cannot be told apart by what is left out").with_source(e)
        })?;
        Ok((rows, kept))
    }

    /// Makes dead letters of the rows that the store has refused.
    fn take_answers(&mut self, to: &Target<'_>, upload: &mut Upload) -> Result<()> {
        if !upload.to.may_refuse() {
            return Ok(());
        }
        let answered = upload.to.answered();
        for RefusedRow { row, message } in answered.refused {
            let of = upload.unanswered.partition_point(|rows| rows.first <= row);
            let rows = of.checked_sub(1).and_then(|of| upload.unanswered.get(of));
            let coord = rows.and_then(|rows| rows.coords.get(usize::try_from(row - rows.first).ok()?));
            let Some((offset, sub)) = coord.copied() else {
                let text = format!("the store refuses row {row}, which it was not given: {message}");
                return Err(Error::new(ErrorKind::Corrupt, text));
            };
            upload.refused += 1;
            self.refuse(to, (offset, sub), ROW_REFUSED, message)?;
        }
        let is_answered = |rows: &Unanswered| rows.first + rows.coords.len() as u64 <= answered.rows;
        while upload.unanswered.front().is_some_and(is_answered) {
            upload.unanswered.pop_front();
        }
        Ok(())
    }

    /// Appends rows to the files of their output and directories, as [`SinkSettings::divide`] says. A failure
    /// leaves the entry unusable.
    pub(crate) async fn append(
        &mut self,
        to: &Target<'_>,
        output: &str,
        divided: &Divided,
        coords: &[RowCoord],
    ) -> Result<()> {
        self.touch();
        self.newest = self.newest.max(coords.iter().map(|c| c.offset).max());
        self.note_schema(output, &divided.rows);
        self.counts.written += divided.rows.num_rows() as u64;
        let [(directory, _)] = &divided.directories[..] else {
            for (directory, members) in &divided.directories {
                let of: Vec<RowCoord> = members.iter().map(|row| coords[*row as usize]).collect();
                let group =
                    take_record_batch(&divided.rows, &UInt64Array::from(members.clone())).map_err(|e| {
                        Error::new(ErrorKind::Encode, "rows cannot be divided by their directories")
                            .with_source(e)
                    })?;
                self.write(to, output, directory, &group, &of).await?;
            }
            return Ok(());
        };
        self.write(to, output, directory, &divided.rows, coords).await
    }

    async fn write(
        &mut self,
        to: &Target<'_>,
        output: &str,
        directory: &str,
        rows: &RecordBatch,
        coords: &[RowCoord],
    ) -> Result<()> {
        let index = self.file(to, output, directory, rows.schema_ref()).await?;
        let mut file = self.files.swap_remove(index);
        let left = match &file.left_out {
            None => None,
            Some(left_out) => Some(self.without_left_out(to, &left_out.clone(), rows, coords)?),
        };
        let (rows, coords) = left.as_ref().map_or((rows, coords), |(rows, coords)| (rows, coords));
        if rows.num_rows() > 0 {
            file.encoder.write(rows)?;
            file.upload.note(coords);
        }
        file.note_offsets(coords.iter().map(|c| c.offset));
        file.send(if file.upload.to.is_eager() { 1 } else { PART_BYTES }).await?;
        self.take_answers(to, &mut file.upload)?;
        self.files.push(file);
        self.keep_within_memory(to).await
    }

    /// Closes row groups early, and where that does not help files, until what waits in memory is within the limits.
    async fn keep_within_memory(&mut self, to: &Target<'_>) -> Result<()> {
        self.forget_originals();
        let mut buffered = self.buffered();
        self.memory.set(buffered);
        while buffered > to.settings.limits.buffered_bytes || self.memory.has_to_give() {
            let fullest = (0..self.files.len()).max_by_key(|i| self.files[*i].buffered());
            let Some(fullest) = fullest.filter(|i| self.files[*i].buffered() > 0) else { break };
            let file = &mut self.files[fullest];
            file.encoder.flush()?;
            file.send(1).await?;
            if self.buffered() >= buffered {
                // It waits in the upload: only its end sends it.
                self.crowded = true;
                let file = self.files.swap_remove(fullest);
                self.close(to, file).await?;
                self.forget_originals();
            }
            buffered = self.buffered();
            self.memory.set(buffered);
        }
        Ok(())
    }

    /// The open file for these rows; opens one, and closes another, if need be. Another schema is another
    /// file.
    async fn file(
        &mut self,
        to: &Target<'_>,
        output: &str,
        directory: &str,
        schema: &SchemaRef,
    ) -> Result<usize> {
        self.clock += 1;
        let found = self.files.iter().position(|f| {
            f.output == output && f.directory == directory && f.schema.fields() == schema.fields()
        });
        let index = match found {
            Some(index) => index,
            None => {
                if self.files.len() >= to.settings.limits.open_files {
                    self.crowded = true;
                    let least = (0..self.files.len()).min_by_key(|i| self.files[*i].used).unwrap_or_default();
                    let file = self.files.swap_remove(least);
                    self.close(to, file).await?;
                }
                let seq = self.next_seq;
                let staged = to.paths.staged(self.first, self.attempt, seq);
                let rows = RowsOf { topic: &to.id.topic, output, directory, schema };
                let upload = to.settings.resources.objects.stage_rows(&staged, rows).await?;
                let left_out = upload.left_out().cloned();
                let left = left_out.as_ref().map_or(schema.clone(), |left_out| left_out.schema(schema));
                let encoder = Encoder::new(&to.settings.format, left)?;
                self.next_seq += 1;
                self.files.push(OpenFile {
                    output: output.to_owned(),
                    directory: directory.to_owned(),
                    schema: schema.clone(),
                    seq,
                    left_out,
                    encoder,
                    upload: Upload { to: upload, rows: 0, refused: 0, unanswered: VecDeque::new() },
                    sent: 0,
                    offsets: None,
                    used: 0,
                });
                self.files.len() - 1
            }
        };
        self.files[index].used = self.clock;
        Ok(index)
    }

    async fn close(&mut self, to: &Target<'_>, file: OpenFile) -> Result<()> {
        let facts = self.facts(to, &file);
        let OpenFile { output, directory, seq, encoder, mut upload, .. } = file;
        upload.to.append(encoder.finish(&facts)?).await?;
        upload.to.settle().await?;
        self.take_answers(to, &mut upload)?;
        let rows = upload.rows - upload.refused;
        if rows == 0 {
            // There is nothing to publish.
            return Ok(());
        }
        let staged = upload.to.finish().await?;
        let extension = to.settings.format.extension();
        let number = file_number(seq, to.settings.retry_number);
        let final_name =
            final_name(&to.settings.prefix, to.id, &output, &directory, self.first, &number, extension);
        crate::store::validate_name(&final_name)?;
        self.staged.push(FileEntry {
            staged: staged.name,
            generation: staged.generation,
            crc32c: staged.crc32c,
            final_name,
            output,
            rows,
            bytes: staged.bytes,
        });
        Ok(())
    }

    /// What a file says of itself, so far as its format has a place for it.
    fn facts(&self, to: &Target<'_>, file: &OpenFile) -> Vec<(&'static str, String)> {
        let id = to.id;
        let mut facts = vec![
            ("gristmill.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("gristmill.pipeline", id.pipeline.clone()),
            ("gristmill.cluster", id.cluster.clone()),
            ("gristmill.topic", id.topic.clone()),
            ("gristmill.topic_id", id.topic_id_text()),
            ("gristmill.partition", id.partition.to_string()),
            ("gristmill.output", file.output.clone()),
            ("gristmill.entry", self.first.to_string()),
            ("gristmill.rows", file.upload.rows.to_string()),
            ("gristmill.schema_digest", digest([schema_text(&file.output, &file.schema)].iter())),
        ];
        if let Some((first, last)) = file.offsets {
            facts.push(("gristmill.first_offset", first.to_string()));
            facts.push(("gristmill.last_offset", last.to_string()));
        }
        if let Some(digest) = to.transform_digest {
            facts.push(("gristmill.transform_digest", digest.to_owned()));
        }
        facts
    }

    /// Closes all files.
    pub(crate) async fn close_all(&mut self, to: &Target<'_>) -> Result<()> {
        while let Some(file) = self.files.pop() {
            self.close(to, file).await?;
        }
        let buffered = self.buffered();
        self.memory.set(buffered);
        self.staged.sort_by(|a, b| a.final_name.cmp(&b.final_name));
        check_unique(&self.staged)
    }

    fn note_schema(&mut self, output: &str, rows: &RecordBatch) {
        // Schemas seldom change: compare with the open files before writing one out.
        let schema = rows.schema_ref();
        if self.files.iter().any(|f| f.output == output && f.schema.fields() == schema.fields()) {
            return;
        }
        self.schemas.insert(schema_text(output, schema));
    }
}

fn schema_text(output: &str, schema: &SchemaRef) -> String {
    let mut text = format!("{output}\n");
    for field in schema.fields() {
        text.push_str(&format!("{} {} {}\n", field.name(), field.data_type(), field.is_nullable()));
    }
    text
}

/// The schema digest of an entry whose files have all one schema is that of each of its files.
fn digest<'a>(schemas: impl Iterator<Item = &'a String>) -> String {
    let mut hash = Sha256::new();
    for schema in schemas {
        hash.update(schema.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

impl Upload {
    /// Rows were given to the encoder.
    fn note(&mut self, coords: &[RowCoord]) {
        if self.to.may_refuse() {
            let coords: Vec<(i64, u32)> = coords.iter().map(|c| (c.offset, c.sub)).collect();
            self.unanswered.push_back(Unanswered { first: self.rows, coords });
        }
        self.rows += coords.len() as u64;
    }
}

impl OpenFile {
    fn buffered(&self) -> usize {
        self.encoder.buffered() + self.upload.to.buffered()
    }

    fn note_offsets(&mut self, offsets: impl Iterator<Item = i64>) {
        for offset in offsets {
            let (first, last) = self.offsets.unwrap_or((offset, offset));
            self.offsets = Some((first.min(offset), last.max(offset)));
        }
    }

    async fn send(&mut self, least: usize) -> Result<()> {
        if let Some(bytes) = self.encoder.take(least) {
            self.sent += bytes.len() as u64;
            self.upload.to.append(bytes).await?;
        }
        Ok(())
    }
}

/// What an entry is written to.
pub(crate) struct Target<'a> {
    pub(crate) settings: &'a SinkSettings,
    pub(crate) transform_digest: Option<&'a str>,
    pub(crate) id: &'a PartitionId,
    pub(crate) paths: &'a Paths,
}

/// Two files with one final name could never both be published.
fn check_unique(files: &[FileEntry]) -> Result<()> {
    let mut seen = HashSet::new();
    match files.iter().find(|f| !seen.insert(&f.final_name)) {
        None => Ok(()),
        Some(file) => Err(Error::new(
            ErrorKind::Usage,
            format!("two files of one entry have the final name {}; nothing was sealed", file.final_name),
        )),
    }
}

fn cut(mut text: String, limit: usize) -> String {
    text.truncate(text.floor_char_boundary(limit));
    text
}

/// About how large a letter is as JSON; at least its true size for text without control characters.
fn json_size(letter: &DeadLetter) -> usize {
    let blob = |b: &Option<Blob>| b.as_ref().map_or(4, |b| b.0.len() * 4 / 3 + 16);
    let payload = letter.payload.as_ref().map_or(0, |p| {
        let headers: usize = p.headers.iter().map(|(n, v)| n.0.len() * 4 / 3 + 16 + blob(v)).sum();
        blob(&p.key) + blob(&p.value) + headers
    });
    160 + letter.code.len() + letter.message.len() + payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Generation;

    #[test]
    fn two_files_with_one_name_are_refused_before_sealing() {
        let file = |name: &str| FileEntry {
            staged: "s".into(),
            generation: Generation(1),
            crc32c: 0,
            final_name: name.into(),
            output: "main".into(),
            rows: 1,
            bytes: 1,
        };
        check_unique(&[file("a"), file("b")]).unwrap();
        assert_eq!(check_unique(&[file("a"), file("b"), file("a")]).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn positions_only_rise_and_cover_what_was_appended() {
        let mut entry = OpenEntry::new(5, &MemoryBudget::new(1 << 20));
        let record = |offset| RejectedRecord {
            offset,
            sub: 0,
            stage: Stage::Transform,
            transform: None,
            due_from: None,
            code: "c".into(),
            message: "ä".repeat(4000),
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        };
        assert!(entry.reject(record(4), Payload::Full).is_err());
        entry.reject(record(7), Payload::Full).unwrap();
        assert!(entry.check_complete().is_err());
        assert!(entry.advance(7, None).is_err());
        entry.advance(8, Some(2)).unwrap();
        assert!(entry.advance(6, None).is_err());
        entry.check_complete().unwrap();
        assert!(entry.rejects[0].message.len() <= MAX_MESSAGE_BYTES);
    }

    #[test]
    fn the_codes_that_are_counted_are_bounded() {
        let mut entry = OpenEntry::new(0, &MemoryBudget::new(1 << 20));
        for i in 0..200 {
            let record = RejectedRecord {
                offset: i,
                sub: 0,
                stage: Stage::Decode,
                transform: None,
                due_from: None,
                code: format!("code-{i}"),
                message: String::new(),
                key: None,
                value: None,
                headers: Vec::new(),
                timestamp: None,
            };
            entry.reject(record, Payload::Omitted).unwrap();
        }
        assert_eq!(entry.counts.rejected.len(), MAX_CODES + 1);
        assert_eq!(entry.counts.rejected_total(), 200);
        assert_eq!(entry.counts.undecodable, 200);
    }
}
