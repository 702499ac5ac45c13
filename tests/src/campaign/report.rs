//! What a campaign did and found, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::{Failpoint, Kind};

/// What a process does about a fault, as its log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recovery {
    /// It published an entry that a predecessor had sealed.
    Republished,
    /// It found its range sealed by another owner, and took that for the truth.
    Adopted,
    /// It found out that a seal without a reply was its own.
    Recognised,
    /// It deleted what a predecessor had staged in vain.
    Swept,
}

impl Recovery {
    pub(super) const ALL: [Recovery; 4] =
        [Recovery::Republished, Recovery::Adopted, Recovery::Recognised, Recovery::Swept];

    /// How often it stands in a log.
    pub(super) fn count(self, log: &str) -> u64 {
        let text = match self {
            Recovery::Republished => "published an entry of a predecessor",
            Recovery::Adopted => "adopted an entry of another owner",
            Recovery::Recognised => "recognised an entry as our own",
            Recovery::Swept => {
                let deleted = log.split(" deleted=").skip(1);
                let number = |rest: &str| rest.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
                return deleted.filter_map(number).sum();
            }
        };
        log.matches(text).count() as u64
    }

    fn name(self) -> &'static str {
        match self {
            Recovery::Republished => "entries published by the successor",
            Recovery::Adopted => "entries adopted",
            Recovery::Recognised => "entries recognised",
            Recovery::Swept => "staged files swept",
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// How often it was done.
    pub times: u64,
    /// What was done about it.
    pub recoveries: BTreeMap<Recovery, u64>,
    /// The longest time from the fault until every partition went on, where that is measured.
    pub longest: Option<Duration>,
    /// How many requests of the store suffered it.
    pub suffered: u64,
}

impl Line {
    fn add(&mut self, other: Line) {
        self.times += other.times;
        self.suffered += other.suffered;
        self.longest = self.longest.max(other.longest);
        for (recovery, times) in other.recoveries {
            *self.recoveries.entry(recovery).or_default() += times;
        }
    }

    fn of(&self, recovery: Recovery) -> u64 {
        self.recoveries.get(&recovery).copied().unwrap_or_default()
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Records that a committed reader of the topic sees.
    pub visible: u64,
    /// Rows found, each where it belongs and once.
    pub rows: u64,
    /// Dead letters found, each once.
    pub letters: u64,
    /// Records that the transform was to drop, and of which nothing was found.
    pub dropped: u64,
    /// Orders of aborted transactions that were produced, and of which nothing was found.
    pub aborted: u64,
    /// Records that compaction took before the pipeline came.
    pub compacted: u64,
    /// Listings of the watching reader.
    pub listings: u64,
    /// Files it saw, all whole, and none of which changed or vanished.
    pub files: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        let Tally { visible, rows, letters, dropped, aborted, compacted, listings, files } = other;
        self.visible += visible;
        self.rows += rows;
        self.letters += letters;
        self.dropped += dropped;
        self.aborted += aborted;
        self.compacted += compacted;
        self.listings += listings;
        self.files += files;
    }
}

/// The result of a campaign that found what it had to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// What the plan and the orders were drawn from.
    pub seed: u64,
    /// By kind of fault.
    pub faults: BTreeMap<Kind, Line>,
    /// How many orders each kind of producer sent.
    pub ways: BTreeMap<&'static str, u64>,
    /// What was found.
    pub tally: Tally,
    /// Requests of the store that suffered something besides, while other faults were injected.
    pub noise: u64,
    /// From the first order to the last comparison.
    pub took: Duration,
}

impl Report {
    /// How often something was done about any fault.
    pub fn recoveries(&self, recovery: Recovery) -> u64 {
        self.faults.values().map(|line| line.of(recovery)).sum()
    }

    /// Both together, under the name and seed of this one.
    pub fn and(mut self, other: Report) -> Report {
        for (kind, line) in other.faults {
            self.faults.entry(kind).or_default().add(line);
        }
        for (way, orders) in other.ways {
            *self.ways.entry(way).or_default() += orders;
        }
        self.tally.add(&other.tally);
        self.noise += other.noise;
        self.took += other.took;
        self
    }

    /// What has to follow from the faults that were injected, and did not.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (kind, line) in &self.faults {
            let (recovery, seen) = match kind {
                // Whoever comes next may be killed before it says so: any later process counts.
                Kind::KilledAt(Failpoint::AfterSeal) | Kind::FrozenAt(Failpoint::AfterSeal) => {
                    let seen = self.recoveries(Recovery::Republished);
                    (Recovery::Republished, if seen > 0 { line.times } else { 0 })
                }
                Kind::FrozenAt(Failpoint::AfterStage) => (Recovery::Adopted, line.of(Recovery::Adopted)),
                Kind::ReplyLost => (Recovery::Recognised, line.of(Recovery::Recognised)),
                _ => continue,
            };
            if seen < line.times {
                missing.push(format!("{kind}: {} times, but {}: {seen}", line.times, recovery.name()));
            }
        }
        missing
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, GRISTMILL_SEED={}, {:.0} s", self.name, self.seed, self.took.as_secs_f64())?;
        writeln!(f, "  {:<28}{:>5}  effect", "fault", "times")?;
        for (kind, line) in &self.faults {
            let mut effects: Vec<String> =
                line.recoveries.iter().map(|(recovery, n)| format!("{n} {}", recovery.name())).collect();
            if line.suffered > 0 {
                effects.push(format!("{} requests suffered", line.suffered));
            }
            if let Some(longest) = line.longest {
                let text =
                    format!("every partition went on, at the latest after {:.1} s", longest.as_secs_f64());
                effects.push(text);
            }
            let effects = if effects.is_empty() { "-".to_owned() } else { effects.join(", ") };
            writeln!(f, "  {kind:<28}{:>5}  {effects}", line.times)?;
        }
        let ways: Vec<String> = self.ways.iter().map(|(way, n)| format!("{n} {way}")).collect();
        let t = &self.tally;
        if self.noise > 0 {
            writeln!(f, "  besides, {} requests of the store suffered something all the time", self.noise)?;
        }
        writeln!(f, "  produced: {}", ways.join(", "))?;
        writeln!(f, "  in the topic: {} visible, {} taken by compaction", t.visible, t.compacted)?;
        writeln!(
            f,
            "  found: {} rows and {} dead letters, each once; of {} dropped and {} aborted nothing",
            t.rows, t.letters, t.dropped, t.aborted
        )?;
        write!(f, "  a reader listed {} times and saw {} files, each whole and for good", t.listings, t.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_counted() {
        let log = "swept topic=\"t\" partition=0 deleted=3\nswept topic=\"t\" partition=1 deleted=0\n\
                   adopted an entry of another owner topic=t\n";
        assert_eq!(Recovery::Swept.count(log), 3);
        assert_eq!(Recovery::Adopted.count(log), 1);
        assert_eq!(Recovery::Recognised.count(log), 0);
    }

    #[test]
    fn a_fault_without_its_effect_is_missed() {
        let line = |times, n| Line {
            times,
            recoveries: BTreeMap::from([(Recovery::Recognised, n)]),
            ..Line::default()
        };
        let report = |line| Report {
            name: "t".to_owned(),
            seed: 1,
            faults: BTreeMap::from([(Kind::ReplyLost, line)]),
            ways: BTreeMap::new(),
            tally: Tally::default(),
            noise: 0,
            took: Duration::ZERO,
        };
        assert_eq!(report(line(2, 2)).missing(), Vec::<String>::new());
        assert_eq!(report(line(2, 2)).and(report(line(1, 0))).missing().len(), 1);
        assert_eq!(report(line(2, 1)).missing().len(), 1);
        assert!(
            report(line(2, 2)).to_string().contains("reply to a seal lost            2  2 entries recog")
        );
    }
}
