//! The contract of `wit/transform.wit` as generated code, and the check that a component asks for nothing else.

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

use crate::Error;
use crate::error::root_cause;
use crate::guest::Guest;

#[allow(clippy::undocumented_unsafe_blocks, reason = "generated")]
mod record {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "record-transform",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "generated")]
mod column {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "column-transform",
        ownership: Borrowing { duplicate_if_necessary: false },
        additional_derives: [PartialEq],
        with: {
            "gristmill:transform/types@0.1.0": super::types,
            "gristmill:transform/log@0.1.0": super::log,
            "gristmill:transform/metrics@0.1.0": super::metrics,
            "gristmill:transform/schemas@0.1.0": super::schemas,
        },
    });
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "generated")]
mod simple_world {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "simple-transform",
        additional_derives: [PartialEq],
        with: {
            "gristmill:transform/types@0.1.0": super::types,
            "gristmill:transform/log@0.1.0": super::log,
            "gristmill:transform/metrics@0.1.0": super::metrics,
            "gristmill:transform/schemas@0.1.0": super::schemas,
        },
    });
}

pub(crate) use column::gristmill::transform::columns;
pub(crate) use column::{Binding, ColumnBatch, ColumnConfiguration, ColumnTransform, ColumnTransformPre};
#[allow(unreachable_pub, reason = "the code for the other worlds exports them again")]
pub use record::gristmill::transform::{log, metrics, schemas, types};
pub(crate) use record::{Configuration, Manifest, RecordBatch, RecordTransform, RecordTransformPre};
pub(crate) use simple_world::gristmill::transform::simple;
pub(crate) use simple_world::{
    SimpleBatch, SimpleBinding, SimpleConfiguration, SimpleTransform, SimpleTransformPre,
};

/// Package and version of the contract.
pub(crate) const PACKAGE: &str = "gristmill:transform";
pub(crate) const VERSION: &str = "0.1.0";
const OFFERED: [&str; 6] = ["types", "columns", "simple", "log", "metrics", "schemas"];

/// A kind of transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct World {
    name: &'static str,
    exports: [&'static str; 3],
}

const RECORDS: World = World { name: "record-transform", exports: ["describe", "configure", "apply"] };
const COLUMNS: World =
    World { name: "column-transform", exports: ["describe", "configure-columns", "apply-columns"] };
const SIMPLE: World =
    World { name: "simple-transform", exports: ["describe", "configure-simple", "apply-simple"] };
/// Told apart by what they apply.
const WORLDS: [World; 3] = [RECORDS, COLUMNS, SIMPLE];

/// A component that is linked, of one of the kinds.
pub(crate) enum Program {
    Records(RecordTransformPre<Guest>),
    Columns(ColumnTransformPre<Guest>),
    Simple(SimpleTransformPre<Guest>),
}

/// An instance of one.
pub(crate) enum Bindings {
    Records(RecordTransform),
    Columns(ColumnTransform),
    Simple(SimpleTransform),
}

impl Program {
    /// # Errors
    /// Kind `Load`.
    pub(crate) fn link(engine: &Engine, component: &Component) -> Result<Self, Error> {
        let world = check(engine, component)?;
        let mut linker = Linker::new(engine);
        let offer = |linker: &mut Linker<Guest>| match world {
            COLUMNS => ColumnTransform::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest),
            SIMPLE => SimpleTransform::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest),
            _ => RecordTransform::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest),
        };
        offer(&mut linker)
            .map_err(|e| Error::host(format!("the host's own functions do not link: {e:#}")))?;
        let program = linker.instantiate_pre(component).and_then(|pre| match world {
            COLUMNS => ColumnTransformPre::new(pre).map(Program::Columns),
            SIMPLE => SimpleTransformPre::new(pre).map(Program::Simple),
            _ => RecordTransformPre::new(pre).map(Program::Records),
        });
        program.map_err(|e| {
            let cause = root_cause(&e);
            Error::load(format!("the component does not fit the contract of a {}: {cause}", world.name))
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        match self {
            Program::Records(pre) => pre.engine(),
            Program::Columns(pre) => pre.engine(),
            Program::Simple(pre) => pre.engine(),
        }
    }

    /// The names of what it imports.
    pub(crate) fn imports(&self) -> Vec<String> {
        let component = match self {
            Program::Records(pre) => pre.instance_pre().component(),
            Program::Columns(pre) => pre.instance_pre().component(),
            Program::Simple(pre) => pre.instance_pre().component(),
        };
        component.component_type().imports(self.engine()).map(|(name, _)| name.to_owned()).collect()
    }

    pub(crate) fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Bindings> {
        match self {
            Program::Records(pre) => pre.instantiate(store).map(Bindings::Records),
            Program::Columns(pre) => pre.instantiate(store).map(Bindings::Columns),
            Program::Simple(pre) => pre.instantiate(store).map(Bindings::Simple),
        }
    }
}

impl Bindings {
    pub(crate) fn describe(&self, store: &mut Store<Guest>) -> wasmtime::Result<Manifest> {
        match self {
            Bindings::Records(bindings) => bindings.call_describe(store),
            Bindings::Columns(bindings) => bindings.call_describe(store),
            Bindings::Simple(bindings) => bindings.call_describe(store),
        }
    }
}

/// Refuses a component that imports anything but what is offered, names what it is, and refuses one that
/// was built against another version of the contract.
fn check(engine: &Engine, component: &Component) -> Result<World, Error> {
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
    let exports = |wanted: &str| ty.exports(engine).any(|(name, _)| name == wanted);
    let Some(world) = WORLDS.into_iter().find(|world| exports(world.exports[2])) else {
        let kinds: Vec<_> = WORLDS.iter().map(|w| format!("`{}` ({})", w.exports[2], w.name)).collect();
        return Err(Error::load(format!(
            "the component exports none of {}: it is no transform of {PACKAGE}@{VERSION}",
            kinds.join(", ")
        )));
    };
    match world.exports.iter().find(|wanted| !exports(wanted)) {
        None => Ok(world),
        Some(missing) => Err(Error::load(format!(
            "the component does not export `{missing}`: it is not a {PACKAGE}@{VERSION} {}",
            world.name
        ))),
    }
}

fn offered() -> String {
    let names: Vec<_> = OFFERED.iter().map(|n| format!("{PACKAGE}/{n}@{VERSION}")).collect();
    names.join(", ")
}
