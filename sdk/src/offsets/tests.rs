use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

const NOW: Duration = Duration::ZERO;

fn begun(position: i64) -> (OffsetTracker, u64) {
    let mut tracker = OffsetTracker::default();
    let epoch = tracker.start_epoch(at(0));
    tracker.begin(&at(0), epoch, Some(position), Some(position), false);
    (tracker, epoch)
}

#[test]
fn commits_only_below_the_first_open_delivery() {
    let (mut tracker, epoch) = begun(10);
    let a = tracker.deliver(&at(0), epoch, 10, 20).expect("current");
    let b = tracker.deliver(&at(0), epoch, 25, 30).expect("current");
    assert_eq!(tracker.complete(&b), Completion::Done);
    assert_eq!(tracker.next_commit(NOW), None, "10 is what the group has");
    assert_eq!(tracker.complete(&a), Completion::Done);
    let commit = tracker.next_commit(NOW).expect("30 is new");
    assert_eq!(commit.offsets, [(at(0), 30)]);
}

#[test]
fn a_gap_in_offsets_belongs_to_the_delivery_after_it() {
    let (mut tracker, epoch) = begun(10);
    let a = tracker.deliver(&at(0), epoch, 10, 11).expect("current");
    let _b = tracker.deliver(&at(0), epoch, 500, 501).expect("current");
    tracker.complete(&a);
    assert_eq!(tracker.committable(&at(0)), Some(11), "the position, not the next record's offset");
}

#[test]
fn the_beginning_of_a_delivery_is_committed_before_the_rest() {
    let (mut tracker, epoch) = begun(10);
    let a = tracker.deliver(&at(0), epoch, 10, 20).expect("current");
    let b = tracker.deliver(&at(0), epoch, 20, 30).expect("current");
    assert_eq!(tracker.advance(&b, 25), Completion::Done);
    assert_eq!(tracker.next_commit(NOW), None, "the one before it is open");
    assert_eq!(tracker.advance(&a, 14), Completion::Done);
    assert_eq!(tracker.advance(&a, 12), Completion::Repeated, "never back");
    assert_eq!(tracker.next_commit(NOW).expect("14 is new").offsets, [(at(0), 14)]);
    tracker.complete(&a);
    assert_eq!(tracker.committable(&at(0)), Some(25));
    assert_eq!(tracker.advance(&a, 99), Completion::Repeated);
    assert_eq!(tracker.revoke([&at(0)]).expect("the last").offsets, [(at(0), 25)]);
    assert_eq!(tracker.advance(&b, 27), Completion::Stale);
}

#[test]
fn completing_through_completes_all_before() {
    let (mut tracker, epoch) = begun(0);
    let tokens: Vec<_> = (0..4).filter_map(|i| tracker.deliver(&at(0), epoch, i * 10, i * 10 + 10)).collect();
    assert_eq!(tracker.complete_through(&tokens[2]), Completion::Done);
    assert_eq!(tracker.committable(&at(0)), Some(30));
    assert_eq!(tracker.open_slots(&at(0)), 1);
    assert_eq!(tracker.complete(&tokens[1]), Completion::Repeated);
}

#[test]
fn a_token_of_an_epoch_that_ended_changes_nothing() {
    let (mut tracker, epoch) = begun(0);
    let old = tracker.deliver(&at(0), epoch, 0, 10).expect("current");
    let commit = tracker.revoke([&at(0)]);
    assert_eq!(commit, None, "nothing was completed");
    let epoch = tracker.start_epoch(at(0));
    tracker.begin(&at(0), epoch, Some(0), Some(0), false);
    assert_eq!(tracker.complete(&old), Completion::Stale);
    assert_eq!(tracker.stale_completions(), 1);
    assert_eq!(tracker.next_commit(NOW), None);
}

#[test]
fn one_commit_is_in_flight_and_a_failed_one_is_tried_again() {
    let (mut tracker, epoch) = begun(0);
    let a = tracker.deliver(&at(0), epoch, 0, 10).expect("current");
    let b = tracker.deliver(&at(0), epoch, 10, 20).expect("current");
    tracker.complete(&a);
    let first = tracker.next_commit(NOW).expect("10");
    tracker.complete(&b);
    assert_eq!(tracker.next_commit(NOW), None, "one at a time");
    assert!(tracker.commit_answered(first.id, NOW, |_| false));
    assert_eq!(tracker.next_commit(NOW), None, "backoff");
    let later = tracker.retry_at().expect("a retry is due");
    let second = tracker.next_commit(later).expect("again, with what was completed meanwhile");
    assert_eq!(second.offsets, [(at(0), 20)]);
    assert!(!tracker.commit_answered(first.id, later, |_| true), "an old answer is no answer");
    assert!(tracker.commit_answered(second.id, later, |_| true));
    assert!(!tracker.commit_pending());
    assert_eq!(tracker.retry_at(), None);
}

#[test]
fn a_lost_partition_is_never_committed() {
    let (mut tracker, epoch) = begun(0);
    let a = tracker.deliver(&at(0), epoch, 0, 10).expect("current");
    tracker.complete(&a);
    tracker.lose([&at(0)]);
    assert_eq!(tracker.next_commit(NOW), None);
    assert!(!tracker.commit_pending());
}

#[test]
fn a_revoked_partition_gives_its_last_commit() {
    let (mut tracker, epoch) = begun(0);
    let a = tracker.deliver(&at(0), epoch, 0, 10).expect("current");
    tracker.complete(&a);
    let commit = tracker.revoke([&at(0)]).expect("10 is new");
    assert_eq!(commit.offsets, [(at(0), 10)]);
    assert!(!tracker.commit_answered(commit.id, NOW, |_| false), "nothing is left to try again");
}

#[test]
fn a_start_is_committed_only_if_asked() {
    let mut tracker = OffsetTracker::default();
    let epoch = tracker.start_epoch(at(0));
    tracker.begin(&at(0), epoch, Some(70), None, false);
    assert_eq!(tracker.next_commit(NOW), None);
    tracker.begin(&at(0), epoch, Some(70), None, true);
    assert_eq!(tracker.next_commit(NOW).expect("asked").offsets, [(at(0), 70)]);
}

#[test]
fn a_rewound_start_moves_the_group_only_when_something_is_complete() {
    let mut tracker = OffsetTracker::default();
    let epoch = tracker.start_epoch(at(0));
    tracker.begin(&at(0), epoch, Some(5), Some(100), false);
    assert_eq!(tracker.next_commit(NOW), None);
    let a = tracker.deliver(&at(0), epoch, 5, 6).expect("current");
    tracker.complete(&a);
    assert_eq!(tracker.next_commit(NOW).expect("6").offsets, [(at(0), 6)]);
}

/// One step of a run, chosen by the test; indexes are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Deliver { partition: i32, gap: i64, len: i64 },
    Complete { token: usize },
    CompleteThrough { token: usize },
    Advance { token: usize, by: i64 },
    Send,
    Answer { stored: [bool; 3] },
    Revoke { partition: i32 },
    Lose { partition: i32 },
    Assign { partition: i32 },
    Seek { partition: i32, position: i64 },
    Wait { millis: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0..3_i32;
    let step = prop_oneof![
        6 => (partition.clone(), 0..5_i64, 0..20_i64).prop_map(|(partition, gap, len)| Step::Deliver { partition, gap, len }),
        5 => any::<usize>().prop_map(|token| Step::Complete { token }),
        2 => any::<usize>().prop_map(|token| Step::CompleteThrough { token }),
        3 => (any::<usize>(), 0..25_i64).prop_map(|(token, by)| Step::Advance { token, by }),
        4 => Just(Step::Send),
        4 => any::<[bool; 3]>().prop_map(|stored| Step::Answer { stored }),
        1 => partition.clone().prop_map(|partition| Step::Revoke { partition }),
        1 => partition.clone().prop_map(|partition| Step::Lose { partition }),
        2 => partition.clone().prop_map(|partition| Step::Assign { partition }),
        1 => (partition, 0..1000_i64).prop_map(|(partition, position)| Step::Seek { partition, position }),
        2 => (0..8000_u64).prop_map(|millis| Step::Wait { millis }),
    ];
    prop::collection::vec(step, 1..120)
}

/// The same in the plainest way: every delivery for ever, nothing pruned.
#[derive(Default)]
struct Model {
    /// For each partition that is ours: epoch, start, deliveries (start, next, done), highest commit stored.
    ours: BTreeMap<i32, ModelPartition>,
}

#[derive(Clone, Default)]
struct ModelPartition {
    epoch: u64,
    start: i64,
    deliveries: Vec<(i64, i64, bool)>,
    stored: Option<i64>,
}

impl ModelPartition {
    fn position(&self) -> i64 {
        self.deliveries.last().map_or(self.start, |d| d.1)
    }

    fn committable(&self) -> i64 {
        self.deliveries.iter().find(|d| !d.2).map_or(self.position(), |d| d.0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Against the model: what is committed is always the end of the completed beginning, never goes back within
    /// an epoch, never concerns a partition that is not ours, and at most one commit is in flight. At the end
    /// everything completed is committed.
    #[test]
    fn random_runs_agree_with_a_plain_model(steps in steps()) {
        let mut tracker = OffsetTracker::default();
        let mut model = Model::default();
        let mut tokens: Vec<(Token, usize)> = Vec::new();
        let mut in_flight: Option<(Commit, BTreeMap<i32, u64>)> = None;
        let mut now = Duration::ZERO;
        let mut stale = 0;
        for step in steps {
            match step {
                Step::Assign { partition } => {
                    if model.ours.contains_key(&partition) { continue }
                    let epoch = tracker.start_epoch(at(partition));
                    tracker.begin(&at(partition), epoch, Some(100), Some(100), false);
                    let stored = Some(100);
                    model.ours.insert(partition, ModelPartition { epoch, start: 100, stored, ..Default::default() });
                }
                Step::Seek { partition, position } => {
                    let Some(p) = model.ours.get_mut(&partition) else { continue };
                    let old = p.epoch;
                    let epoch = tracker.restart_epoch(&at(partition), old).expect("current");
                    prop_assert!(epoch > old);
                    prop_assert_eq!(tracker.restart_epoch(&at(partition), old), None);
                    tracker.begin(&at(partition), epoch, Some(position), None, false);
                    *p = ModelPartition { epoch, start: position, ..Default::default() };
                }
                Step::Deliver { partition, gap, len } => {
                    let Some(p) = model.ours.get_mut(&partition) else {
                        prop_assert!(tracker.deliver(&at(partition), 0, 0, 1).is_none());
                        continue;
                    };
                    let start = p.position();
                    let (first, next) = (start + gap, start + gap + len);
                    let token = tracker.deliver(&at(partition), p.epoch, first, next).expect("current");
                    tokens.push((token, p.deliveries.len()));
                    p.deliveries.push((start, next, false));
                }
                Step::Complete { token } | Step::CompleteThrough { token } => {
                    if tokens.is_empty() { continue }
                    let through = matches!(step, Step::CompleteThrough { .. });
                    let (token, index) = tokens[token % tokens.len()].clone();
                    let p = model.ours.get_mut(&token.at.partition).filter(|p| p.epoch == token.epoch);
                    let expected = match p {
                        None => { stale += 1; Completion::Stale }
                        Some(p) => {
                            let range = if through { 0..=index } else { index..=index };
                            let changed = p.deliveries[range.clone()].iter().any(|d| !d.2);
                            p.deliveries[range].iter_mut().for_each(|d| d.2 = true);
                            if changed { Completion::Done } else { Completion::Repeated }
                        }
                    };
                    let got = if through { tracker.complete_through(&token) } else { tracker.complete(&token) };
                    prop_assert_eq!(got, expected);
                }
                Step::Advance { token, by } => {
                    if tokens.is_empty() { continue }
                    let (token, index) = tokens[token % tokens.len()].clone();
                    let p = model.ours.get_mut(&token.at.partition).filter(|p| p.epoch == token.epoch);
                    let mut to = by;
                    let expected = match p {
                        None => { stale += 1; Completion::Stale }
                        Some(p) => {
                            let (start, next, done) = &mut p.deliveries[index];
                            to = (*start + by).min(*next);
                            if *done || to == *start { Completion::Repeated } else {
                                *start = to;
                                Completion::Done
                            }
                        }
                    };
                    prop_assert_eq!(tracker.advance(&token, to), expected);
                }
                Step::Send => {
                    let Some(commit) = tracker.next_commit(now) else { continue };
                    prop_assert!(in_flight.is_none(), "one in flight");
                    for (at, offset) in &commit.offsets {
                        let p = model.ours.get(&at.partition);
                        prop_assert!(p.is_some(), "only what is ours");
                        let p = p.expect("just checked");
                        prop_assert_eq!(*offset, p.committable());
                        prop_assert!(p.stored.is_none_or(|s| *offset > s), "never back, never twice");
                    }
                    let epochs = model.ours.iter().map(|(k, p)| (*k, p.epoch)).collect();
                    in_flight = Some((commit, epochs));
                }
                Step::Answer { stored } => {
                    let Some((commit, epochs)) = in_flight.take() else { continue };
                    let is_stored = |at: &TopicPartition| stored[usize::try_from(at.partition).expect("small")];
                    let answered = tracker.commit_answered(commit.id, now, is_stored);
                    prop_assert!(answered);
                    for (at, offset) in &commit.offsets {
                        if is_stored(at)
                            && let Some(p) = model.ours.get_mut(&at.partition)
                            // A later epoch does not inherit it.
                            && epochs.get(&at.partition) == Some(&p.epoch)
                        {
                            p.stored = Some(p.stored.map_or(*offset, |s| s.max(*offset)));
                        }
                    }
                }
                Step::Revoke { partition } => {
                    let last = tracker.revoke([&at(partition)]);
                    let model = model.ours.remove(&partition);
                    if let Some(commit) = last {
                        let p = model.expect("only what is ours");
                        prop_assert_eq!(commit.offsets, [(at(partition), p.committable())]);
                    }
                }
                Step::Lose { partition } => {
                    tracker.lose([&at(partition)]);
                    model.ours.remove(&partition);
                }
                Step::Wait { millis } => now += Duration::from_millis(millis),
            }
            for (partition, p) in &model.ours {
                prop_assert_eq!(tracker.committable(&at(*partition)), Some(p.committable()));
                prop_assert_eq!(tracker.position(&at(*partition)), Some(p.position()));
            }
            prop_assert_eq!(tracker.stale_completions(), stale);
        }
        // From any state: once commits are answered, everything completed is committed, and then nothing is sent.
        if let Some((commit, _)) = in_flight {
            tracker.commit_answered(commit.id, now, |_| false);
        }
        now += LONGEST_BACKOFF;
        if let Some(commit) = tracker.next_commit(now) {
            tracker.commit_answered(commit.id, now, |_| true);
        }
        prop_assert!(!tracker.commit_pending());
        for p in model.ours.values() {
            // The first delivery being complete is what makes the committable offset worth a commit.
            if p.deliveries.first().is_some_and(|d| d.2) && p.committable() > p.stored.unwrap_or(p.start) {
                let known = tracker.partitions.values().find(|t| t.epoch == p.epoch).and_then(|t| t.committed);
                prop_assert_eq!(known, Some(p.committable()));
            }
        }
    }
}
