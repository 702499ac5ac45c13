//! Builds guests.
use std::path::PathBuf;

/// `$XDG_CACHE_HOME/gristmill`, or `~/.cache/gristmill`.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("gristmill"))
}
