//! The transform as a component: the contract's types on one side, [`State`] on the other.

use std::cell::UnsafeCell;

use gristmill_records::Rows;

use crate::run::State;
use crate::telemetry::log;
use crate::{Config, Transform};

/// Generated from the contract.
#[expect(missing_docs, clippy::undocumented_unsafe_blocks, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        world: "record-transform",
        path: "../../wit",
        pub_export_macro: true,
        default_bindings_module: "gristmill_transform::private::bindings",
    });
}

use bindings::gristmill::transform::types;

/// Where the configured transform is kept between calls.
pub struct Cell<T: Transform>(UnsafeCell<Option<State<T>>>);

// SAFETY: a component instance has one thread and the host never enters it twice at a time.
unsafe impl<T: Transform> Sync for Cell<T> {}

impl<T: Transform> Cell<T> {
    /// Not configured yet.
    pub const fn empty() -> Self {
        Cell(UnsafeCell::new(None))
    }

    #[expect(clippy::mut_from_ref, reason = "see the safety comment")]
    fn get(&self) -> &mut Option<State<T>> {
        // SAFETY: one thread, and only the three exports call this, none of which calls another.
        unsafe { &mut *self.0.get() }
    }
}

/// Export `describe`.
pub fn describe<T: Transform>() -> bindings::Manifest {
    log_panics();
    let manifest = T::MANIFEST;
    let output = |(name, description): &(&str, &str)| types::Output {
        name: (*name).to_owned(),
        description: (*description).to_owned(),
    };
    let r = manifest.reads;
    let parts = [
        (r.keys, types::Reads::KEYS),
        (r.values, types::Reads::VALUES),
        (r.headers, types::Reads::HEADERS),
        (r.timestamps, types::Reads::TIMESTAMPS),
        (r.offsets, types::Reads::OFFSETS),
    ];
    let reads =
        parts.iter().filter(|(read, _)| *read).fold(types::Reads::empty(), |all, (_, part)| all | *part);
    bindings::Manifest {
        name: manifest.name.to_owned(),
        version: manifest.version.to_owned(),
        description: manifest.description.to_owned(),
        config_schema: T::Config::schema().to_string(),
        outputs: manifest.outputs.iter().map(output).collect(),
        reads,
        columns: Vec::new(),
    }
}

/// Export `configure`.
pub fn configure<T: Transform>(cell: &Cell<T>, configuration: bindings::Configuration) -> Result<(), String> {
    log_panics();
    *cell.get() = Some(State::new(&configuration.config, &configuration.topic, configuration.partition)?);
    Ok(())
}

/// Export `apply`.
pub fn apply<T: Transform>(cell: &Cell<T>, batch: bindings::RecordBatch) -> bindings::Edits {
    let state = cell.get().as_mut().expect("the host configures an instance before it gives it records");
    let rows = Rows {
        index: &batch.index,
        keys: &batch.keys,
        values: &batch.values,
        headers: &batch.headers,
        timestamps: &batch.timestamps,
        offsets: &batch.offsets,
    };
    let (operations, data) = state.apply(rows);
    bindings::Edits { operations, data }
}

/// A panic ends in a trap, which has no text: the last error line before it is its text.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::error(panic.to_string())));
}
