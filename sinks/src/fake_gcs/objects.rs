//! Buckets and objects: what is stored, and the rules under which it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::copies::Rewrite;
use super::reply::Refusal;
use super::tokens::Tokens;
use super::uploads::Uploads;

/// Everything that the fake knows; behind one lock, so each request happens at one moment.
#[derive(Debug)]
pub(super) struct State {
    pub(super) buckets: BTreeMap<String, Bucket>,
    pub(super) uploads: Uploads,
    pub(super) rewrites: BTreeMap<u64, Rewrite>,
    pub(super) tokens: Tokens,
    pub(super) rules: Rules,
    last_generation: i64,
    /// Bytes of objects and of unfinished uploads.
    used: u64,
}

/// What tests set.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) max_bytes: u64,
    pub(super) max_page: usize,
    pub(super) max_bytes_per_rewrite: u64,
    pub(super) serves_move: bool,
    pub(super) honours_rewrite_preconditions: bool,
    pub(super) destination_first: bool,
    pub(super) refuses_uploads_early: bool,
    pub(super) permissions: Option<BTreeSet<String>>,
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) metadata: Value,
    pub(super) objects: BTreeMap<String, Stored>,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    pub(super) generation: i64,
    pub(super) crc32c: u32,
    pub(super) created: Timestamp,
    pub(super) draft: Draft,
}

/// What an uploader says of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) content_type: Option<String>,
    pub(super) crc32c: Option<u32>,
    pub(super) storage_class: Option<String>,
    pub(super) metadata: Map<String, Value>,
}

/// Where an object lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) name: String,
}

impl State {
    pub(super) fn new() -> State {
        State {
            buckets: BTreeMap::new(),
            uploads: Uploads::default(),
            rewrites: BTreeMap::new(),
            tokens: Tokens::default(),
            rules: Rules {
                max_bytes: 2 << 30,
                max_page: 1000,
                max_bytes_per_rewrite: u64::MAX,
                serves_move: true,
                honours_rewrite_preconditions: true,
                destination_first: false,
                refuses_uploads_early: false,
                permissions: None,
            },
            last_generation: 0,
            used: 0,
        }
    }

    pub(super) fn bucket(&self, name: &str) -> Result<&Bucket, Refusal> {
        self.buckets.get(name).ok_or_else(no_bucket)
    }

    pub(super) fn bucket_mut(&mut self, name: &str) -> Result<&mut Bucket, Refusal> {
        self.buckets.get_mut(name).ok_or_else(no_bucket)
    }

    /// The live object, of that generation if one is asked for.
    pub(super) fn object(&self, place: &Place, generation: Option<i64>) -> Result<&Stored, Refusal> {
        let found = self.bucket(&place.bucket)?.objects.get(&place.name);
        found
            .filter(|o| generation.is_none_or(|wanted| wanted == o.generation))
            .ok_or_else(|| Refusal::not_found(format!("No such object: {}/{}", place.bucket, place.name)))
    }

    /// Fails unless the live object of this name, or that there is none, is what was expected.
    pub(super) fn expect(&self, place: &Place, expected: Option<i64>) -> Result<(), Refusal> {
        let live = self.bucket(&place.bucket)?.objects.get(&place.name).map_or(0, |o| o.generation);
        match expected {
            Some(generation) if generation != live => Err(Refusal::precondition()),
            _ => Ok(()),
        }
    }

    /// Accounts for `bytes` more.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), Refusal> {
        if self.used + bytes > self.rules.max_bytes {
            let message =
                format!("this fake is full: it holds {} of {} bytes", self.used, self.rules.max_bytes);
            return Err(Refusal::new(507, "insufficientStorage", message));
        }
        self.used += bytes;
        Ok(())
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.used -= bytes;
    }

    /// Creates or replaces an object whose bytes are accounted for already; they stay so if this fails.
    pub(super) fn put(
        &mut self,
        place: &Place,
        draft: Draft,
        bytes: Bytes,
        expected: Option<i64>,
    ) -> Result<Value, Refusal> {
        valid_name(&place.name)?;
        self.expect(place, expected)?;
        let crc32c = crc32c::crc32c(&bytes);
        check_crc32c(draft.crc32c, crc32c)?;
        self.may_go(place)?;
        self.install(place, draft, bytes, crc32c)
    }

    /// Puts a new generation under a name, after all checks.
    pub(super) fn install(
        &mut self,
        place: &Place,
        draft: Draft,
        bytes: Bytes,
        crc32c: u32,
    ) -> Result<Value, Refusal> {
        let generation = self.next_generation();
        let stored = Stored { bytes, generation, crc32c, created: Timestamp::now(), draft };
        let replaced = self.bucket_mut(&place.bucket)?.objects.insert(place.name.clone(), stored);
        self.release(replaced.map_or(0, |o| o.bytes.len() as u64));
        self.resource(place)
    }

    /// Deletes an object.
    pub(super) fn remove(
        &mut self,
        place: &Place,
        generation: Option<i64>,
        expected: Option<i64>,
    ) -> Result<(), Refusal> {
        self.object(place, generation)?;
        self.expect(place, expected)?;
        self.may_go(place)?;
        let removed = self.bucket_mut(&place.bucket)?.objects.remove(&place.name);
        self.release(removed.map_or(0, |o| o.bytes.len() as u64));
        Ok(())
    }

    /// Fails if there is an object of this name that the bucket's retention policy keeps.
    pub(super) fn may_go(&self, place: &Place) -> Result<(), Refusal> {
        let bucket = self.bucket(&place.bucket)?;
        match bucket.objects.get(&place.name).and_then(|o| bucket.retained_until(o)) {
            Some(until) if until > Timestamp::now() => {
                let message = format!(
                    "Object '{}/{}' is subject to bucket's retention policy or object retention and \
                     cannot be deleted or overwritten until {}",
                    place.bucket,
                    place.name,
                    rfc3339(until)
                );
                Err(Refusal::new(403, "retentionPolicyNotMet", message))
            }
            _ => Ok(()),
        }
    }

    /// An object's metadata.
    pub(super) fn resource(&self, place: &Place) -> Result<Value, Refusal> {
        let object = self.object(place, None)?;
        Ok(self.bucket(&place.bucket)?.resource(place, object))
    }

    /// One page: names that begin with `prefix`, from `start` on, and whether there are more.
    pub(super) fn page(
        &self,
        bucket: &str,
        prefix: &str,
        start: Bound<&str>,
        limit: usize,
    ) -> Result<(Vec<Value>, Option<String>), Refusal> {
        let found = self.bucket(bucket)?;
        let from = match start {
            Bound::Included(name) | Bound::Excluded(name) if name >= prefix => start,
            _ => Bound::Included(prefix),
        };
        let mut names = found
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .peekable();
        let mut items = Vec::new();
        let mut last = None;
        while items.len() < limit {
            let Some((name, object)) = names.next() else { break };
            let place = Place { bucket: bucket.to_owned(), name: name.clone() };
            items.push(found.resource(&place, object));
            last = Some(name.clone());
        }
        Ok((items, last.filter(|_| names.peek().is_some())))
    }

    /// Microseconds, but always greater than the one before.
    fn next_generation(&mut self) -> i64 {
        self.last_generation = Timestamp::now().as_microsecond().max(self.last_generation + 1);
        self.last_generation
    }
}

impl Bucket {
    pub(super) fn new(name: &str) -> Bucket {
        let now = rfc3339(Timestamp::now());
        let metadata = json!({
            "kind": "storage#bucket",
            "id": name,
            "name": name,
            "projectNumber": "123456789012",
            "generation": "1",
            "metageneration": "1",
            "location": "US-CENTRAL1",
            "locationType": "region",
            "storageClass": "STANDARD",
            "timeCreated": now,
            "updated": now,
            "etag": "CAE=",
            "iamConfiguration": {
                "uniformBucketLevelAccess": {"enabled": true},
                "publicAccessPrevention": "enforced",
            },
            "softDeletePolicy": {"retentionDurationSeconds": "604800", "effectiveTime": now},
        });
        Bucket { metadata, objects: BTreeMap::new() }
    }

    fn retained_until(&self, object: &Stored) -> Option<Timestamp> {
        let period = &self.metadata["retentionPolicy"]["retentionPeriod"];
        let seconds = period.as_u64().or_else(|| period.as_str()?.parse().ok()).filter(|s| *s > 0)?;
        Some(object.created.checked_add(Duration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
    }

    fn resource(&self, place: &Place, object: &Stored) -> Value {
        let Place { bucket, name } = place;
        let Stored { generation, draft, .. } = object;
        let created = rfc3339(object.created);
        let class = draft.storage_class.as_deref().or(self.metadata["storageClass"].as_str());
        let mut resource = json!({
            "kind": "storage#object",
            "id": format!("{bucket}/{name}/{generation}"),
            "name": name,
            "bucket": bucket,
            "generation": generation.to_string(),
            "metageneration": "1",
            "storageClass": class,
            "size": object.bytes.len().to_string(),
            "crc32c": encode_crc32c(object.crc32c),
            "etag": BASE64.encode(generation.to_be_bytes()),
            "timeCreated": created,
            "updated": created,
            "timeStorageClassUpdated": created,
        });
        if let Some(content_type) = &draft.content_type {
            resource["contentType"] = content_type.clone().into();
        }
        if !draft.metadata.is_empty() {
            resource["metadata"] = draft.metadata.clone().into();
        }
        if let Some(until) = self.retained_until(object) {
            resource["retentionExpirationTime"] = rfc3339(until).into();
        }
        resource
    }
}

impl Draft {
    /// Reads an object resource that a client sent.
    pub(super) fn read(resource: &Value) -> Result<Draft, Refusal> {
        let text = |key: &str| resource[key].as_str().map(str::to_owned);
        if !resource["md5Hash"].is_null() {
            return Err(Refusal::invalid("this fake does not check md5Hash; send crc32c"));
        }
        let metadata = match &resource["metadata"] {
            Value::Null => Map::new(),
            Value::Object(map) if map.values().all(Value::is_string) => map.clone(),
            _ => return Err(Refusal::invalid("Invalid value for: metadata, a map of strings is expected")),
        };
        Ok(Draft {
            content_type: text("contentType"),
            crc32c: text("crc32c").map(|sum| decode_crc32c(&sum)).transpose()?,
            storage_class: text("storageClass"),
            metadata,
        })
    }
}

/// Base64 of the checksum in big-endian order.
pub(super) fn encode_crc32c(sum: u32) -> String {
    BASE64.encode(sum.to_be_bytes())
}

pub(super) fn decode_crc32c(text: &str) -> Result<u32, Refusal> {
    let bytes = BASE64.decode(text).ok().and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    bytes.map(u32::from_be_bytes).ok_or_else(|| Refusal::invalid(format!("Invalid CRC32C: {text}")))
}

pub(super) fn check_crc32c(claimed: Option<u32>, computed: u32) -> Result<(), Refusal> {
    match claimed {
        Some(claimed) if claimed != computed => Err(Refusal::invalid(format!(
            "Provided CRC32C \"{}\" doesn't match calculated CRC32C \"{}\".",
            encode_crc32c(claimed),
            encode_crc32c(computed)
        ))),
        _ => Ok(()),
    }
}

pub(super) fn valid_name(name: &str) -> Result<(), Refusal> {
    let bad = name.is_empty()
        || name.len() > 1024
        || matches!(name, "." | "..")
        || name.contains(['\r', '\n'])
        || name.starts_with(".well-known/acme-challenge/");
    if bad { Err(Refusal::invalid(format!("Invalid object name: {name:?}"))) } else { Ok(()) }
}

fn no_bucket() -> Refusal {
    Refusal::not_found("The specified bucket does not exist.")
}

/// As Google writes times: in UTC with milliseconds.
pub(super) fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
