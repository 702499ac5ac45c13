//! The thread that owns librdkafka.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::config::ConsumerConfig;
use super::lookups::Question;
use super::partition::{Fetcher, LOOKUP_RETRY, Partition, RESTART_AFTER, Reading, Seek};
use super::shared::{Command, Shared};
use super::start::Resolved;
use super::stream::Channel;
use super::{AssignedPartition, ConsumerEvent, RevokedPartition};
use crate::native::{Client, Code, CommitReply, Noted, Partitions, Queue, Rebalance, RebalanceKind, kind_of};
use crate::offsets::{Commit, TopicPartition};
use crate::{Error, ErrorKind, Result};

/// Longest time between two looks at the main queue; far below any `max.poll.interval.ms`.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
const SEEK_RETRY: Duration = Duration::from_millis(5);
/// After how long without a sign of life a partition is resumed once more.
const RESUME_RETRY: Duration = Duration::from_secs(1);
/// How long a partition may refuse to be sought before somebody must know.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Where partitions are assigned that have not begun: they are paused, so it is not fetched, and it is an
/// offset, so librdkafka looks nothing up.
const NOWHERE: i64 = 0;

pub(super) struct Poller {
    client: Arc<Client>,
    shared: Arc<Shared>,
    questions: mpsc::Sender<Question>,
    config: ConsumerConfig,
    started: Instant,
    /// Kept for its wake-up; it is served through the client.
    _main: Queue,
    replies: Queue,
    partitions: HashMap<TopicPartition, Partition>,
    /// Whether assignments change by single partitions.
    incremental: bool,
    last_commit: Option<Instant>,
    ask_again: Vec<(Instant, Vec<(TopicPartition, u64)>)>,
    closing: Option<Closing>,
}

struct Closing {
    until: Instant,
    done: Option<oneshot::Sender<Result<()>>>,
}

impl Poller {
    pub(super) fn new(
        client: Arc<Client>,
        shared: Arc<Shared>,
        questions: mpsc::Sender<Question>,
        config: ConsumerConfig,
    ) -> Result<Self> {
        let ring = |shared: &Arc<Shared>| {
            let shared = shared.clone();
            move || shared.ring()
        };
        let main = Queue::consumer(&client)
            .ok_or_else(|| {
                Error::new(ErrorKind::Other, "start the consumer", "librdkafka gives no group queue")
            })?
            .on_filled(ring(&shared));
        let replies = Queue::new(&client).on_filled(ring(&shared));
        client.subscribe(&config.topics)?;
        Ok(Poller {
            client,
            shared,
            questions,
            config,
            started: Instant::now(),
            _main: main,
            replies,
            partitions: HashMap::new(),
            incremental: false,
            last_commit: None,
            ask_again: Vec::new(),
            closing: None,
        })
    }

    pub(super) fn run(mut self) {
        while self.closing.is_none() {
            let wait = self.turn();
            if self.closing.is_none() {
                for command in self.shared.wait(wait) {
                    self.obey(command);
                }
            }
        }
        self.close();
    }

    /// One round over everything that may be ready. Gives how long there is nothing to do.
    fn turn(&mut self) -> Duration {
        let mut wait = LONGEST_WAIT;
        self.serve_group();
        self.serve_replies();
        wait = wait.min(self.ask_again());
        self.ask_earliest();
        wait = wait.min(self.seek());
        self.drain_all();
        wait.min(self.commit())
    }

    fn serve_group(&mut self) {
        for note in self.client.poll_consumer() {
            self.take_note(note);
        }
    }

    fn take_note(&mut self, note: Noted) {
        match note {
            Noted::Rebalance(rebalance) => match rebalance.kind {
                RebalanceKind::Assign => self.assign(&rebalance),
                RebalanceKind::Revoke | RebalanceKind::Lost => self.revoke(&rebalance),
            },
            Noted::Error(error) => self.shared.report(error),
            Noted::Statistics(json) => self.shared.set_statistics(json),
        }
    }

    fn assign(&mut self, rebalance: &Rebalance) {
        let mut list = Partitions::new();
        let mut asked = Vec::new();
        self.incremental = rebalance.incremental;
        for entry in &rebalance.partitions {
            let at = TopicPartition::new(entry.topic.clone(), entry.partition);
            let filled = Arc::new(AtomicBool::new(false));
            let wake = {
                let (filled, shared) = (filled.clone(), self.shared.clone());
                move || {
                    filled.store(true, Ordering::Release);
                    shared.ring();
                }
            };
            // Taken before the assignment, or the first records would go to the main queue.
            let Some(queue) = Queue::partition(&self.client, &at.topic, at.partition) else {
                self.shared.report(
                    Error::new(
                        ErrorKind::NotFound,
                        "take an assigned partition",
                        "librdkafka does not know it",
                    )
                    .with_topic(at.topic.clone())
                    .with_partition(at.partition),
                );
                continue;
            };
            list.add(&at.topic, at.partition, NOWHERE);
            let epoch = self.shared.offsets().start_epoch(at.clone());
            let partition = Partition {
                queue: queue.on_filled(wake),
                filled,
                epoch,
                announced: false,
                topic_id: None,
                reading: Reading::NotBegun,
                fetcher: Fetcher::Assigned,
                position: None,
                from_earliest: false,
                channel: Arc::new(Channel::new(epoch, self.config.refill_below())),
            };
            self.partitions.insert(at.clone(), partition);
            asked.push((at, epoch));
        }
        // Nothing is fetched until `begin` says where; a pause outlives the assignment that follows it.
        self.client.pause(&list);
        if let Err(error) = self.client.assign(&list, rebalance.incremental) {
            for (at, _) in &asked {
                if let Some(partition) = self.partitions.get_mut(at) {
                    partition.fetcher = Fetcher::Missing;
                }
            }
            self.shared.report(error);
        }
        self.ask(asked);
    }

    fn revoke(&mut self, rebalance: &Rebalance) {
        let mut list = Partitions::new();
        let mut gone = Vec::new();
        let mut marks = HashMap::new();
        let mut told = Vec::new();
        for entry in &rebalance.partitions {
            let at = TopicPartition::new(entry.topic.clone(), entry.partition);
            if let Some(partition) = self.partitions.remove(&at) {
                // One that was never taken cannot be given back, and would spoil it for the others.
                if partition.fetcher != Fetcher::Missing {
                    list.add(&at.topic, at.partition, crate::native::INVALID);
                }
                partition.channel.close();
                if partition.announced && self.shared.retract(&at, partition.epoch).is_none() {
                    told.push(RevokedPartition {
                        topic: at.topic.clone(),
                        partition: at.partition,
                        epoch: partition.epoch,
                    });
                }
                if let Some(metadata) = partition.channel.metadata() {
                    marks.insert(at.clone(), metadata);
                }
                gone.push(at);
            }
        }
        if rebalance.kind == RebalanceKind::Lost {
            self.shared.offsets().lose(&gone);
        } else {
            // Before the partitions are given back: later the coordinator would refuse it.
            let commit = self.shared.offsets().revoke(&gone);
            if let Some(commit) = commit {
                self.send_commit(&commit, &|at| marks.get(at).cloned());
            }
        }
        if let Err(error) = self.client.unassign(&list, rebalance.incremental) {
            self.shared.report(error);
        }
        if !told.is_empty() {
            self.shared.emit(match rebalance.kind {
                RebalanceKind::Lost => ConsumerEvent::Lost(told),
                _ => ConsumerEvent::Revoked(told),
            });
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Begin { at, epoch, offset } => {
                if let Some(partition) = self.partitions.get_mut(&at)
                    && partition.epoch <= epoch
                {
                    partition.epoch = epoch;
                    partition.position = (offset >= 0).then_some(offset);
                    partition.from_earliest = offset < 0;
                    partition.reading = match partition.position {
                        Some(offset) => Seek::to(offset, None),
                        None => Reading::Resolving { ask_at: Some(Instant::now()) },
                    };
                }
            }
            Command::Earliest { at, epoch, offset } => self.earliest(&at, epoch, offset),
            Command::Resolved(asked, answer) => self.resolved(asked, answer),
            Command::Close { until, done } => self.closing = Some(Closing { until, done }),
        }
    }

    /// Asks where partitions begin; the answer comes as a command.
    fn ask(&mut self, asked: Vec<(TopicPartition, u64)>) {
        if !asked.is_empty() && self.questions.send(Question::Assigned(asked)).is_err() {
            self.shared.report(Error::new(
                ErrorKind::Fatal,
                "resolve the assignment",
                "the asking thread has ended",
            ));
        }
    }

    fn ask_again(&mut self) -> Duration {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ask_again).into_iter().partition(|(at, _)| *at <= now);
        self.ask_again = later;
        for (_, asked) in due {
            let asked = self.still_ours(asked);
            self.ask(asked);
        }
        self.ask_again.iter().map(|(at, _)| at.saturating_duration_since(now)).min().unwrap_or(LONGEST_WAIT)
    }

    fn still_ours(&self, mut asked: Vec<(TopicPartition, u64)>) -> Vec<(TopicPartition, u64)> {
        asked
            .retain(|(at, epoch)| self.partitions.get(at).is_some_and(|p| p.epoch == *epoch && !p.announced));
        asked
    }

    fn resolved(&mut self, asked: Vec<(TopicPartition, u64)>, answer: Result<Vec<Resolved>>) {
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                let asked = self.still_ours(asked);
                if !asked.is_empty() {
                    self.shared.report(error);
                    self.ask_again.push((Instant::now() + LOOKUP_RETRY, asked));
                }
                return;
            }
        };
        let mut assigned = Vec::new();
        for ((at, epoch), resolved) in asked.into_iter().zip(answers) {
            let Some(partition) = self.partitions.get_mut(&at).filter(|p| p.epoch == epoch && !p.announced)
            else {
                continue;
            };
            partition.announced = true;
            partition.topic_id = resolved.topic_id;
            assigned.push(AssignedPartition {
                topic: at.topic,
                partition: at.partition,
                epoch,
                topic_id: resolved.topic_id,
                group_offset: resolved.group_offset,
                group_metadata: resolved.group_metadata,
                group_start: resolved.group_start,
                channel: partition.channel.clone(),
                shared: self.shared.clone(),
            });
        }
        if !assigned.is_empty() {
            self.shared.emit(ConsumerEvent::Assigned(assigned));
        }
    }

    /// Asks for the earliest offsets that are wanted; the answers come as commands.
    fn ask_earliest(&mut self) {
        let now = Instant::now();
        for (at, partition) in &mut self.partitions {
            if let Reading::Resolving { ask_at } = &mut partition.reading
                && ask_at.is_some_and(|at| at <= now)
            {
                *ask_at = None;
                // The other side ends only with this thread.
                let _ = self.questions.send(Question::Earliest(at.clone(), partition.epoch));
            }
        }
    }

    fn earliest(&mut self, at: &TopicPartition, epoch: u64, offset: Result<i64>) {
        let Some(partition) = self.partitions.get_mut(at).filter(|p| p.epoch == epoch) else { return };
        if !matches!(partition.reading, Reading::Resolving { ask_at: None }) {
            return;
        }
        match offset {
            Ok(offset) => {
                partition.position = Some(offset);
                partition.reading = Seek::to(offset, None);
            }
            Err(error) => {
                partition.reading = if error.is_retryable() {
                    Reading::Resolving { ask_at: Some(Instant::now() + LOOKUP_RETRY) }
                } else {
                    Reading::Failed
                };
                self.shared.report(error);
            }
        }
    }

    /// Moves partitions to where they begin, and lets them run. A seek is refused until the partition's fetcher
    /// has started.
    fn seek(&mut self) -> Duration {
        let now = Instant::now();
        let mut wait = LONGEST_WAIT;
        self.restart_fetchers(now);
        for (at, partition) in &mut self.partitions {
            let seek = match &mut partition.reading {
                Reading::Seeking(seek) if seek.due <= now => seek,
                Reading::Seeking(seek) => {
                    wait = wait.min(seek.due - now);
                    continue;
                }
                Reading::Starting { resumed, .. } if now.duration_since(*resumed) >= RESUME_RETRY => {
                    *resumed = now;
                    self.client.resume(&at.topic, at.partition);
                    continue;
                }
                _ => continue,
            };
            let code = self.client.seek(&at.topic, at.partition, seek.offset, Duration::from_secs(1));
            if code.is_ok() {
                // In this order: nothing may be fetched from where it stood before.
                self.client.resume(&at.topic, at.partition);
                partition.reading =
                    Reading::Starting { offset: seek.offset, resumed: now, doubt: seek.doubt };
                partition.filled.store(true, Ordering::Release);
                wait = Duration::ZERO;
                continue;
            }
            seek.due = now + SEEK_RETRY;
            wait = wait.min(SEEK_RETRY);
            let not_yet = matches!(code, Code::STATE | Code::OUTDATED | Code::PREV_IN_PROGRESS)
                || kind_of(code) == ErrorKind::TimedOut;
            if !not_yet || now.duration_since(seek.since) >= START_PATIENCE {
                let (kind, detail) = if not_yet {
                    let text = format!(
                        "librdkafka has not started to fetch it within {START_PATIENCE:?} ({}); seek it, or start \
                         a new consumer",
                        code.describe()
                    );
                    (ErrorKind::Other, text)
                } else {
                    (kind_of(code), code.describe())
                };
                self.shared.report(
                    Error::new(kind, "seek", detail)
                        .with_code(code.0)
                        .with_topic(at.topic.clone())
                        .with_partition(at.partition)
                        .with_offset(seek.offset),
                );
                if partition.fetcher == Fetcher::Assigned {
                    partition.fetcher = Fetcher::Stopped;
                }
                partition.reading = Reading::Failed;
            } else if code == Code::STATE {
                if seek.restart_at <= now && partition.fetcher == Fetcher::Assigned {
                    partition.fetcher = Fetcher::Stopped;
                }
                // What has stopped the fetcher was about the place before.
                for error in partition.discard() {
                    tracing::debug!(%error, "an error of before the seek");
                }
            }
        }
        wait
    }

    /// Gives partitions whose fetcher an error has stopped back, and takes them again at their new position.
    fn restart_fetchers(&mut self, now: Instant) {
        let wanted = |p: &Partition| match &p.reading {
            Reading::Seeking(seek) if p.fetcher != Fetcher::Assigned && seek.due <= now => Some(seek.offset),
            _ => None,
        };
        if !self.partitions.values().any(|p| wanted(p).is_some()) {
            return;
        }
        let (mut back, mut list) = (Partitions::new(), Partitions::new());
        for (at, partition) in &mut self.partitions {
            match wanted(partition) {
                Some(offset) => {
                    list.add(&at.topic, at.partition, offset);
                    if partition.fetcher == Fetcher::Stopped {
                        back.add(&at.topic, at.partition, crate::native::INVALID);
                    }
                }
                // The eager protocol knows whole assignments only: the others go on where they are. Where a
                // position is not known yet, the partition is still to be sought.
                None if !self.incremental => {
                    let offset = match &partition.reading {
                        Reading::Seeking(seek) => seek.offset,
                        _ => partition.position.unwrap_or(NOWHERE),
                    };
                    list.add(&at.topic, at.partition, offset);
                }
                None => {}
            }
        }
        let given_back = if self.incremental { self.client.unassign(&back, true) } else { Ok(()) };
        let is_back = given_back.is_ok();
        let taken = given_back.and_then(|()| self.client.assign(&list, self.incremental));
        let fetcher = match &taken {
            Ok(()) => Some(Fetcher::Assigned),
            Err(_) if is_back => Some(Fetcher::Missing),
            Err(_) => None,
        };
        for partition in self.partitions.values_mut().filter(|p| wanted(p).is_some()) {
            partition.fetcher = fetcher.unwrap_or(partition.fetcher);
            if let Reading::Seeking(seek) = &mut partition.reading {
                seek.restart_at = now + RESTART_AFTER;
                // After a failure the seek itself is not delayed: its refusals count the time.
                seek.due = now;
            }
        }
        if let Err(error) = taken {
            self.shared.report(error);
        }
    }

    /// Drains every partition that has records and credit.
    fn drain_all(&mut self) {
        for (at, partition) in &mut self.partitions {
            if !partition.filled.load(Ordering::Acquire) {
                continue;
            }
            match partition.reading {
                // No credit is back-pressure: what is not taken stops librdkafka's prefetch of this partition.
                Reading::Running | Reading::Starting { .. } => {
                    if partition.channel.wants_more() {
                        partition.drain(at, &self.config, &self.shared);
                    }
                }
                // Only errors can be there.
                Reading::NotBegun => {
                    for error in partition.discard() {
                        self.shared.report(error);
                    }
                }
                Reading::Resolving { .. } | Reading::Seeking(_) | Reading::Failed => {}
            }
        }
    }

    fn serve_replies(&mut self) {
        while let Some(reply) = self.replies.next_commit_reply(Duration::ZERO) {
            self.commit_answered(&reply);
        }
    }

    fn commit_answered(&mut self, reply: &CommitReply) {
        let stored = |at: &TopicPartition| {
            reply.code.is_ok()
                && reply
                    .partitions
                    .iter()
                    .any(|e| e.topic == at.topic && e.partition == at.partition && e.code.is_ok())
        };
        self.shared.offsets().commit_answered(reply.id, self.started.elapsed(), stored);
        let refused = reply.partitions.iter().find(|e| !e.code.is_ok());
        let code = if reply.code.is_ok() { refused.map_or(Code::OK, |e| e.code) } else { reply.code };
        if !code.is_ok() {
            let mut error = Error::new(kind_of(code), "commit offsets", code.describe()).with_code(code.0);
            if let Some(e) = refused.or(reply.partitions.first()) {
                error = error.with_topic(e.topic.clone()).with_partition(e.partition).with_offset(e.offset);
            }
            tracing::debug!(%error, "a commit was refused");
            self.shared.emit(ConsumerEvent::CommitFailed(error));
        }
    }

    /// Sends the commit that is due. Gives when to look again.
    fn commit(&mut self) -> Duration {
        if let Some(last) = self.last_commit {
            let since = last.elapsed();
            if since < self.config.commit_interval {
                return self.config.commit_interval - since;
            }
        }
        let now = self.started.elapsed();
        let commit = self.shared.offsets().next_commit(now);
        if let Some(commit) = commit {
            self.last_commit = Some(Instant::now());
            self.send_commit(&commit, &|at| self.partitions.get(at)?.channel.metadata());
        }
        let retry = self.shared.offsets().retry_at();
        retry.map_or(LONGEST_WAIT, |at| at.saturating_sub(now).max(Duration::from_millis(1)))
    }

    fn send_commit(&self, commit: &Commit, metadata: &dyn Fn(&TopicPartition) -> Option<Arc<str>>) {
        let mut list = Partitions::new();
        for (at, offset) in &commit.offsets {
            let metadata = metadata(at).unwrap_or_default();
            list.add_with_metadata(&at.topic, at.partition, *offset, &metadata);
        }
        if let Err(error) = self.client.commit(&list, &self.replies, commit.id) {
            // Nothing was sent, so nothing will be answered.
            self.shared.offsets().commit_answered(commit.id, self.started.elapsed(), |_| false);
            self.shared.emit(ConsumerEvent::CommitFailed(error));
        }
    }

    /// Commits, leaves the group and ends, within the deadline.
    fn close(mut self) {
        let Some(Closing { until, done }) = self.closing.take() else { return };
        for partition in self.partitions.values() {
            partition.channel.close();
        }
        let left = || until.saturating_duration_since(Instant::now());
        // What is complete is committed while the partitions are still ours, and its answer is waited for.
        self.config.commit_interval = Duration::ZERO;
        while self.shared.offsets().commit_pending() && !left().is_zero() {
            self.serve_group();
            self.serve_replies();
            self.commit();
            self.shared.wait(Duration::from_millis(5));
        }
        let unsaved = self.shared.offsets().commit_pending();
        let mut closed = false;
        let mut refused = None;
        if !left().is_zero() {
            let mut queue = Queue::new(&self.client);
            match self.client.start_close(&queue) {
                Ok(()) => {
                    while !self.client.closed() && !left().is_zero() {
                        queue.serve(Duration::from_millis(20).min(left()));
                        for note in self.client.take_notes() {
                            self.take_note(note);
                        }
                        self.serve_replies();
                    }
                    closed = self.client.closed();
                }
                Err(error) => refused = Some(error),
            }
        }
        let rest: Vec<_> = self.partitions.keys().cloned().collect();
        self.shared.offsets().lose(&rest);
        self.partitions.clear();
        self.shared.end();
        let late = |text: &str| Err(Error::new(ErrorKind::TimedOut, "close the consumer", text));
        let outcome = match refused {
            Some(error) => Err(error),
            None if unsaved => {
                late("what was complete could not be committed in time; it will be delivered again")
            }
            None if !closed => late(
                "the group did not answer in time; its coordinator will notice after the session timeout",
            ),
            None => Ok(()),
        };
        if let Some(done) = done {
            let _ = done.send(outcome);
        }
        // The client is destroyed by whichever of our two threads lets go last; both are ours.
    }
}
