//! Moves inside a bucket, and copies that take several calls.

use serde_json::{Value, json};

use super::objects::{Draft, Place, State, valid_name};
use super::reply::Refusal;

/// Copies that were begun and not finished; the oldest is forgotten.
const MAX_REWRITES: usize = 1000;

/// A copy in progress.
#[derive(Debug)]
pub(super) struct Rewrite {
    source: Place,
    /// A copy is of one generation, whatever becomes of the name meanwhile.
    generation: i64,
    to: Place,
    done: u64,
}

/// Generations that a request expects to find.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    pub(super) source: Option<i64>,
    pub(super) destination: Option<i64>,
}

impl State {
    /// Renames an object, all or nothing.
    pub(super) fn rename(&mut self, from: &Place, to: &Place, expected: Expected) -> Result<Value, Refusal> {
        valid_name(&to.name)?;
        if from == to {
            return Err(Refusal::invalid("The source and destination object names must be different."));
        }
        if self.rules.destination_first {
            self.expect(to, expected.destination)?;
        }
        let moved = self.object(from, None)?.clone();
        self.expect(from, expected.source)?;
        self.expect(to, expected.destination)?;
        self.may_go(from)?;
        self.may_go(to)?;
        self.bucket_mut(&from.bucket)?.objects.remove(&from.name);
        self.install(to, moved.draft, moved.bytes, moved.crc32c)
    }

    /// Goes on with a copy, or begins one.
    pub(super) fn rewrite(
        &mut self,
        source: &Place,
        to: &Place,
        resource: &Value,
        expected: Expected,
        token: Option<&str>,
    ) -> Result<Value, Refusal> {
        valid_name(&to.name)?;
        self.bucket(&to.bucket)?;
        let (generation, done) = match token {
            None => (self.object(source, None)?.generation, 0),
            Some(token) => {
                let bad = || Refusal::invalid("Invalid rewrite token.");
                let id: u64 = token.parse().map_err(|_| bad())?;
                let begun = self.rewrites.remove(&id).ok_or_else(bad)?;
                if begun.source != *source || begun.to != *to {
                    return Err(bad());
                }
                (begun.generation, begun.done)
            }
        };
        if self.rules.honours_rewrite_preconditions {
            if self.rules.destination_first {
                self.expect(to, expected.destination)?;
            }
            self.expect(source, expected.source)?;
            self.expect(to, expected.destination)?;
        }
        let object = self.object(source, Some(generation))?.clone();
        let size = object.bytes.len() as u64;
        let done = done.saturating_add(self.rules.max_bytes_per_rewrite).min(size);
        let mut answer = json!({
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": done.to_string(),
            "objectSize": size.to_string(),
            "done": done == size,
        });
        if done < size {
            let id = self.rewrites.last_key_value().map_or(1, |(id, _)| id + 1);
            self.rewrites.insert(id, Rewrite { source: source.clone(), generation, to: to.clone(), done });
            if self.rewrites.len() > MAX_REWRITES {
                self.rewrites.pop_first();
            }
            answer["rewriteToken"] = id.to_string().into();
            return Ok(answer);
        }
        // Metadata of the request stand in the place of the source's, all of them.
        let draft = match resource.as_object() {
            Some(map) if !map.is_empty() => Draft::read(resource)?,
            _ => Draft { crc32c: None, ..object.draft },
        };
        self.reserve(size)?;
        let put = self.put(to, draft, object.bytes, None).inspect_err(|_| self.release(size));
        answer["resource"] = put?;
        Ok(answer)
    }
}
