//! A replay: a bounded range of the topics once more, beside the live pipeline and under a ledger of its own.
//!
//! The bounds become offsets once, at the first start, and lie in the state store from then on (`replay.json`,
//! created if absent), so that every process of the replay, now and after a crash, has the same ones. A partition
//! whose last entry is published and whose dead letters are delivered gets a marker beside them; the replay is
//! complete when every partition has one, whichever process finished it.

mod bounds;
mod place;
mod when;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use gristmill::{ConsumerConfig, Place, Topics};
use gristmill_sinks::{Create, SinkConfig};
use tokio::sync::Notify;

pub(crate) use self::bounds::Range;
use self::bounds::{Asked, Bounds, Facts, Resolved, TopicBounds};
pub use self::when::{ReplayName, When};
use crate::check::Checked;
use crate::error::{Error, ErrorKind};

/// How long a cluster or a store that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether other processes have finished their partitions.
const LOOK: Duration = Duration::from_secs(1);
/// Markers that one listing asks for.
const PAGE: usize = 1000;

/// Which range to replay, and under which name.
#[derive(Clone, Debug)]
pub struct ReplayRequest {
    /// The replay's name, and its folder.
    pub name: ReplayName,
    /// Where the range begins; inside it.
    pub from: When,
    /// Where it ends; not inside it. Without it: the end of each partition as it is at the first start.
    pub to: Option<When>,
    /// Only this topic of the file's.
    pub topic: Option<String>,
    /// Only this partition.
    pub partition: Option<i32>,
}

impl ReplayRequest {
    /// The file as this replay runs it.
    pub(crate) fn apply(&self, checked: &Checked) -> Result<Checked, Error> {
        let mut aside = checked.replay(&self.name)?;
        let topics = &mut aside.pipeline.source.kafka.topics;
        if let Some(topic) = &self.topic {
            if !topics.contains(topic) {
                let text =
                    format!("`--topic {topic}` is not a topic of the file, which has {}", topics.join(", "));
                return Err(Error::config(text));
            }
            *topics = vec![topic.clone()];
        }
        if self.partition.is_some() && topics.len() > 1 {
            let text = format!("`--partition` needs `--topic`: the file has {}", topics.join(", "));
            return Err(Error::config(text));
        }
        let now = jiff::Timestamp::now();
        let order = match (self.from.at(now), self.to.as_ref().map(|to| to.at(now))) {
            (Place::Offset(from), Some(Place::Offset(to))) => from < to,
            (Place::Time(from), Some(Place::Time(to))) => from < to,
            _ => true,
        };
        if !order {
            let asked = Asked::of(self);
            return Err(Error::config(format!("the range {asked} is empty: --from must lie before --to")));
        }
        Ok(aside)
    }
}

/// A replay under way.
#[derive(Debug)]
pub(crate) struct Replay {
    name: ReplayName,
    sink: SinkConfig,
    slots: BTreeMap<(String, i32), Slot>,
    topic_ids: BTreeMap<String, String>,
    /// A partition was finished here.
    finished: Notify,
}

#[derive(Debug)]
struct Slot {
    range: Range,
    position: AtomicI64,
    finished: AtomicBool,
}

impl Replay {
    /// Refuses a place that is somebody else's, before anything is created or tidied up in it.
    pub(crate) async fn look_before(
        request: &ReplayRequest,
        pipeline: &str,
        sink: &SinkConfig,
    ) -> Result<(), Error> {
        let name = bounds_name(sink);
        match read_bounds(sink, &name).await? {
            Some(bounds) => bounds.check(request, pipeline),
            None => is_free(request, sink, &name).await,
        }
    }

    /// Resolves the bounds, or takes those of an earlier start.
    ///
    /// `pipeline` is the replay's pipeline id.
    pub(crate) async fn begin(
        request: &ReplayRequest,
        pipeline: &str,
        topics: &[String],
        consumer: &ConsumerConfig,
        servers: &str,
        sink: &SinkConfig,
    ) -> Result<Replay, Error> {
        let name = bounds_name(sink);
        let known = read_bounds(sink, &name).await?;
        if let Some(bounds) = &known {
            bounds.check(request, pipeline)?;
        }
        let cluster_topics = Topics::connect(consumer).map_err(Error::source)?;
        let cluster = cluster_topics.cluster_id().await.map_err(|e| Error::unreachable(servers, e))?;
        let bounds = match known {
            Some(bounds) => bounds,
            None => {
                is_free(request, sink, &name).await?;
                let bounds = resolve(request, pipeline, &cluster, topics, &cluster_topics).await?;
                let (state, _) = sink.state();
                match state.create_if_absent(&name, bounds.to_json().into()).await.map_err(Error::sink)? {
                    Create::Created(_) => bounds,
                    // Another process of this replay was first.
                    Create::Exists => {
                        let first = read_bounds(sink, &name).await?.ok_or_else(|| {
                            Error::new(ErrorKind::Sink, format!("{name} was there and is gone; start again"))
                        })?;
                        first.check(request, pipeline)?;
                        first
                    }
                }
            }
        };
        if bounds.cluster != cluster {
            return Err(Error::config(format!(
                "the replay `{}` was started on the cluster {}, and this is {cluster}; choose another name",
                request.name, bounds.cluster
            )));
        }
        if let Some(topic) = bounds.topics.keys().find(|topic| !topics.contains(topic)) {
            return Err(Error::config(format!(
                "the replay `{}` covers the topic {topic}, which the file no longer names; add it, or choose another name",
                request.name
            )));
        }
        let replay = Replay::over(request.name.clone(), bounds, sink.clone());
        for (topic, id) in &replay.topic_ids {
            let now = patiently(|| cluster_topics.topic_id(topic)).await.map_err(|e| unknown(topic, e))?;
            if *id != hexadecimal(&now) {
                return Err(created_again(topic));
            }
        }
        replay.look().await?;
        for ((topic, partition), slot) in &replay.slots {
            let Range { first, end } = slot.range;
            tracing::info!(%topic, partition, first, end, "the range of the replay");
        }
        Ok(replay)
    }

    fn over(name: ReplayName, bounds: Bounds, sink: SinkConfig) -> Replay {
        let topic_ids = bounds.topics.iter().map(|(topic, b)| (topic.clone(), b.topic_id.clone())).collect();
        let ranges = bounds.topics.into_iter().flat_map(|(topic, b)| {
            b.partitions.into_iter().map(move |(partition, range)| ((topic.clone(), partition), range))
        });
        let slots = ranges
            .map(|(at, range)| {
                let (position, finished) = (AtomicI64::new(range.first), AtomicBool::new(false));
                (at, Slot { range, position, finished })
            })
            .collect();
        Replay { name, sink, slots, topic_ids, finished: Notify::new() }
    }

    pub(crate) fn name(&self) -> &ReplayName {
        &self.name
    }

    fn slot(&self, topic: &str, partition: i32) -> Option<&Slot> {
        self.slots.get(&(topic.to_owned(), partition))
    }

    /// The range of an assigned partition; `None` for one that the replay does not cover.
    pub(crate) fn range(
        &self,
        topic: &str,
        partition: i32,
        topic_id: [u8; 16],
    ) -> Result<Option<Range>, Error> {
        match self.topic_ids.get(topic) {
            Some(id) if *id != hexadecimal(&topic_id) => Err(created_again(topic)),
            Some(_) => Ok(self.slot(topic, partition).map(|slot| slot.range)),
            None => Ok(None),
        }
    }

    pub(crate) fn came_to(&self, topic: &str, partition: i32, position: i64) {
        if let Some(slot) = self.slot(topic, partition) {
            slot.position.store(position, Ordering::Relaxed);
        }
    }

    /// The ledger of a partition has reached its end, and everything of it is published and delivered.
    pub(crate) async fn finish(&self, topic: &str, partition: i32) -> Result<(), Error> {
        let Some(slot) = self.slot(topic, partition) else { return Ok(()) };
        let name = format!("{}{topic}/{partition:05}", markers(&self.sink));
        let deadline = Instant::now() + ASK_AGAIN;
        loop {
            let text = format!("{}\n", slot.range.end);
            match self.sink.state().0.create_if_absent(&name, text.into()).await {
                Ok(_) => break,
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tracing::warn!(%error, "trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(Error::sink(error)),
            }
        }
        slot.finish();
        self.finished.notify_waiters();
        Ok(())
    }

    /// Looks which partitions are finished. `true` if all are.
    async fn look(&self) -> Result<bool, Error> {
        let root = markers(&self.sink);
        let mut after: Option<String> = None;
        loop {
            let page = self.sink.state().0.list(&root, after.as_deref(), PAGE).await.map_err(Error::sink)?;
            for object in &page {
                let at = object.name[root.len()..].rsplit_once('/');
                if let Some((topic, number)) = at
                    && let Ok(partition) = number.parse()
                    && let Some(slot) = self.slot(topic, partition)
                {
                    slot.finish();
                }
            }
            match page.last() {
                Some(last) if page.len() >= PAGE => after = Some(last.name.clone()),
                _ => return Ok(self.is_complete()),
            }
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.slots.values().all(|slot| slot.finished.load(Ordering::Relaxed))
    }
}

impl Slot {
    fn finish(&self) {
        self.position.store(self.range.end, Ordering::Relaxed);
        self.finished.store(true, Ordering::Relaxed);
    }
}

/// Ends when every partition is finished, by whichever process; never without a replay.
pub(crate) async fn complete(replay: Option<Arc<Replay>>) -> Result<(), Error> {
    let Some(replay) = replay else { return std::future::pending().await };
    let mut failing: Option<Instant> = None;
    loop {
        let mut finished = pin!(replay.finished.notified());
        // From here on no finish is missed.
        finished.as_mut().enable();
        match replay.look().await {
            Ok(true) => return Ok(()),
            Ok(false) => failing = None,
            Err(error) if failing.get_or_insert_with(Instant::now).elapsed() < ASK_AGAIN => {
                tracing::warn!(%error, "cannot look which partitions are finished; trying again");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = finished => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// How far a replay has come, over all its processes as far as this one knows.
#[derive(Clone, Debug)]
pub struct ReplayProgress(pub(crate) Arc<Replay>);

/// One partition of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where the range begins.
    pub first: i64,
    /// Where it ends: the first offset that is not inside.
    pub end: i64,
    /// What was read up to; where another process reads the partition, it moves when that has finished.
    pub position: i64,
    /// Everything up to the end is published.
    pub finished: bool,
}

impl ReplayProgress {
    /// Every partition, by topic and number.
    pub fn partitions(&self) -> Vec<PartitionProgress> {
        let of = |((topic, partition), slot): (&(String, i32), &Slot)| PartitionProgress {
            topic: topic.clone(),
            partition: *partition,
            first: slot.range.first,
            end: slot.range.end,
            position: slot.position.load(Ordering::Relaxed),
            finished: slot.finished.load(Ordering::Relaxed),
        };
        self.0.slots.iter().map(of).collect()
    }

    /// How many offsets of all were read. Offsets without a record count too.
    pub fn offsets(&self) -> (u64, u64) {
        self.partitions().iter().fold((0, 0), |(read, all), p| {
            let size = |to: i64| u64::try_from(to - p.first).unwrap_or(0);
            (read + size(p.position), all + size(p.end))
        })
    }

    /// Whether everything of the range is published.
    pub fn is_complete(&self) -> bool {
        self.0.is_complete()
    }
}

fn bounds_name(sink: &SinkConfig) -> String {
    format!("{}/replay.json", sink.state().1)
}

/// What the names of all markers start with.
fn markers(sink: &SinkConfig) -> String {
    format!("{}/replay/", sink.state().1)
}

async fn read_bounds(sink: &SinkConfig, name: &str) -> Result<Option<Bounds>, Error> {
    match sink.state().0.get(name).await.map_err(Error::sink)? {
        Some(object) => Bounds::parse(name, &object.bytes).map(Some),
        None => Ok(None),
    }
}

/// Refuses a place that holds anything and is no replay's.
async fn is_free(request: &ReplayRequest, sink: &SinkConfig, bounds: &str) -> Result<(), Error> {
    let taken = |what: String| {
        Err(Error::config(format!("`--into {}` is taken: {what}; choose another name", request.name)))
    };
    // Bounds come before everything else: without them it is somebody else's, or another process of this replay
    // has begun a moment ago.
    let ledgers = gristmill_sinks::survey_ledgers(sink).await.map_err(Error::sink)?;
    let whole = ledgers.whole.first().map(|l| format!("a ledger of the pipeline {:?}", l.id.pipeline));
    let broken = ledgers.broken.first().map(|b| format!("a ledger that has no readable {}", b.object));
    if let Some(other) = whole.or(broken) {
        return match read_bounds(sink, bounds).await? {
            Some(_) => Ok(()),
            None => taken(format!("{other} lies there")),
        };
    }
    let (objects, prefix) = sink.objects();
    let (root, state) =
        (if prefix.is_empty() { String::new() } else { format!("{prefix}/") }, sink.state().1);
    let mut after: Option<String> = None;
    loop {
        let page = objects.list(&root, after.as_deref(), PAGE).await.map_err(Error::sink)?;
        let foreign = page.iter().find(|object| !object.name.starts_with(&format!("{state}/")));
        if let Some(foreign) = foreign {
            return match read_bounds(sink, bounds).await? {
                Some(_) => Ok(()),
                None => taken(format!("{} lies there, and no replay wrote it", foreign.name)),
            };
        }
        match page.last() {
            Some(last) if page.len() >= PAGE => after = Some(last.name.clone()),
            _ => return Ok(()),
        }
    }
}

async fn resolve(
    request: &ReplayRequest,
    pipeline: &str,
    cluster: &str,
    topics: &[String],
    ask: &Topics,
) -> Result<Bounds, Error> {
    let now = jiff::Timestamp::now();
    let (from, to) = (request.from.at(now), request.to.as_ref().map(|to| to.at(now)));
    let mut resolved = Resolved::default();
    let mut bounds = BTreeMap::new();
    for topic in topics {
        let topic_id = patiently(|| ask.topic_id(topic)).await.map_err(|e| unknown(topic, e))?;
        let extents = patiently(|| ask.extents(topic)).await.map_err(|e| unknown(topic, e))?;
        let count = i32::try_from(extents.len()).unwrap_or(i32::MAX);
        if let Some(partition) = request.partition.filter(|p| !(0..count).contains(p)) {
            let text =
                format!("`--partition {partition}`: the topic {topic} has partitions 0 to {}", count - 1);
            return Err(Error::config(text));
        }
        let found_from = offsets_of(ask, topic, count, Some(from)).await?;
        let found_to = offsets_of(ask, topic, count, to).await?;
        for ((partition, extent), (from_offset, to_offset)) in
            (0..).zip(extents).zip(found_from.into_iter().zip(found_to))
        {
            if request.partition.is_none_or(|only| only == partition) {
                let facts = Facts { extent, from: from_offset, to: to_offset };
                resolved.add(topic, partition, facts, from, to);
            }
        }
        let partitions = std::mem::take(&mut resolved.ranges);
        bounds.insert(topic.clone(), TopicBounds { topic_id: hexadecimal(&topic_id), partitions });
    }
    let asked = Asked::of(request);
    let ranges = bounds.values().flat_map(|b: &TopicBounds| b.partitions.values());
    resolved.refuse(ranges, &asked)?;
    for note in &resolved.notes {
        tracing::warn!("{note}");
    }
    Ok(Bounds::new(pipeline, cluster, asked, bounds))
}

/// The offset of a time in each partition; none where the place is no time.
async fn offsets_of(
    ask: &Topics,
    topic: &str,
    partitions: i32,
    place: Option<Place>,
) -> Result<Vec<Option<i64>>, Error> {
    match place {
        Some(Place::Time(time)) => {
            patiently(|| ask.offsets_at(topic, partitions, time)).await.map_err(Error::source)
        }
        _ => Ok((0..partitions).map(|_| None).collect()),
    }
}

/// Asks again while that may help: brokers restart.
async fn patiently<T, F: Future<Output = gristmill::Result<T>>>(
    mut ask: impl FnMut() -> F,
) -> gristmill::Result<T> {
    let deadline = Instant::now() + ASK_AGAIN;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                tracing::warn!(%error, "asking again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// What stops a replay's reading where no worker can say more, and what to do then.
pub(crate) fn unreadable(error: gristmill::Error) -> Error {
    if error.kind() == gristmill::ErrorKind::OffsetOutOfRange {
        let what = "retention has removed records of the range before they were replayed; what is published stays, replay what is left under another name";
        return Error::source(error).because(what);
    }
    Error::source(error)
}

fn unknown(topic: &str, error: gristmill::Error) -> Error {
    if error.kind() == gristmill::ErrorKind::NotFound {
        return Error::config(format!(
            "the cluster has no topic {topic}; check `source.kafka.topics` and `bootstrap_servers` in the file"
        ));
    }
    Error::source(error)
}

pub(crate) fn created_again(topic: &str) -> Error {
    Error::new(
        ErrorKind::Source,
        format!(
            "the topic {topic} was deleted and created again since the replay was first started: its offsets mean other records now; replay the new topic under another name"
        ),
    )
}

fn hexadecimal(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use gristmill_sinks::FolderStore;

    use super::*;

    fn replay(folder: &std::path::Path) -> Replay {
        let json = br#"{"format_version":1,"pipeline":"p","cluster":"c",
            "asked":{"from":"0","to":null,"topic":null,"partition":null},"started_at":"",
            "topics":{"orders":{"topic_id":"07070707070707070707070707070707",
                "partitions":{"0":{"first":3,"end":9},"2":{"first":5,"end":5}}}}}"#;
        let sink = SinkConfig::builder(Arc::new(FolderStore::open(folder).unwrap())).build().unwrap();
        Replay::over("again".parse().unwrap(), Bounds::parse("replay.json", json).unwrap(), sink)
    }

    #[test]
    fn it_covers_its_partitions_of_that_very_topic_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let replay = replay(folder.path());
        assert_eq!(replay.range("orders", 0, [7; 16]).unwrap(), Some(Range { first: 3, end: 9 }));
        assert_eq!(replay.range("orders", 1, [7; 16]).unwrap(), None);
        assert_eq!(replay.range("other", 0, [7; 16]).unwrap(), None);
        let error = replay.range("orders", 0, [8; 16]).unwrap_err().to_string();
        assert!(error.contains("was deleted and created again"), "{error}");
    }

    #[tokio::test]
    async fn it_is_complete_when_every_partition_is_finished_by_whichever_process() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (replay(folder.path()), replay(folder.path()));
        assert!(!ours.look().await.unwrap());
        ours.came_to("orders", 0, 7);
        let progress = ReplayProgress(Arc::new(ours));
        assert_eq!((progress.offsets(), progress.is_complete()), ((4, 6), false));
        progress.0.finish("orders", 0).await.unwrap();
        progress.0.finish("orders", 0).await.unwrap();
        assert_eq!((progress.offsets(), progress.is_complete()), ((6, 6), false));
        theirs.finish("orders", 2).await.unwrap();
        let waiting = complete(Some(progress.0.clone()));
        tokio::time::timeout(LOOK * 5, waiting).await.expect("it is noticed").unwrap();
        assert!(progress.is_complete() && theirs.look().await.unwrap());
    }
}
