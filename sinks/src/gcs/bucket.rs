//! What a bucket's settings mean for a ledger.

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::GcsStore;
use super::transport::{Class, Request};
use crate::error::Result;

/// The permissions that a sink uses: <https://cloud.google.com/storage/docs/access-control/iam-permissions>.
const PERMISSIONS: [&str; 4] =
    ["storage.objects.create", "storage.objects.get", "storage.objects.list", "storage.objects.delete"];

/// What [`GcsStore::report`] found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketReport {
    /// The bucket.
    pub bucket: String,
    /// Where it lies, such as `EU` or `europe-west3`; unknown without the permission `storage.buckets.get`.
    pub location: Option<String>,
    /// What is worth knowing.
    pub notes: Vec<BucketNote>,
}

impl BucketReport {
    /// Whether nothing stands in the way of a run.
    pub fn is_usable(&self) -> bool {
        !self.notes.iter().any(|n| n.is_problem)
    }

    fn note(&mut self, is_problem: bool, text: impl Into<String>) {
        self.notes.push(BucketNote { is_problem, text: text.into() });
    }
}

/// One thing that is worth knowing of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketNote {
    /// The pipeline would stop, or lose what it keeps; otherwise it costs, or is only odd.
    pub is_problem: bool,
    /// What it is, what it means, and what to do.
    pub text: String,
}

/// A bucket's resource: <https://cloud.google.com/storage/docs/json_api/v1/buckets>.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bucket {
    location: String,
    storage_class: String,
    soft_delete_policy: Option<SoftDelete>,
    retention_policy: Option<Retention>,
    lifecycle: Option<Lifecycle>,
    versioning: Option<Versioning>,
    default_event_based_hold: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SoftDelete {
    retention_duration_seconds: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Retention {
    retention_period: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lifecycle {
    rule: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    action: RuleAction,
    condition: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleAction {
    r#type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    matches_prefix: Vec<String>,
    matches_suffix: Vec<String>,
    is_live: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Versioning {
    enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Granted {
    permissions: Vec<String>,
}

impl GcsStore {
    /// Looks at the settings of the buckets, and at what the credentials may do. Nothing is written; `state`
    /// is the prefix of ledgers and staged files.
    ///
    /// # Errors
    /// `NotFound` if there is no such bucket, `PermissionDenied` if nothing at all may be asked, `Unavailable`.
    pub async fn report(&self, state: &str) -> Result<Vec<BucketReport>> {
        let settings = &self.inner.config.0;
        let mut reports = vec![self.report_on(&settings.bucket, state, settings.staging.is_none()).await?];
        if let Some((bucket, prefix)) = &settings.staging {
            reports.push(self.report_on(bucket, prefix, true).await?);
            let (main, staging) = (reports[0].location.clone(), reports[1].location.clone());
            if let (Some(main), Some(staging)) = (main, staging)
                && main != staging
            {
                let text = format!(
                    "it lies in {staging} and {} in {main}: every file is copied between locations at publishing, \
                     which takes time and is billed as transfer; use a staging bucket in {main}",
                    settings.bucket
                );
                reports[1].note(false, text);
            }
        }
        Ok(reports)
    }

    async fn report_on(&self, name: &str, state: &str, is_staging: bool) -> Result<BucketReport> {
        let inner = &self.inner;
        let url = format!("{}/storage/v1/b/{name}", inner.config.0.endpoint);
        let mut report = BucketReport { bucket: name.to_owned(), ..BucketReport::default() };
        let answer = inner.transport.send(&Request::new(Method::GET, url.clone(), Class::B)).await?;
        match answer.status {
            StatusCode::OK => {
                let bucket: Bucket = answer.json()?;
                judge(&bucket, state, is_staging, &mut report);
                report.location = Some(bucket.location);
            }
            StatusCode::FORBIDDEN => report.note(
                false,
                "its settings may not be read (storage.buckets.get): soft delete, retention and lifecycle are not checked",
            ),
            _ => return Err(answer.error(&format!("cannot look at the bucket {name}"))),
        }
        let mut request = Request::new(Method::GET, format!("{url}/iam/testPermissions"), Class::B);
        for permission in PERMISSIONS {
            request = request.query("permissions", permission.into());
        }
        let answer = inner.transport.send(&request).await?;
        if answer.status != StatusCode::OK {
            // Emulators do not have it.
            report
                .note(false, format!("what the credentials may do is not told ({})", answer.status.as_u16()));
            return Ok(report);
        }
        let granted: Granted = answer.json()?;
        let missing: Vec<_> =
            PERMISSIONS.into_iter().filter(|p| !granted.permissions.iter().any(|g| g == p)).collect();
        if !missing.is_empty() {
            let text = format!(
                "the credentials lack {}; grant the role Storage Object User on the bucket",
                missing.join(", ")
            );
            report.note(true, text);
        }
        Ok(report)
    }
}

fn judge(bucket: &Bucket, state: &str, is_staging: bool, report: &mut BucketReport) {
    let seconds = |text: &str| text.parse::<u64>().unwrap_or_default();
    let state = if state.ends_with('/') { state.to_owned() } else { format!("{state}/") };
    if let Some(policy) = &bucket.retention_policy
        && seconds(&policy.retention_period) > 0
        && is_staging
    {
        report.note(
            true,
            format!(
                "its retention policy forbids to delete or move objects for {} s, and publishing moves every file; \
                 stage in a bucket without one (`staging_bucket`)",
                policy.retention_period
            ),
        );
    }
    if bucket.default_event_based_hold && is_staging {
        report.note(true, "new objects are held (default event-based hold), and publishing moves every file");
    }
    if let Some(policy) = &bucket.soft_delete_policy
        && seconds(&policy.retention_duration_seconds) > 0
        && is_staging
    {
        report.note(
            false,
            format!(
                "soft delete keeps deleted objects for {} days and bills them: orphans of crashes, and with a staging \
                 bucket every file a second time (a move inside a bucket is not affected)",
                seconds(&policy.retention_duration_seconds) / 86_400
            ),
        );
    }
    if bucket.versioning.as_ref().is_some_and(|v| v.enabled) {
        report.note(false, "object versioning keeps what is deleted as noncurrent objects, which are billed");
    }
    for rule in bucket.lifecycle.iter().flat_map(|l| &l.rule) {
        let touches = |suffix: &str| {
            let c = &rule.condition;
            let prefixes = &c.matches_prefix;
            let prefix = prefixes.is_empty()
                || prefixes.iter().any(|p| p.starts_with(state.as_str()) || state.starts_with(p.as_str()));
            let suffixes = &c.matches_suffix;
            prefix && (suffixes.is_empty() || suffixes.iter().any(|s| suffix.ends_with(s.as_str())))
        };
        // A rule for noncurrent objects alone does not touch what is there.
        if rule.condition.is_live == Some(false) || !(touches(".json") || touches("")) {
            continue;
        }
        match rule.action.r#type.as_str() {
            "Delete" => report.note(
                true,
                format!(
                    "a lifecycle rule deletes objects under {state}: with an entry of the ledger gone, the pipeline \
                     would start over and double rows; give the rule a `matchesPrefix` that leaves {state} out"
                ),
            ),
            "AbortIncompleteMultipartUpload" => {}
            action => report.note(
                false,
                format!(
                    "a lifecycle rule ({action}) moves objects under {state} to a colder class, where reading costs; \
                     leave {state} out of it"
                ),
            ),
        }
    }
    if matches!(bucket.storage_class.as_str(), "NEARLINE" | "COLDLINE" | "ARCHIVE") {
        report.note(
            false,
            format!(
                "its storage class is {}: ledger entries are read at every start, and what is deleted early is \
                 billed to the end of its minimum time; Standard suits a sink",
                bucket.storage_class
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(bucket: serde_json::Value) -> Vec<BucketNote> {
        let mut report = BucketReport::default();
        judge(&serde_json::from_value(bucket).unwrap(), "lake/_gristmill", true, &mut report);
        report.notes
    }

    #[test]
    fn a_plain_bucket_has_nothing_to_note() {
        assert_eq!(notes(serde_json::json!({"location": "EU", "storageClass": "STANDARD"})), []);
    }

    #[test]
    fn what_would_break_a_ledger_is_a_problem() {
        let found = notes(serde_json::json!({
            "storageClass": "COLDLINE",
            "softDeletePolicy": {"retentionDurationSeconds": "604800"},
            "retentionPolicy": {"retentionPeriod": "3600"},
            "versioning": {"enabled": true},
            "lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 30}}]},
        }));
        let problems: Vec<_> = found.iter().filter(|n| n.is_problem).map(|n| n.text.as_str()).collect();
        assert_eq!(problems.len(), 2, "{found:#?}");
        assert!(problems[0].contains("3600 s") && problems[1].contains("lifecycle"), "{problems:?}");
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found.iter().any(|n| n.text.contains("7 days")), "{found:#?}");
    }

    #[test]
    fn a_lifecycle_rule_that_leaves_the_state_alone_is_none_of_our_business() {
        let rule = |condition: serde_json::Value| {
            notes(
                serde_json::json!({"lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": condition}]}}),
            )
        };
        assert_eq!(rule(serde_json::json!({"age": 1, "matchesPrefix": ["lake/orders/"]})), []);
        assert_eq!(rule(serde_json::json!({"age": 1, "matchesSuffix": [".parquet"]})), []);
        assert_eq!(rule(serde_json::json!({"isLive": false, "numNewerVersions": 1})), []);
        assert_eq!(rule(serde_json::json!({"age": 1, "matchesPrefix": ["lake/"]})).len(), 1);
        assert_eq!(rule(serde_json::json!({"age": 1, "matchesPrefix": ["lake/_gristmill/staged"]})).len(), 1);
    }
}
