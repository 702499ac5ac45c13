//! Secrets by reference: `${env:NAME}` and `${file:PATH}` in values of a pipeline file.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// The largest secret file that is read, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Text that may hold a secret or references to secrets. Its `Debug` shows neither.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Reference(String);

impl Reference {
    /// The text with every `${env:NAME}` and `${file:PATH}` replaced; paths are relative to `base`.
    ///
    /// # Errors
    /// A sentence that names the variable or file that is not there; never a secret.
    pub fn resolve(&self, base: &Path) -> Result<String, String> {
        resolve(&self.0, base)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The configuration of a transform with its references replaced: texts that hold `${env:` or `${file:`. Any other `${` is the
/// transform's own.
///
/// # Errors
/// As for [`Reference::resolve`].
pub(crate) fn resolve_in(value: &Value, base: &Path) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) if text.contains("${env:") || text.contains("${file:") => {
            Value::String(resolve(text, base)?)
        }
        Value::Array(items) => items.iter().map(|item| resolve_in(item, base)).collect::<Result<_, _>>()?,
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| Ok((name.clone(), resolve_in(value, base)?));
            Value::Object(fields.iter().map(field).collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}

/// Replaces every reference in `text`. A file's trailing line break does not belong to the secret.
fn resolve(text: &str, base: &Path) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let body = &rest[start + 2..];
        let end = body.find('}').ok_or("`${` without `}`")?;
        let reference = &body[..end];
        match reference.split_once(':') {
            Some(("env", name)) => out.push_str(
                &std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?,
            ),
            Some(("file", path)) => {
                let path = base.join(path);
                let size = std::fs::metadata(&path)
                    .map_err(|e| format!("the file {} cannot be read: {e}", path.display()))?
                    .len();
                if size > MAX_SECRET {
                    return Err(format!(
                        "the file {} has {size} bytes, too many for a secret",
                        path.display()
                    ));
                }
                let secret = std::fs::read_to_string(&path)
                    .map_err(|e| format!("the file {} cannot be read: {e}", path.display()))?;
                out.push_str(secret.trim_end_matches(['\n', '\r']));
            }
            _ => return Err(format!("`${{{reference}}}` is neither `${{env:NAME}}` nor `${{file:PATH}}`")),
        }
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reference_gives_the_content_without_its_line_break() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), "hunter2\n").unwrap();
        assert_eq!(resolve("${file:password}", dir.path()).unwrap(), "hunter2");
        assert_eq!(resolve("a ${file:password} b", dir.path()).unwrap(), "a hunter2 b");
    }

    #[test]
    fn references_are_replaced_at_any_depth_of_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("salt"), "hunter2\n").unwrap();
        let config = serde_json::json!({"n": 1, "in": [{"salt": "${file:salt}"}], "template": "${name}"});
        let wanted = serde_json::json!({"n": 1, "in": [{"salt": "hunter2"}], "template": "${name}"});
        assert_eq!(resolve_in(&config, dir.path()).unwrap(), wanted);
        let config = serde_json::json!({"salt": "${env:GRISTMILL_NO_SUCH}"});
        let error = resolve_in(&config, dir.path()).unwrap_err();
        assert_eq!(error, "the environment variable GRISTMILL_NO_SUCH is not set");
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let error = |text| resolve(text, Path::new("/nowhere")).unwrap_err();
        assert_eq!(
            error("${env:GRISTMILL_NO_SUCH}"),
            "the environment variable GRISTMILL_NO_SUCH is not set"
        );
        assert_eq!(error("${vault:x}"), "`${vault:x}` is neither `${env:NAME}` nor `${file:PATH}`");
        assert_eq!(error("${env:X"), "`${` without `}`");
        assert!(error("${file:x}").starts_with("the file /nowhere/x cannot be read"));
    }
}
