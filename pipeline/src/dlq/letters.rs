//! The dead letters of one ledger, record by record.

use std::collections::VecDeque;

use gristmill_sinks::{DeadLetter, Entry, LedgerRef, SinkConfig};

use crate::error::Error;

/// Ledger entries that are read at once.
const PAGE: usize = 100;

/// Reads the letters of a ledger in order; those of one entry at a time are in memory.
pub(super) struct Letters {
    config: SinkConfig,
    ledger: LedgerRef,
    /// Where the entries to be read begin.
    from: i64,
    entries: VecDeque<Entry>,
    letters: VecDeque<DeadLetter>,
}

impl Letters {
    /// From the entry on that holds an offset.
    pub(super) async fn begin(config: &SinkConfig, ledger: &LedgerRef, offset: i64) -> Result<Self, Error> {
        let from = gristmill_sinks::entry_at(config, ledger, offset).await.map_err(Error::sink)?;
        Ok(Letters {
            config: config.clone(),
            ledger: ledger.clone(),
            from: from.unwrap_or(0),
            entries: VecDeque::new(),
            letters: VecDeque::new(),
        })
    }

    /// Those of the next record that has some, and its offset.
    pub(super) async fn of_next_record(&mut self) -> Result<Option<(i64, Vec<DeadLetter>)>, Error> {
        let Some(offset) = self.next_offset().await? else { return Ok(None) };
        // All letters of a record are in one entry.
        let end = self.letters.iter().take_while(|letter| letter.offset == offset).count();
        Ok(Some((offset, self.letters.drain(..end).collect())))
    }

    /// Those of the record at an offset; the ones before it are passed.
    pub(super) async fn at(&mut self, offset: i64) -> Result<Vec<DeadLetter>, Error> {
        while let Some(next) = self.next_offset().await?
            && next <= offset
        {
            match self.of_next_record().await? {
                Some((found, letters)) if found == offset => return Ok(letters),
                _ => {}
            }
        }
        Ok(Vec::new())
    }

    async fn next_offset(&mut self) -> Result<Option<i64>, Error> {
        loop {
            if let Some(letter) = self.letters.front() {
                return Ok(Some(letter.offset));
            }
            if self.entries.is_empty() {
                let read = gristmill_sinks::read_entries(&self.config, &self.ledger, self.from, PAGE).await;
                self.entries = read.map_err(Error::sink)?.into();
            }
            let Some(entry) = self.entries.pop_front() else { return Ok(None) };
            self.from = entry.next;
            let letters = gristmill_sinks::dead_letters_of(&self.config, &entry).await;
            self.letters = letters.map_err(Error::sink)?.into();
        }
    }
}
