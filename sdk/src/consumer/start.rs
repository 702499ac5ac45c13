//! Where an assigned partition begins, as the cluster tells it.

/// Where [`BeginAt::Group`](super::BeginAt::Group) leads, resolved at the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupStart {
    Committed(i64),
    Earliest,
    /// The end at the assignment, to be committed at once.
    EndWas(i64),
    /// There is none, and `Start::Committed` wants one.
    Missing,
}

/// The answer for one assigned partition.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) topic_id: Option<[u8; 16]>,
    pub(super) group_offset: Option<i64>,
    pub(super) group_metadata: Option<String>,
    pub(super) group_start: GroupStart,
}
