//! The group's offset of a partition against its ledger: who committed it, and whether both agree.
//!
//! The ledger says where to go on; the group's offset is advice. But somebody who moves the offset, or loses the
//! ledger, means something by it or has made a mistake, and neither may pass in silence.

use gristmill_sinks::{PartitionId, parse_topic_id};

/// What our commits begin with; the number is the form of what follows.
const PREFIX: &str = "gristmill/1 ";

/// What every commit of a pipeline carries: `gristmill/1 {topic id} {pipeline}`. With the topic's id, since a commit
/// of a topic that was deleted may arrive late at the one that was created again.
pub(crate) fn mark(id: &PartitionId) -> String {
    format!("{PREFIX}{} {}", id.topic_id_text(), id.pipeline)
}

/// Who committed an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// This pipeline, on this topic.
    Ours,
    /// This pipeline, on a topic of the same name that was deleted since.
    OldTopic,
    /// Another pipeline that shares the group.
    Other(String),
    /// Nobody left a mark: a tool, or another consumer.
    Unmarked,
}

impl Author {
    pub(crate) fn of(metadata: Option<&str>, id: &PartitionId) -> Author {
        let Some((topic_id, pipeline)) =
            metadata.and_then(|m| m.strip_prefix(PREFIX)).and_then(|m| m.split_once(' '))
        else {
            return Author::Unmarked;
        };
        match parse_topic_id(topic_id) {
            None => Author::Unmarked,
            Some(_) if pipeline != id.pipeline => Author::Other(pipeline.to_owned()),
            Some(topic_id) if topic_id == id.topic_id => Author::Ours,
            Some(_) => Author::OldTopic,
        }
    }
}

/// How far a ledger has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: i64,
    pub(crate) next: i64,
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
    Moved { committed: i64, next: i64, by: Author },
    /// We have committed what this ledger does not have.
    LedgerBehind { committed: i64, next: i64 },
    /// We have committed an offset, and there is no ledger.
    LedgerGone { committed: i64 },
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
        // A late commit to the old topic; ours has not committed yet.
        (Some(Span { start, next }), Some(_)) if recreated && start == next => Verdict::GoOn,
        (Some(Span { next, .. }), Some((committed, by))) => Verdict::Moved { committed, next, by },
        (None, Some((committed, Author::Ours))) => Verdict::LedgerGone { committed },
        (None, Some((_, Author::OldTopic))) => Verdict::StartAtBeginning,
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
        Some(Span { start, next })
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
                let moved = Verdict::Moved { committed, next: 100, by: by.clone() };
                assert_eq!(judge(ledger(0, 100), Some((committed, by.clone())), false), moved);
                // A ledger that has only begun is a ledger.
                let found = judge(ledger(100, 100), Some((committed, by.clone())), false);
                assert_eq!(found, moved);
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
        let moved = Verdict::Moved { committed: 44, next: 10, by: Author::Unmarked };
        assert_eq!(judge(ledger(0, 10), Some((44, Author::Unmarked)), true), moved);
    }
}
