//! Contracts and components of releases: what was built against one loads and answers as it did.
//!
//! A release's contract is `wit/released/{version}.wit`, its components are in `tests/released/{version}`: one of each world, with
//! their fixtures beside them. None of these files is ever changed; what is here is added to.

use std::fs;
use std::path::Path;

use gristmill_smt::fixtures::{FixtureOptions, run_fixtures};
use gristmill_smt::{Limits, support};
use sha2::{Digest, Sha256};

use crate::support::{repository, runtime};

/// Version, and SHA-256 of what was released: the contract, then the components by name.
type Release = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const RELEASED: [Release; 1] = [(
    "0.1.0",
    "68a8c03f2126a32907bef372e18bb05b5f765bb95ab3ce553bacb2b9baacbf72",
    &[
        ("bare", "9341215e172761606ebf81c4f8256aecfac5e711fc123a8054f7d2962e9de2b2"),
        ("orders", "b4d580aa0e5461ae695a0387db5df48824fcd428487733817ce354cf6d972e77"),
        ("typed-orders", "cf596b34d2c479e6d1cbf8979125f6f8e07857adc12f58d2ff51770cc9fcc83f"),
    ],
)];

fn digest(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_contract_has_another_version_than_those_that_were_released_or_is_the_same() {
    let contract = fs::read_to_string(repository().join("wit/transform.wit")).unwrap();
    let first = contract.lines().next().unwrap_or_default();
    let version = first.strip_prefix("package gristmill:transform@").and_then(|rest| rest.strip_suffix(';'));
    let version = version.unwrap_or_else(|| panic!("the contract begins with its package, not with {first}"));
    assert_eq!(support().contract, format!("gristmill:transform@{version}"));
    let released = fs::read_to_string(repository().join(format!("wit/released/{version}.wit")));
    let released = released.unwrap_or_else(|_| {
        panic!("copy wit/transform.wit to wit/released/{version}.wit, and add components of it to tests/released/{version}")
    });
    assert!(
        contract == released,
        "wit/transform.wit was changed, and {version} was released as it stands in wit/released: give it another version"
    );
}

#[test]
fn what_was_released_is_never_changed() {
    let mut versions: Vec<String> = fs::read_dir(repository().join("wit/released"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".wit").to_owned())
        .collect();
    versions.sort();
    assert_eq!(versions, RELEASED.map(|(version, ..)| version.to_owned()));
    for (version, contract, components) in RELEASED {
        assert_eq!(digest(&repository().join(format!("wit/released/{version}.wit"))), contract, "{version}");
        for (name, wanted) in components {
            let path = repository().join(format!("smt-runtime/tests/released/{version}/{name}.wasm"));
            assert_eq!(digest(&path), *wanted, "{}", path.display());
        }
    }
}

#[test]
fn components_of_releases_load_and_answer_as_they_did() {
    for (version, _, components) in RELEASED {
        let folder = repository().join("smt-runtime/tests/released").join(version);
        for (name, _) in components {
            let path = folder.join(format!("{name}.wasm"));
            let transform = runtime().load_file(&path, Limits::default()).unwrap_or_else(|e| panic!("{e}"));
            let results = run_fixtures(&transform, folder.join(name), &FixtureOptions::default()).unwrap();
            assert!(!results.is_empty(), "{version} {name}");
            for result in results {
                assert!(result.is_ok(), "{version}: {result}");
            }
        }
    }
}
