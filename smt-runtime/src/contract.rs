//! The contract of `wit/transform.wit` as generated code, and the check that a component asks for nothing else.

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Error;

#[allow(clippy::undocumented_unsafe_blocks, reason = "generated")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "record-transform",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

pub(crate) use generated::gristmill::transform::{log, metrics, schemas, types};
pub(crate) use generated::{Configuration, Manifest, RecordBatch, RecordTransform, RecordTransformPre};

/// Package and version of the contract.
pub(crate) const PACKAGE: &str = "gristmill:transform";
pub(crate) const VERSION: &str = "0.1.0";
const OFFERED: [&str; 4] = ["types", "log", "metrics", "schemas"];
const EXPORTED: [&str; 3] = ["describe", "configure", "apply"];

/// Refuses a component that imports anything but what is offered, names what it is, and refuses one that
/// was built against another version of the contract.
pub(crate) fn check(engine: &Engine, component: &Component) -> Result<(), Error> {
    let ty = component.component_type();
    for (name, _) in ty.imports(engine) {
        let (path, version) = name.split_once('@').map_or((name, None), |(p, v)| (p, Some(v)));
        let ours = path.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('/'));
        match (ours, version) {
            (Some(_), Some(version)) if version != VERSION => {
                return Err(Error::load(format!(
                    "the component was built against {PACKAGE}@{version}, this runtime speaks \
                     {PACKAGE}@{VERSION}: build it with the SDK of this release"
                )));
            }
            (Some(interface), Some(_)) if OFFERED.contains(&interface) => {}
            _ => {
                return Err(Error::load(format!(
                    "the component imports `{name}`, which is not offered to transforms: they get {}, and no \
                     WASI, clock, randomness, file or network",
                    offered()
                )));
            }
        }
    }
    for wanted in EXPORTED {
        if !ty.exports(engine).any(|(name, _)| name == wanted) {
            return Err(Error::load(format!(
                "the component does not export `{wanted}`: it is not a {PACKAGE}@{VERSION} record-transform"
            )));
        }
    }
    Ok(())
}

fn offered() -> String {
    let names: Vec<_> = OFFERED.iter().map(|n| format!("{PACKAGE}/{n}@{VERSION}")).collect();
    names.join(", ")
}
