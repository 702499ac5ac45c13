//! What a start of the pipeline would do: nothing is written, committed, joined or made.

use std::fmt;
use std::time::{Duration, Instant};

use gristmill::{GroupOffsets, Topics};
use gristmill_sinks::{PartitionId, SinkConfig, TableNote};

use crate::check::Checked;
use crate::error::Error;
use crate::exits::{self, Place};
use crate::file::{Mode, Start};
use crate::group_offset::{Author, Span, Verdict, judge};
use crate::prepare;

/// For an answer of the cluster.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(250);

/// What a start would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The tables of BigQuery, if rows go there.
    pub tables: Vec<PlannedTable>,
    /// Every partition of the topics.
    pub partitions: Vec<PlannedPartition>,
    /// What all processes together take of BigQuery's quotas, if rows go there.
    pub quotas: Option<QuotaUse>,
}

/// What a pipeline whose partitions all have records takes of the quotas that Google's project has.
///
/// What Google grants by default is in [its list](https://cloud.google.com/bigquery/quotas#write-api-limits). The figures here are those
/// that others quote of it, and were not tried; a project may have got more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaUse {
    /// New streams an hour by `rotate.age`, none if rows go to tables' default streams. `rotate.bytes` and `rotate.rows` may make more.
    pub streams_an_hour: u64,
    /// How many one process makes at most.
    pub most_streams_an_hour: u64,
    /// Connections that are open at once for rows.
    pub connections: u64,
    /// Both are of each table, and values of rows say how many there are.
    pub of_each_table: bool,
}

/// New streams an hour that a project has in a region by default.
const STREAMS_AN_HOUR: u64 = 10_000;
/// Connections that a project has at once in a region by default, and in the EU or the US.
const CONNECTIONS: u64 = 1_000;
const CONNECTIONS_OF_MANY_REGIONS: u64 = 10_000;

impl fmt::Display for QuotaUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuotaUse { streams_an_hour, most_streams_an_hour, connections, of_each_table } = *self;
        let each = if of_each_table { ", for each table that values name" } else { "" };
        if streams_an_hour > 0 {
            let text = "new streams of BigQuery an hour while all partitions have records";
            writeln!(
                f,
                "  {streams_an_hour} {text}{each}, and more if `rotate.rows` or `rotate.bytes` comes before `rotate.age`; a project has \
                 {STREAMS_AN_HOUR} in a region by default"
            )?;
            if streams_an_hour > STREAMS_AN_HOUR {
                let times = streams_an_hour.div_ceil(STREAMS_AN_HOUR);
                writeln!(
                    f,
                    "~ that is more: have Google raise the quota, or make `rotate.age` {times} times as long"
                )?;
            }
            if streams_an_hour > most_streams_an_hour {
                writeln!(
                    f,
                    "~ one process makes {most_streams_an_hour} in an hour by `max_streams_per_second`: rows come later than `rotate.age` \
                     says, unless several processes share the partitions"
                )?;
            }
        }
        writeln!(
            f,
            "  {connections} connections at once{each}; a project has {CONNECTIONS} in a region by default, \
             {CONNECTIONS_OF_MANY_REGIONS} in the EU or the US"
        )?;
        if connections > CONNECTIONS_OF_MANY_REGIONS {
            writeln!(f, "~ that is more: have Google raise the quota")?;
        } else if connections > CONNECTIONS {
            writeln!(
                f,
                "~ that is more than a region's: unless the dataset is in the EU or the US, have Google raise the quota"
            )?;
        }
        Ok(())
    }
}

/// A table of BigQuery.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlannedTable {
    /// Such as `project.dataset.orders`.
    pub name: String,
    /// What would be done to it, or why the pipeline would stop; nothing is known of one that values of rows name.
    pub outcome: Result<Option<TableNote>, String>,
    /// Whether dead letters go there, and no rows.
    pub is_of_dead_letters: bool,
    /// What the credentials may not do with it, though it has to be done.
    pub missing_permissions: Vec<&'static str>,
}

impl PlannedTable {
    pub(crate) fn of_rows(
        name: String,
        outcome: Result<Option<TableNote>, String>,
        missing_permissions: Vec<&'static str>,
    ) -> Self {
        PlannedTable { name, outcome, is_of_dead_letters: false, missing_permissions }
    }
}

/// A partition.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlannedPartition {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// Where reading would start, and who says so; or why the pipeline would stop.
    pub start: Result<(i64, &'static str), String>,
    /// The offset behind its last record.
    pub end: i64,
}

impl Plan {
    /// Whether the pipeline would start.
    pub fn would_start(&self) -> bool {
        self.tables.iter().all(|table| table.outcome.is_ok() && table.missing_permissions.is_empty())
            && self.partitions.iter().all(|partition| partition.start.is_ok())
    }
}

/// For people.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PlannedTable { name, outcome, missing_permissions, .. } in &self.tables {
            match outcome {
                Ok(None) => {
                    writeln!(f, "  tables {name}: each is made, or looked at, when its first row comes")?;
                }
                Ok(Some(TableNote::Fits)) => writeln!(f, "  table {name}: is there, and fits")?,
                Ok(Some(TableNote::New(ddl))) => writeln!(f, "+ table {name}: would be made\n    {ddl}")?,
                Ok(Some(TableNote::Changes(ddl))) => {
                    writeln!(f, "~ table {name}: would be changed\n    {ddl}")?;
                }
                Ok(Some(TableNote::LeavesOut { columns, rejects })) => {
                    let what = if *rejects {
                        "rows that have a value there would be dead letters"
                    } else {
                        "rows would go without them"
                    };
                    writeln!(f, "  table {name}: has no columns {}; {what}", columns.join(", "))?;
                }
                Err(why) => writeln!(f, "! table {name}: {why}")?,
            }
            if !missing_permissions.is_empty() {
                let missing = missing_permissions.join(", ");
                writeln!(f, "! table {name}: the credentials lack {missing}; BigQuery Data Editor has it")?;
            }
        }
        for PlannedPartition { topic, partition, start, end } in &self.partitions {
            match start {
                Ok((start, why)) => {
                    let behind = (end - start).max(0);
                    writeln!(
                        f,
                        "  {topic}/{partition}: from offset {start} ({why}), {behind} behind the end at {end}"
                    )?;
                }
                Err(why) => writeln!(f, "! {topic}/{partition}: {why}")?,
            }
        }
        self.quotas.iter().try_for_each(|quotas| write!(f, "{quotas}"))
    }
}

/// Asks the cluster, the registry, the ledger's place and BigQuery what a start would find.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if the transforms or the decoder do not load; what cannot be asked.
pub async fn plan(checked: &Checked) -> Result<Plan, Error> {
    let tables = prepare::planned_tables(checked).await?;
    let config = prepare::consumer(checked, false)?;
    let topics = Topics::connect(&config).map_err(Error::source)?;
    let group = GroupOffsets::new(&config).map_err(|e| Error::config(e.to_string()))?;
    let ledgers = prepare::what_is_there(checked)?;
    let cluster = patiently(async || topics.cluster_id().await).await?;
    let mut partitions = Vec::new();
    for topic in &checked.pipeline.source.kafka.topics {
        let extents = patiently(async || topics.extents(topic).await).await?;
        let topic_id = patiently(async || topics.topic_id(topic).await).await?;
        let committed = patiently(async || group.committed(topic).await).await?;
        for (partition, extent) in extents.iter().enumerate() {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let id = PartitionId {
                pipeline: checked.pipeline.name.clone(),
                cluster: cluster.clone(),
                topic: topic.clone(),
                topic_id,
                partition,
            };
            let committed = committed.iter().find(|committed| committed.partition == partition);
            let committed = committed.map(|c| (c.offset, Author::of(c.metadata.as_deref(), &id)));
            let start = start_of(checked, ledgers.as_ref(), &id, committed).await?;
            let start = start.map(|(start, why)| match start {
                From::Earliest => (extent.earliest, why),
                From::End => (extent.end, why),
                From::Offset(offset) => (offset.max(extent.earliest), why),
            });
            partitions.push(PlannedPartition { topic: topic.clone(), partition, start, end: extent.end });
        }
    }
    let quotas = quota_use(checked, &tables, partitions.len());
    Ok(Plan { tables, partitions, quotas })
}

fn quota_use(checked: &Checked, tables: &[PlannedTable], partitions: usize) -> Option<QuotaUse> {
    let bigquery = checked.pipeline.sink.bigquery.as_ref()?;
    let of_rows = tables.iter().filter(|table| !table.is_of_dead_letters);
    // A table for each topic and output, and each partition is of one topic.
    let outputs = of_rows.clone().count() / checked.pipeline.source.kafka.topics.len().max(1);
    let connections = partitions as u64 * outputs as u64;
    let age = checked.pipeline.sink.rotate().age.duration().as_millis().max(1);
    let streams_an_hour = match bigquery.mode {
        Mode::ExactlyOnce => u64::try_from(u128::from(connections) * 3_600_000 / age).unwrap_or(u64::MAX),
        Mode::AtLeastOnce | Mode::Cdc => 0,
    };
    Some(QuotaUse {
        streams_an_hour,
        most_streams_an_hour: u64::from(bigquery.max_streams_per_second) * 3_600,
        connections,
        of_each_table: of_rows.clone().any(|table| matches!(table.outcome, Ok(None))),
    })
}

/// Asks again what fails in passing, such as a group whose coordinator is being found.
async fn patiently<T>(ask: impl AsyncFn() -> gristmill::Result<T>) -> Result<T, Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() && Instant::now() < end => tokio::time::sleep(PAUSE).await,
            answer => return answer.map_err(Error::source),
        }
    }
}

enum From {
    Earliest,
    End,
    Offset(i64),
}

type Started = Result<(From, &'static str), String>;

/// As a start judges it.
async fn start_of(
    checked: &Checked,
    ledgers: Option<&SinkConfig>,
    id: &PartitionId,
    committed: Option<(i64, Author)>,
) -> Result<Started, Error> {
    let (mut span, mut recreated) = (None, false);
    if let Some(ledgers) = ledgers {
        let end = match gristmill_sinks::ledger_end(ledgers, id).await {
            Ok(end) => end,
            // A start would meet with it too.
            Err(error) if !error.is_retryable() => return Ok(Err(error.to_string())),
            Err(error) => return Err(Error::sink(error)),
        };
        span = end.as_ref().map(Span::of);
        let known = gristmill_sinks::known_topic_ids(ledgers, &id.topic).await.map_err(Error::sink)?;
        recreated = span.is_none_or(|s| s.start == s.next) && known.iter().any(|other| *other != id.topic_id);
    }
    let group = committed.as_ref().map(|(offset, _)| *offset);
    let verdict = judge(span, committed, recreated);
    if let Some(stop) = exits::refusal(Place::of(&checked.file, id), &verdict) {
        return Ok(Err(stop.to_string()));
    }
    Ok(Ok(match (span, verdict, group) {
        (Some(span), ..) => (From::Offset(span.next), "where its ledger ends"),
        (None, Verdict::StartAtBeginning, _) => {
            (From::Earliest, "the topic was created again; a new ledger starts at its beginning")
        }
        (None, _, Some(group)) => (From::Offset(group), "where the group is; a new ledger starts there"),
        (None, _, None) => match checked.pipeline.source.kafka.start {
            Start::Earliest => (From::Earliest, "the first record; a new ledger starts there"),
            Start::Latest => (From::End, "`start: latest`; a new ledger starts there"),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_a_quota_says_so() {
        let small = QuotaUse {
            streams_an_hour: 720,
            most_streams_an_hour: 144_000,
            connections: 12,
            of_each_table: false,
        };
        let text = small.to_string();
        assert!(text.starts_with("  720 new streams of BigQuery an hour"), "{text}");
        assert!(
            text.contains("\n  12 connections at once; a project has 1000 in a region")
                && !text.contains('~'),
            "{text}"
        );
        let large = QuotaUse {
            streams_an_hour: 150_000,
            most_streams_an_hour: 144_000,
            connections: 2_500,
            of_each_table: true,
        };
        let text = large.to_string();
        assert!(text.contains("or make `rotate.age` 15 times as long"), "{text}");
        assert!(text.contains("one process makes 144000 in an hour"), "{text}");
        assert!(text.contains("2500 connections at once, for each table that values name"), "{text}");
        assert!(text.contains("more than a region's"), "{text}");
        let default = QuotaUse { streams_an_hour: 0, ..small };
        assert!(default.to_string().starts_with("  12 connections at once"), "{default}");
    }
}
