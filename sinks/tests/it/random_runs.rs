//! Random sequences of everything that can happen to a partition; at the end, a listing tells the truth.

use std::sync::Arc;

use gristmill_sinks::{
    Checkpoint, Failpoint, Failpoints, PartitionSink, SinkConfig, SinkLimits, Store, sweep_orphans,
    sweep_rejects, verify,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::format_version::Newer;
use crate::memory::{Fault, MemoryStore, Scripted};
use crate::topic::{assert_exactly_once, config, feed, partition};

#[derive(Clone, Debug)]
enum Happening {
    Feed {
        owner: usize,
        records: i64,
    },
    Checkpoint {
        owner: usize,
    },
    /// The owner is gone without a word.
    Crash {
        owner: usize,
    },
    /// The owner leaves in order.
    Abandon {
        owner: usize,
    },
    /// A new owner comes, perhaps one that will die at a failpoint.
    Open {
        owner: usize,
        dies: Option<(u8, u64)>,
    },
    Faults(Vec<u8>),
    Sweep,
}

fn happening() -> impl Strategy<Value = Happening> {
    let owner = 0..3usize;
    prop_oneof![
        6 => (owner.clone(), 1..25i64).prop_map(|(owner, records)| Happening::Feed { owner, records }),
        6 => owner.clone().prop_map(|owner| Happening::Checkpoint { owner }),
        1 => owner.clone().prop_map(|owner| Happening::Crash { owner }),
        1 => owner.clone().prop_map(|owner| Happening::Abandon { owner }),
        4 => (owner, proptest::option::of((0..5u8, 1..4u64))).prop_map(|(owner, dies)| Happening::Open { owner, dies }),
        2 => vec(0..4u8, 1..6).prop_map(Happening::Faults),
        1 => Just(Happening::Sweep),
    ]
}

fn failpoints(dies: Option<(u8, u64)>) -> Failpoints {
    let points = [
        Failpoint::AfterStage,
        Failpoint::AfterSeal,
        Failpoint::AfterMove,
        Failpoint::BeforeCommit,
        Failpoint::LostReplySeal,
    ];
    dies.map_or(Failpoints::none(), |(point, nth)| Failpoints::in_process(points[usize::from(point)], nth))
}

fn settings(store: &Arc<dyn Store>, dies: Option<(u8, u64)>) -> SinkConfig {
    // Few open files and few inline bytes, so that early closing and reject objects are in the game.
    let limits = SinkLimits { open_files: 2, inline_reject_bytes: 900, ..SinkLimits::default() };
    config(store).limits(limits).failpoints(failpoints(dies)).build().unwrap()
}

/// With `mixed`, the second owner is of a later minor version than the others.
async fn run(happenings: Vec<Happening>, mixed: bool) {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let scripted = Scripted::new(memory.clone());
    let store: Arc<dyn Store> = scripted.clone();
    let newer: Arc<dyn Store> = if mixed { Arc::new(Newer(store.clone())) } else { store.clone() };
    let store_of = |owner| if owner == 1 { &newer } else { &store };
    let mut owners: Vec<Option<PartitionSink>> = vec![None, None, None];
    for happening in happenings {
        match happening {
            Happening::Open { owner, dies } => {
                // May fail: the store may be away for longer than it is asked.
                let opened = PartitionSink::open(settings(store_of(owner), dies), partition(), 0).await;
                owners[owner] = opened.ok().map(|(sink, _)| sink);
            }
            Happening::Feed { owner, records } => {
                if let Some(sink) = &mut owners[owner] {
                    let at = sink.position();
                    // Refused while a checkpoint is not settled.
                    let _ = feed(sink, at, at + records).await;
                }
            }
            Happening::Checkpoint { owner } => {
                let Some(sink) = &mut owners[owner] else { continue };
                match sink.checkpoint().await {
                    Ok(Checkpoint::Published(entry)) => assert_eq!(sink.committable(), Some(entry.next)),
                    Ok(Checkpoint::Adopted { next }) => assert_eq!(sink.position(), next),
                    Ok(Checkpoint::Nothing) => {}
                    Err(e) if e.is_retryable() => {}
                    Err(_) => owners[owner] = None,
                }
            }
            Happening::Crash { owner } => owners[owner] = None,
            Happening::Abandon { owner } => {
                if let Some(sink) = owners[owner].take() {
                    sink.abandon().await;
                }
            }
            Happening::Faults(faults) => scripted.script(faults.into_iter().map(|f| match f {
                0 => Fault::None,
                1 => Fault::Unavailable,
                2 => Fault::ReplyLost,
                _ => Fault::RequestLost,
            })),
            Happening::Sweep => {
                sweep_orphans(&settings(&store, None), &partition()).await.unwrap();
                sweep_rejects(&settings(&store, None), &partition()).await.unwrap();
            }
        }
    }
    drop(owners);
    let healthy = settings(&memory, None);
    let (mut sink, next) = PartitionSink::open(healthy.clone(), partition(), 0).await.unwrap();
    assert_exactly_once(&memory, next).await;
    feed(&mut sink, next, next + 40).await.unwrap();
    sink.checkpoint().await.unwrap();
    assert_exactly_once(&memory, next + 40).await;
    sweep_orphans(&healthy, &partition()).await.unwrap();
    sweep_rejects(&healthy, &partition()).await.unwrap();
    let report = verify(&healthy).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.foreign_count, 0, "{report:?}");
    let is_orphan = |f: &gristmill_sinks::Finding| f.kind == gristmill_sinks::FindingKind::Orphan;
    assert!(!report.ledgers[0].findings.iter().any(is_orphan), "{report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 900, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_offset_is_read_exactly_once(
        happenings in vec(happening(), 1..40),
        mixed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(happenings, mixed));
    }
}
