//! The group's offset of a partition against its ledger: who committed it, and whether both agree.
//!
//! The ledger says where to go on; the group's offset is advice. But somebody who moves the offset, or loses the
//! ledger, means something by it or has made a mistake, and neither may pass in silence.

use gristmill_sinks::{LedgerEnd, PartitionId, parse_topic_id};

/// What our commits begin with; the number is the form of what follows.
const PREFIX: &str = "gristmill/1 ";

/// What every commit of a pipeline carries: `gristmill/1 {topic id} {pipeline}`. With the topic's id, since a commit
/// of a topic that was deleted may arrive late at the one that was created again.
pub(crate) fn mark(id: &PartitionId) -> String {
    format!("{PREFIX}{} {}", id.topic_id_text(), id.pipeline)
}

/// What an operator's word to begin a ledger at the group's offset starts with. Another word than [`PREFIX`], since a
/// pipeline's name may end in anything.
const BEGIN: &str = "gristmill-begin/1 ";

/// The mark with which `gristmill ledger reset` has a ledger begin where the group is: `gristmill-begin/1 {topic id}
/// {pipeline}`.
pub(crate) fn begin_mark(id: &PartitionId) -> String {
    format!("{BEGIN}{} {}", id.topic_id_text(), id.pipeline)
}

/// Up to which offset a ledger was published: an offset is committed after that.
pub(crate) fn published(offset: Option<i64>, metadata: Option<&str>, id: &PartitionId) -> Option<i64> {
    offset.filter(|_| Author::of(metadata, id) == Author::Ours)
}

/// Who committed an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// This pipeline, on this topic.
    Ours,
    /// An operator, who wants this pipeline's ledger of this topic to begin there.
    Begin,
    /// This pipeline, on a topic of the same name that was deleted since.
    OldTopic,
    /// Another pipeline that shares the group.
    Other(String),
    /// Nobody left a mark: a tool, or another consumer.
    Unmarked,
}

impl Author {
    pub(crate) fn of(metadata: Option<&str>, id: &PartitionId) -> Author {
        let Some(metadata) = metadata else { return Author::Unmarked };
        let (mark, of_this_topic) = match (metadata.strip_prefix(PREFIX), metadata.strip_prefix(BEGIN)) {
            (Some(mark), _) => (mark, Author::Ours),
            (None, Some(mark)) => (mark, Author::Begin),
            (None, None) => return Author::Unmarked,
        };
        let Some((topic_id, pipeline)) = mark.split_once(' ') else { return Author::Unmarked };
        match parse_topic_id(topic_id) {
            None => Author::Unmarked,
            Some(_) if pipeline != id.pipeline => Author::Other(pipeline.to_owned()),
            Some(topic_id) if topic_id == id.topic_id => of_this_topic,
            Some(_) => Author::OldTopic,
        }
    }
}

/// How far a ledger has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: i64,
    pub(crate) next: i64,
    /// It has one entry at most.
    pub(crate) is_young: bool,
}

impl Span {
    pub(crate) fn of(end: &LedgerEnd) -> Span {
        let is_young = end.tip.as_ref().is_none_or(|tip| tip.first == end.start);
        Span { start: end.start, next: end.next, is_young }
    }

    /// Whether an offset that is not of this pipeline is the one that the ledger began with: the first commit has not
    /// arrived. 0 is also what a group has that was put back to the earliest record: there only a young ledger counts.
    fn began_at(&self, committed: i64) -> bool {
        committed == self.start && (committed > 0 || self.is_young)
    }
}

/// What follows from the group's offset and the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The ledger goes on where it ends.
    GoOn,
    /// There is no ledger; the group's offset is not of this topic: a new one starts at the beginning.
    StartAtBeginning,
    /// There is no ledger; a new one starts where the group is, or where the file says.
    StartAtGroup,
    /// Somebody has moved the offset.
    Moved { committed: i64, ledger: Span, by: Author },
    /// We have committed what this ledger does not have.
    LedgerBehind { committed: i64, next: i64 },
    /// We have committed an offset, and there is no ledger.
    LedgerGone { committed: i64 },
    /// There is no ledger, and another pipeline is a member of the group, or was.
    GroupOfAnother { committed: i64, name: String },
}

/// `recreated`: the state store knows another topic of the same name.
pub(crate) fn judge(ledger: Option<Span>, committed: Option<(i64, Author)>, recreated: bool) -> Verdict {
    match (ledger, committed) {
        (Some(_), None | Some((_, Author::OldTopic))) => Verdict::GoOn,
        (Some(Span { next, .. }), Some((committed, _))) if committed == next => Verdict::GoOn,
        // A crash between publishing and committing.
        (Some(Span { next, .. }), Some((committed, Author::Ours))) if committed < next => Verdict::GoOn,
        (Some(Span { next, .. }), Some((committed, Author::Ours))) => {
            Verdict::LedgerBehind { committed, next }
        }
        // The same, before the first commit: the group is still where the consumer before us has left it.
        (Some(ledger), Some((committed, Author::Unmarked | Author::Begin))) if ledger.began_at(committed) => {
            Verdict::GoOn
        }
        // A late commit to the old topic; ours has not committed yet.
        (Some(Span { start, next, .. }), Some(_)) if recreated && start == next => Verdict::GoOn,
        (Some(ledger), Some((committed, by))) => Verdict::Moved { committed, ledger, by },
        (None, Some((committed, Author::Ours))) => Verdict::LedgerGone { committed },
        (None, Some((committed, Author::Other(name)))) => Verdict::GroupOfAnother { committed, name },
        (None, Some((_, Author::OldTopic))) => Verdict::StartAtBeginning,
        (None, Some((_, Author::Begin))) => Verdict::StartAtGroup,
        (None, _) if recreated => Verdict::StartAtBeginning,
        (None, _) => Verdict::StartAtGroup,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PartitionId {
        PartitionId {
            pipeline: "to the lake".into(),
            cluster: "c".into(),
            topic: "orders".into(),
            topic_id: [0xfb; 16],
            partition: 0,
        }
    }

    fn ledger(start: i64, next: i64) -> Option<Span> {
        Some(Span { start, next, is_young: false })
    }

    #[test]
    fn a_mark_tells_pipeline_and_topic() {
        let of = |id: &PartitionId| Author::of(Some(&mark(id)), &self::id());
        assert_eq!(of(&id()), Author::Ours);
        assert_eq!(of(&PartitionId { topic_id: [1; 16], ..id() }), Author::OldTopic);
        assert_eq!(of(&PartitionId { pipeline: "b c".into(), ..id() }), Author::Other("b c".into()));
        for metadata in
            [None, Some(""), Some("gristmill/1"), Some("gristmill/1 x y"), Some("gristmill/2 a b")]
        {
            assert_eq!(Author::of(metadata, &id()), Author::Unmarked, "{metadata:?}");
        }
    }

    #[test]
    fn an_offset_of_ours_may_lag_but_not_lead() {
        let ours = |offset| Some((offset, Author::Ours));
        for offset in [0, 99, 100] {
            assert_eq!(judge(ledger(0, 100), ours(offset), false), Verdict::GoOn);
        }
        let behind = Verdict::LedgerBehind { committed: 101, next: 100 };
        assert_eq!(judge(ledger(0, 100), ours(101), false), behind);
        assert_eq!(judge(None, ours(100), false), Verdict::LedgerGone { committed: 100 });
        assert_eq!(judge(None, ours(100), true), Verdict::LedgerGone { committed: 100 });
    }

    #[test]
    fn an_offset_without_our_mark_is_the_ledgers_end_or_was_moved() {
        for by in [Author::Unmarked, Author::Other("b".into())] {
            assert_eq!(judge(ledger(0, 100), Some((100, by.clone())), false), Verdict::GoOn);
            for committed in [0, 99, 101] {
                // A ledger that has only begun is a ledger.
                for ledger in [ledger(0, 100), ledger(100, 100), ledger(50, 100)] {
                    let moved = Verdict::Moved { committed, ledger: ledger.unwrap(), by: by.clone() };
                    assert_eq!(judge(ledger, Some((committed, by.clone())), false), moved);
                }
            }
        }
    }

    #[test]
    fn a_first_start_takes_the_groups_offset_and_an_expired_one_changes_nothing() {
        assert_eq!(judge(None, None, false), Verdict::StartAtGroup);
        assert_eq!(judge(None, Some((44, Author::Unmarked)), false), Verdict::StartAtGroup);
        assert_eq!(judge(ledger(0, 100), None, false), Verdict::GoOn);
    }

    #[test]
    fn an_offset_of_a_topic_that_was_created_again_says_nothing() {
        assert_eq!(judge(None, None, true), Verdict::StartAtBeginning);
        assert_eq!(judge(None, Some((44, Author::Unmarked)), true), Verdict::StartAtBeginning);
        for recreated in [false, true] {
            let old = Some((44, Author::OldTopic));
            assert_eq!(judge(None, old.clone(), recreated), Verdict::StartAtBeginning);
            assert_eq!(judge(ledger(0, 10), old, recreated), Verdict::GoOn);
        }
        assert_eq!(judge(ledger(0, 0), Some((44, Author::Unmarked)), true), Verdict::GoOn);
        let by = Author::Unmarked;
        let moved = Verdict::Moved { committed: 44, ledger: ledger(0, 10).unwrap(), by };
        assert_eq!(judge(ledger(0, 10), Some((44, Author::Unmarked)), true), moved);
    }

    #[test]
    fn a_start_that_died_before_its_first_commit_finds_the_group_where_its_ledger_began() {
        for by in [Author::Unmarked, Author::Begin] {
            assert_eq!(judge(ledger(100, 200), Some((100, by.clone())), false), Verdict::GoOn);
            let young = Some(Span { start: 0, next: 100, is_young: true });
            assert_eq!(judge(young, Some((0, by)), false), Verdict::GoOn);
        }
        // A group that was put back to the earliest record is not taken for one.
        let moved = Verdict::Moved { committed: 0, ledger: ledger(0, 100).unwrap(), by: Author::Unmarked };
        assert_eq!(judge(ledger(0, 100), Some((0, Author::Unmarked)), false), moved);
        let by = Author::Other("b".into());
        let moved = Verdict::Moved { committed: 100, ledger: ledger(100, 200).unwrap(), by: by.clone() };
        assert_eq!(judge(ledger(100, 200), Some((100, by)), false), moved);
    }

    #[test]
    fn an_operators_word_to_begin_counts_also_for_a_topic_that_was_created_again() {
        let of = |id: &PartitionId| Author::of(Some(&begin_mark(id)), &self::id());
        assert_eq!(of(&id()), Author::Begin);
        assert_eq!(of(&PartitionId { topic_id: [1; 16], ..id() }), Author::OldTopic);
        assert_eq!(of(&PartitionId { pipeline: "b".into(), ..id() }), Author::Other("b".into()));
        for recreated in [false, true] {
            assert_eq!(judge(None, Some((44, Author::Begin)), recreated), Verdict::StartAtGroup);
        }
    }

    #[test]
    fn a_first_start_in_the_group_of_another_pipeline_is_refused() {
        for recreated in [false, true] {
            let other = Verdict::GroupOfAnother { committed: 44, name: "b".into() };
            assert_eq!(judge(None, Some((44, Author::Other("b".into()))), recreated), other);
        }
    }
}
