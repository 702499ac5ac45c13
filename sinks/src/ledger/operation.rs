//! What operators did to ledgers: objects beside them that are written before and after, and never changed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entry::{FORMAT_VERSION, check_version, corrupt, to_json};
use crate::config::SinkConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::names::join;
use crate::store::Create;

/// Objects that one listing asks for.
const PAGE: usize = 1000;

/// Something that an operator is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Operation {
    format_version: u32,
    /// Tells it from all others.
    pub id: Uuid,
    /// When, RFC 3339 in UTC, by the operator's clock.
    pub at: String,
    /// Who, as `user@host`.
    pub by: String,
    /// What: `skip`, `reset`, `repair`.
    pub kind: String,
    /// The command line.
    pub command: String,
    /// Why, in the operator's words; may be empty.
    #[serde(default)]
    pub reason: String,
    /// What is to be changed, a sentence each.
    #[serde(default)]
    pub plan: Vec<String>,
}

/// How an [`Operation`] ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    format_version: u32,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// What was changed, a sentence each.
    #[serde(default)]
    pub changes: Vec<String>,
    /// Why it did not come to its end; `None` if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An operation as the trail has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoggedOperation {
    /// What was about to be done.
    pub operation: Operation,
    /// How it ended; `None` if it is going on, or its process died, or its outcome could not be written.
    pub outcome: Option<Outcome>,
}

impl Operation {
    /// An operation that begins now.
    pub fn new(kind: &str, by: &str, command: &str, reason: &str, plan: Vec<String>) -> Self {
        Operation {
            format_version: FORMAT_VERSION,
            id: Uuid::new_v4(),
            at: now(),
            by: by.to_owned(),
            kind: kind.to_owned(),
            command: command.to_owned(),
            reason: reason.to_owned(),
            plan,
        }
    }

    /// Writes it down. **To be called before anything is changed.**
    ///
    /// # Errors
    /// Those of the state store: then nothing may be done.
    pub async fn begin(&self, config: &SinkConfig) -> Result<()> {
        create(config, &self.name("json"), to_json(self)?).await
    }

    /// Writes down how it ended.
    ///
    /// # Errors
    /// Those of the state store.
    pub async fn end(&self, config: &SinkConfig, changes: Vec<String>, error: Option<String>) -> Result<()> {
        let outcome = Outcome { format_version: FORMAT_VERSION, at: now(), changes, error };
        create(config, &self.name("outcome.json"), to_json(&outcome)?).await
    }

    /// `{utc timestamp}-{id}.{extension}`, so that a listing is in order of time.
    fn name(&self, extension: &str) -> String {
        let digits: String = self.at.chars().filter(|c| c.is_ascii_alphanumeric()).take(18).collect();
        format!("{digits}Z-{}.{extension}", self.id)
    }
}

/// To the millisecond, always as long.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

async fn create(config: &SinkConfig, name: &str, bytes: Vec<u8>) -> Result<()> {
    let (state, prefix) = config.state();
    let name = join(prefix, &format!("operations/{name}"));
    match state.create_if_absent(&name, bytes.clone().into()).await {
        Ok(Create::Created(_)) => Ok(()),
        // The name is ours alone.
        Ok(Create::Exists) => Ok(()),
        Err(e) if e.kind() == ErrorKind::OutcomeUnknown => match state.get(&name).await? {
            Some(found) if found.bytes == bytes => Ok(()),
            _ => Err(e),
        },
        Err(e) => Err(e),
    }
}

/// Everything that operators did to the ledgers of a sink, in order of time.
///
/// # Errors
/// Those of the state store; `Corrupt` and `UnsupportedVersion` for an object that cannot be read.
pub async fn operations(config: &SinkConfig) -> Result<Vec<LoggedOperation>> {
    let (state, prefix) = config.state();
    let folder = join(prefix, "operations/");
    let mut found: Vec<LoggedOperation> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = state.list(&folder, after.as_deref(), PAGE).await?;
        for listed in &page {
            let name = &listed.name;
            let Some(object) = state.get(name).await? else { continue };
            check_version(name, &object.bytes, None)?;
            let unreadable = |what, e: serde_json::Error| -> Error { corrupt(name, what).with_source(e) };
            // The outcome sorts right behind its operation.
            if name.ends_with(".outcome.json") {
                let outcome =
                    serde_json::from_slice(&object.bytes).map_err(|e| unreadable("an outcome", e))?;
                if let Some(last) = found.last_mut().filter(|l| name.contains(&l.operation.id.to_string())) {
                    last.outcome = Some(outcome);
                }
            } else {
                let operation =
                    serde_json::from_slice(&object.bytes).map_err(|e| unreadable("an operation", e))?;
                found.push(LoggedOperation { operation, outcome: None });
            }
        }
        match page.last() {
            Some(last) if page.len() >= PAGE => after = Some(last.name.clone()),
            _ => return Ok(found),
        }
    }
}
