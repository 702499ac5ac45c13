//! A pipeline under fire: orders from every kind of producer, faults by a plan, a reader that watches
//! meanwhile, and at the end a comparison of every record of the topic with what an independent reader finds.
//!
//! A [`Scenario`] says what flows where, a [`Place`] is where files land, a [`Fault`] is one thing that goes
//! wrong. [`Campaign::inject`] does them one after the other, and [`Campaign::finish`] compares.

mod bucket;
mod fault;
mod feeder;
mod place;
mod report;
mod tables;
mod truth;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_sinks::fake_gcs::{Effect, Faults};
use tempfile::TempDir;

pub use bucket::{FakeBucket, ServerBucket};
pub use fault::{Failpoint, Fault, Kind, StoreFault};
pub use place::{Folder, Listed, Place, hidden};
pub use report::{Line, Recovery, Report, Tally};
pub use tables::Tables;

use crate::orders::Encoding;
use crate::pipeline::{Pipeline, Running, read_rows, wait_until};
use crate::{RealKafka, say};
use feeder::{Feeder, Knowledge, Source};
use watch::Watch;

/// Partitions of a campaign's topic.
pub const PARTITIONS: i32 = 6;

/// A run joins its group only once the broker has given up the one before it, and a broker may be away.
const PATIENCE: Duration = Duration::from_secs(120);

/// The share of a store's requests that suffer something whatever else goes wrong.
const NOISE: f64 = 0.01;

/// What the log says of each entry.
const PUBLISHED: &str = "published partition=";

/// What flows, and how.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Names the topic and the pipeline.
    pub name: String,
    /// Orders and faults follow from it.
    pub seed: u64,
    /// `cooperative`, `range` or `consumer`.
    pub protocol: String,
    /// How orders are encoded.
    pub encoding: Encoding,
    /// The pipeline file's `transforms`, `decode` and what they need.
    pub stages: String,
    /// `parquet` or `jsonl`.
    pub format: String,
    /// Rows at which files are closed.
    pub rotate_rows: u64,
    /// Whether the topic begins with orders of which compaction has taken some.
    pub compacted: bool,
}

impl Scenario {
    fn pipeline_file(&self, bootstrap: &str, place: &dyn Place) -> String {
        let Scenario { name, protocol, stages, format, rotate_rows, .. } = self;
        // With KIP-848 the broker sets the session's timeout.
        let session = match protocol.as_str() {
            "consumer" => "",
            _ => "    session_timeout: 4s\n    properties: {heartbeat.interval.ms: '1000'}\n",
        };
        format!(
            "name: {name}\nsource:\n  kafka:\n    bootstrap_servers: '{bootstrap}'\n    topics: [{name}]\n    \
             group_protocol: {protocol}\n{session}{stages}sink:\n{}dead_letters:\n  {}\n",
            place.sink(format, *rotate_rows),
            place.dead_letters()
        )
    }
}

/// A process of the pipeline.
struct Run {
    /// The fault that it was started for.
    own: Option<Kind>,
    /// The fault that ended its predecessor.
    before: Option<Kind>,
}

/// A scenario on its way.
pub struct Campaign<'a> {
    kafka: &'a RealKafka,
    scenario: Scenario,
    place: Arc<dyn Place>,
    pipeline: Pipeline,
    feeder: Feeder,
    watch: Watch,
    /// The process that is running, if one is.
    running: Option<Running>,
    ended_by: Option<Kind>,
    runs: Vec<Run>,
    lines: BTreeMap<Kind, Line>,
    wanted: u64,
    compacted: u64,
    started: Instant,
    /// How often the store was made to misbehave.
    disturbances: u64,
    /// Requests that suffered what they were counted for.
    counted: u64,
    home: TempDir,
}

impl std::fmt::Debug for Campaign<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Campaign").field("scenario", &self.scenario).finish_non_exhaustive()
    }
}

impl<'a> Campaign<'a> {
    /// Creates the topic, and begins to feed and to watch.
    ///
    /// # Panics
    /// If something does not go as it has to; so do the other methods.
    pub fn start(kafka: &'a RealKafka, place: Arc<dyn Place>, scenario: Scenario) -> Self {
        let started = Instant::now();
        let Scenario { name, seed, encoding, .. } = &scenario;
        let bootstrap = kafka.bootstrap_servers();
        let settings: &[(&str, &str)] = if scenario.compacted { COMPACTED } else { &[] };
        block_on(kafka.create_topic(name, PARTITIONS, settings));
        let mut source = Source::new(&bootstrap, name, PARTITIONS, encoding.clone(), *seed);
        let compacted = if scenario.compacted { leave_gaps(kafka, name, &mut source) } else { 0 };
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let pipeline = Pipeline::new(home.path(), &scenario.pipeline_file(&bootstrap, &*place));
        let campaign = Campaign {
            kafka,
            feeder: Feeder::start(source),
            watch: Watch::start(place.clone(), name),
            place,
            pipeline,
            running: None,
            ended_by: None,
            runs: Vec::new(),
            lines: BTreeMap::new(),
            wanted: 0,
            compacted,
            started,
            disturbances: 0,
            counted: 0,
            home,
            scenario,
        };
        if let Some(faults) = campaign.place.store_faults() {
            campaign.calm(faults);
        }
        campaign
    }

    /// Has that many more orders produced as fast as can be, aborted ones not counted.
    pub fn feed(&mut self, orders: u64) {
        self.wanted += orders;
        self.feeder.want(self.wanted);
    }

    /// Lets one thing go wrong, and waits for what must come of it.
    pub fn inject(&mut self, fault: Fault) {
        let kind = fault.kind();
        let at = self.started.elapsed().as_secs_f64();
        say(format_args!("{} {at:5.1} s, {} orders: {fault:?}", self.scenario.name, self.feeder.fed()));
        match fault {
            Fault::KillAt(at, nth) => {
                self.terminate();
                self.launch(Some(&format!("{}:{nth}", at.name())), Some(kind)).wait_for_kill(PATIENCE);
                self.ended_by = Some(kind);
            }
            Fault::KillAtRandom(after) => {
                let mut run = self.running();
                self.wait_for_an_entry(&mut run);
                std::thread::sleep(after);
                run.kill();
                self.ended_by = Some(kind);
            }
            Fault::KillAtStart(after) => {
                self.terminate();
                let run = self.launch(None, None);
                std::thread::sleep(after);
                run.kill();
                self.ended_by = Some(kind);
            }
            Fault::LoseReply(nth) => {
                self.terminate();
                let mut run = self.launch(Some(&format!("lost-reply-seal:{nth}")), Some(kind));
                run.wait_for("recognised an entry as our own", PATIENCE);
                self.running = Some(run);
            }
            Fault::FreezeAt(at, nth) => {
                self.terminate();
                let mut run = self.launch(Some(&format!("{}:{nth}:stop", at.name())), Some(kind));
                run.wait_for_stop(PATIENCE);
                self.replace_frozen(run, kind, at == Failpoint::AfterStage);
            }
            Fault::FreezeAtRandom(after) => {
                let mut run = self.running();
                self.wait_for_an_entry(&mut run);
                std::thread::sleep(after);
                run.freeze();
                self.replace_frozen(run, kind, false);
            }
            Fault::Terminate => {
                let mut run = self.running();
                self.wait_for_an_entry(&mut run);
                self.running = Some(run);
                self.terminate();
                return;
            }
            Fault::KillBroker(id) => {
                let mut run = self.running();
                self.wait_for_an_entry(&mut run);
                self.kafka.kill(id);
                self.wait_for_every_partition(&mut run, Some(kind));
                self.kafka.restart(id);
                self.wait_for_every_partition(&mut run, None);
                self.running = Some(run);
            }
            Fault::Store(fault) => {
                let mut run = self.running();
                self.wait_for_an_entry(&mut run);
                self.misbehave(&mut run, fault);
                self.running = Some(run);
            }
            Fault::FreezeBroker(id) => {
                let mut run = self.running();
                self.wait_for_an_entry(&mut run);
                self.kafka.pause(id);
                self.wait_for_every_partition(&mut run, Some(kind));
                self.kafka.resume(id);
                self.wait_for_every_partition(&mut run, None);
                self.running = Some(run);
            }
        }
        self.count(kind);
    }

    /// Has the store do that until every partition has gone on in spite of it.
    fn misbehave(&mut self, run: &mut Running, fault: StoreFault) {
        let place = self.place.clone();
        let faults = place.store_faults().expect("it is planned only where the store has faults");
        let before = suffered(faults);
        let kind = Kind::Store(fault);
        self.disturbances += 1;
        faults.random(self.scenario.seed ^ self.disturbances, 1.0 / 6.0, &fault.effects());
        self.wait_for_every_partition(run, Some(kind));
        let started = Instant::now();
        while suffered(faults) < before + 5 {
            run.assert_alive();
            assert!(started.elapsed() < PATIENCE, "{kind}: too few requests:\n{}", run.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        let times = suffered(faults) - before;
        self.calm(faults);
        self.counted += times;
        self.lines.entry(kind).or_default().suffered += times;
        // What is late may come now.
        self.wait_for_every_partition(run, None);
    }

    /// Nothing but the odd fault of any kind.
    fn calm(&self, faults: &Faults) {
        let all: Vec<Effect> = StoreFault::ALL.into_iter().flat_map(StoreFault::effects).collect();
        faults.random(self.scenario.seed ^ !self.disturbances, NOISE, &all);
    }

    /// Another process takes the partitions of a frozen one, which then goes on as if nothing had happened.
    fn replace_frozen(&mut self, mut frozen: Running, kind: Kind, adopts: bool) {
        self.ended_by = Some(kind);
        let mut second = self.launch(None, None);
        self.wait_for_every_partition(&mut second, None);
        let mark = frozen.log().len();
        frozen.resume();
        if adopts {
            frozen.wait_for_after(mark, "adopted an entry of another owner", PATIENCE);
        }
        // It becomes a member again, beside the second.
        frozen.wait_for_after(mark, PUBLISHED, PATIENCE);
        frozen.kill();
        self.count(Kind::KilledAtRandom);
        self.running = Some(second);
    }

    /// Lets the pipeline come to the end, and compares what was found with what is in the topic.
    pub fn finish(mut self) -> Report {
        let (feeder, wanted) = (&self.feeder, self.wanted);
        wait_until("the feeder has produced what it was asked for", PATIENCE, || {
            feeder.has_ended() || feeder.fed() >= wanted
        });
        let mut run = self.running();
        let fed = self.feeder.finish();
        let topic = &self.scenario.name;
        let group = format!("gristmill-{topic}");
        let started = Instant::now();
        // The ends are asked for each time: the marker of a last transaction comes after its producer has its answer.
        while self.kafka.committed_offsets(&group, topic, PARTITIONS)
            != self.kafka.end_offsets(topic, PARTITIONS)
        {
            run.assert_alive();
            assert!(
                started.elapsed() < PATIENCE,
                "the group's offsets do not reach the end:\n{}",
                run.tail()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(run.terminate(PATIENCE).code(), Some(0), "{}", self.pipeline.logs());
        let watched = self.watch.finish();
        let noise = self.place.store_faults().map_or(0, |faults| {
            faults.clear();
            suffered(faults) - self.counted
        });
        assert!(watched.problems.is_empty(), "a reader saw: {:#?}", watched.problems);

        let copy = self.home.path().join("copy");
        let here = self.place.download(&copy).expect("the place answers");
        let found = read_rows(&here.join("rows"), &here.join("dead_letters"));
        let visible = truth::visible(self.kafka, topic, PARTITIONS);
        let mut tally = Tally {
            aborted: fed.count(Knowledge::Aborted),
            compacted: self.compacted,
            listings: watched.listings - watched.refused,
            files: watched.files,
            ..Tally::default()
        };
        let differences = truth::compare(&visible, &fed, &found, &mut tally);
        let shown = &differences[..differences.len().min(20)];
        assert!(
            differences.is_empty(),
            "{} differences, GRISTMILL_SEED={}: {shown:#?}\n{}",
            differences.len(),
            self.scenario.seed,
            self.pipeline.logs()
        );
        for check in self.place.checks() {
            let (code, text) = self.pipeline.command(check);
            assert_eq!(code, Some(0), "{check:?}: {text}");
        }

        for (number, run) in self.runs.iter().enumerate() {
            let log = self.pipeline.log(number);
            for recovery in Recovery::ALL {
                let cause = match recovery {
                    Recovery::Republished | Recovery::Swept => run.before,
                    Recovery::Adopted | Recovery::Recognised => run.own.or(run.before),
                };
                let times = recovery.count(&log);
                if let (Some(line), true) = (cause.and_then(|c| self.lines.get_mut(&c)), times > 0) {
                    *line.recoveries.entry(recovery).or_default() += times;
                }
            }
        }
        Report {
            name: self.scenario.name.clone(),
            seed: self.scenario.seed,
            faults: self.lines,
            ways: fed.ways,
            tally,
            noise,
            took: self.started.elapsed(),
        }
    }

    fn count(&mut self, kind: Kind) {
        self.lines.entry(kind).or_default().times += 1;
    }

    fn launch(&mut self, failpoint: Option<&str>, own: Option<Kind>) -> Running {
        let problems = self.watch.watched().problems;
        assert!(problems.is_empty(), "a reader saw: {problems:#?}");
        assert!(!self.feeder.has_ended(), "the feeder panicked");
        self.runs.push(Run { own, before: self.ended_by.take() });
        self.pipeline.start(failpoint)
    }

    /// The process that is running; a new one if none is.
    fn running(&mut self) -> Running {
        self.running.take().unwrap_or_else(|| self.launch(None, None))
    }

    fn terminate(&mut self) {
        if let Some(run) = self.running.take() {
            let ended = run.terminate(PATIENCE);
            assert_eq!(ended.code(), Some(0), "{}", self.pipeline.logs());
            self.ended_by = Some(Kind::Terminated);
            self.count(Kind::Terminated);
        }
    }

    fn wait_for_an_entry(&self, run: &mut Running) {
        run.wait_for_after(run.log().len(), PUBLISHED, PATIENCE);
    }

    /// Waits until every partition has a new entry; the time that it takes counts for that kind of fault.
    fn wait_for_every_partition(&mut self, run: &mut Running, kind: Option<Kind>) {
        let (mark, since) = (run.log().len(), Instant::now());
        for partition in 0..PARTITIONS {
            run.wait_for_after(mark, &format!("{PUBLISHED}{partition} "), PATIENCE);
        }
        if let Some(kind) = kind {
            let line = self.lines.entry(kind).or_default();
            line.longest = line.longest.max(Some(since.elapsed()));
        }
    }
}

/// How many requests of the store have suffered anything.
fn suffered(faults: &Faults) -> u64 {
    faults.injected().values().sum()
}

/// Compaction as soon as there is anything to take.
const COMPACTED: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.ms", "200"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "200"),
    ("delete.retention.ms", "0"),
];

/// Produces orders that share keys until compaction has taken some in every partition, then ends compaction,
/// so that the topic stays as it is. Gives how many were taken.
fn leave_gaps(kafka: &RealKafka, topic: &str, source: &mut Source) -> u64 {
    let count = || {
        let mut counts = vec![0; PARTITIONS as usize];
        truth::visible(kafka, topic, PARTITIONS).keys().for_each(|place| counts[place.0 as usize] += 1);
        counts
    };
    let mut sent = 0;
    let mut before = count();
    let mut shrunk = vec![false; PARTITIONS as usize];
    wait_until("compaction leaves gaps in every partition", PATIENCE, || {
        // An idle log is not rolled: without new records nothing is compacted.
        sent += source.send(300, Some(60));
        std::thread::sleep(Duration::from_millis(250));
        let now = count();
        let unexpected = now.iter().zip(&before).map(|(now, before)| now < before);
        shrunk.iter_mut().zip(unexpected).for_each(|(shrunk, less)| *shrunk |= less);
        before = now;
        shrunk.iter().all(|s| *s)
    });
    block_on(kafka.configure_topic(topic, &[("cleanup.policy", "delete")]));
    // A cleaning that has begun still ends.
    let mut steady = count();
    wait_until("compaction has ended", PATIENCE, || {
        std::thread::sleep(Duration::from_secs(1));
        let now = count();
        std::mem::replace(&mut steady, now.clone()) == now
    });
    sent - steady.iter().sum::<u64>()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime can be made").block_on(future)
}
