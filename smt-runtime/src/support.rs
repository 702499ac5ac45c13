/// The major version of wasmtime that this crate is built on; its line for long-term support.
const WASMTIME: u32 = 48;

/// Until when the engine below gets security fixes, and what contract it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    /// Package and version of the contract between host and guest: components that were built against it load.
    pub contract: String,
    /// wasmtime's major version.
    pub wasmtime: u32,
    /// The last day, `YYYY-MM-DD`, of fixes for it: wasmtime's releases are monthly, on the 20th, and every twelfth is
    /// supported for 24 months, the others for two ([its release process]).
    ///
    /// [its release process]: https://docs.wasmtime.dev/stability-release.html
    pub wasmtime_supported_until: String,
}

/// What this build runs transforms with.
pub fn support() -> Support {
    // Version 20 came out in April 2024.
    let months = 2024 * 12 + 3 + (WASMTIME - 20) + if WASMTIME.is_multiple_of(12) { 24 } else { 2 };
    Support {
        contract: format!("{}@{}", crate::contract::PACKAGE, crate::contract::VERSION),
        wasmtime: WASMTIME,
        wasmtime_supported_until: format!("{}-{:02}-20", months / 12, months % 12 + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_the_version_that_is_built_in() {
        let lock = include_str!("../../Cargo.lock");
        let after = lock.split("name = \"wasmtime\"\nversion = \"").nth(1).expect("wasmtime is locked");
        assert!(after.starts_with(&format!("{WASMTIME}.")), "{}", &after[..10]);
        assert_eq!(support().wasmtime_supported_until, "2028-08-20");
    }
}
