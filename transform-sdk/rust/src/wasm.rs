//! The transform as a component: the contract's types on one side, [`State`] on the other.

use std::cell::UnsafeCell;

use gristmill_records::Rows;

use crate::columns::private::{Binding, BoundChange, Need};
use crate::columns::{ColumnState, ColumnTransform, DataType, Field, TimeUnit};
use crate::run::State;
use crate::telemetry::log;
use crate::{Config, Manifest, Transform};

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

/// Generated from the contract, for transforms of columns.
#[expect(missing_docs, clippy::undocumented_unsafe_blocks, reason = "generated")]
pub mod columns {
    wit_bindgen::generate!({
        world: "column-transform",
        path: "../../wit",
        pub_export_macro: true,
        default_bindings_module: "gristmill_transform::private::columns",
        with: {
            "gristmill:transform/types@0.1.0": super::bindings::gristmill::transform::types,
            "gristmill:transform/log@0.1.0": super::bindings::gristmill::transform::log,
            "gristmill:transform/metrics@0.1.0": super::bindings::gristmill::transform::metrics,
            "gristmill:transform/schemas@0.1.0": super::bindings::gristmill::transform::schemas,
        },
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
    manifest(&T::MANIFEST, T::Config::schema().to_string(), Vec::new())
}

fn manifest(
    manifest: &Manifest,
    config_schema: String,
    columns: Vec<types::ColumnNeed>,
) -> bindings::Manifest {
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
        config_schema,
        outputs: manifest.outputs.iter().map(output).collect(),
        reads,
        columns,
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

/// As [`Cell`], of a transform of columns.
pub struct ColumnCell<T: ColumnTransform>(UnsafeCell<Option<ColumnState<T>>>);

// SAFETY: as for `Cell`.
unsafe impl<T: ColumnTransform> Sync for ColumnCell<T> {}

impl<T: ColumnTransform> ColumnCell<T> {
    /// Not configured yet.
    pub const fn empty() -> Self {
        ColumnCell(UnsafeCell::new(None))
    }

    #[expect(clippy::mut_from_ref, reason = "see the safety comment")]
    fn get(&self) -> &mut Option<ColumnState<T>> {
        // SAFETY: one thread, and only the exports call this, none of which calls another.
        unsafe { &mut *self.0.get() }
    }
}

/// Export `describe` of a transform of columns.
pub fn describe_columns<T: ColumnTransform>() -> bindings::Manifest {
    log_panics();
    let need = |need: Need| types::ColumnNeed {
        path: need.path.to_owned(),
        data_type: need.data_type,
        required: !need.optional,
    };
    let needs = T::needs().into_iter().map(need).collect();
    manifest(&T::MANIFEST, T::Config::schema().to_string(), needs)
}

/// Export `configure-columns`.
pub fn configure_columns<T: ColumnTransform>(
    cell: &ColumnCell<T>,
    configuration: columns::ColumnConfiguration,
) -> Result<columns::Binding, String> {
    log_panics();
    let fields: Vec<Field> = configuration.fields.into_iter().map(field).collect();
    let (config, topic) = (&configuration.config, &configuration.topic);
    let (state, binding) = ColumnState::new(config, topic, configuration.partition, &fields)?;
    *cell.get() = Some(state);
    Ok(bound(binding))
}

/// Export `apply-columns`.
pub fn apply_columns<T: ColumnTransform>(
    cell: &ColumnCell<T>,
    batch: columns::ColumnBatch,
) -> columns::ColumnEdits {
    let state = cell.get().as_mut().expect("the host configures an instance before it gives it rows");
    let answer = state.apply(batch.rows as usize, &batch.layout, &batch.buffers);
    columns::ColumnEdits {
        operations: answer.operations,
        data: answer.data,
        layout: answer.columns.layout,
        buffers: answer.columns.buffers,
    }
}

use columns::gristmill::transform::columns as contract;

fn bound(binding: Binding) -> columns::Binding {
    let change = |change: BoundChange| match change {
        BoundChange::Remove(field) => contract::Change::Remove(field),
        BoundChange::Rename(field, name) => {
            contract::Change::Rename(contract::Rename { field, name: name.to_owned() })
        }
        BoundChange::Replace(field) => contract::Change::Replace(field),
        BoundChange::Add => contract::Change::Add,
    };
    let computed = |field: Field| contract::Field {
        name: field.name,
        data_type: told(field.data_type),
        nullable: field.nullable,
        children: field.children,
    };
    columns::Binding {
        reads: binding.reads,
        changes: binding.changes.into_iter().map(change).collect(),
        computed: binding.computed.into_iter().map(computed).collect(),
    }
}

fn field(field: contract::Field) -> Field {
    Field {
        name: field.name,
        data_type: heard(field.data_type),
        nullable: field.nullable,
        children: field.children,
    }
}

macro_rules! same {
    ($($name:ident)*) => {
        fn heard(data_type: contract::DataType) -> DataType {
            match data_type {
                $(contract::DataType::$name => DataType::$name,)*
                contract::DataType::FixedSizeBinary(bytes) => DataType::FixedSizeBinary(bytes),
                contract::DataType::Decimal128(d) => DataType::Decimal128(d.precision, d.scale),
                contract::DataType::Decimal256(d) => DataType::Decimal256(d.precision, d.scale),
                contract::DataType::Time32(unit) => DataType::Time32(heard_unit(unit)),
                contract::DataType::Time64(unit) => DataType::Time64(heard_unit(unit)),
                contract::DataType::Timestamp(t) => DataType::Timestamp(heard_unit(t.unit), t.timezone),
            }
        }

        fn told(data_type: DataType) -> contract::DataType {
            let decimal = |precision, scale| contract::DecimalType { precision, scale };
            match data_type {
                $(DataType::$name => contract::DataType::$name,)*
                DataType::FixedSizeBinary(bytes) => contract::DataType::FixedSizeBinary(bytes),
                DataType::Decimal128(p, s) => contract::DataType::Decimal128(decimal(p, s)),
                DataType::Decimal256(p, s) => contract::DataType::Decimal256(decimal(p, s)),
                DataType::Time32(unit) => contract::DataType::Time32(told_unit(unit)),
                DataType::Time64(unit) => contract::DataType::Time64(told_unit(unit)),
                DataType::Timestamp(unit, timezone) => {
                    contract::DataType::Timestamp(contract::TimestampType { unit: told_unit(unit), timezone })
                }
            }
        }
    };
}

same! { Boolean Int8 Int16 Int32 Int64 Uint8 Uint16 Uint32 Uint64 Float32 Float64 Utf8 Binary Date32 Date64 Struct List Map }

fn heard_unit(unit: contract::TimeUnit) -> TimeUnit {
    match unit {
        contract::TimeUnit::Second => TimeUnit::Second,
        contract::TimeUnit::Millisecond => TimeUnit::Millisecond,
        contract::TimeUnit::Microsecond => TimeUnit::Microsecond,
        contract::TimeUnit::Nanosecond => TimeUnit::Nanosecond,
    }
}

fn told_unit(unit: TimeUnit) -> contract::TimeUnit {
    match unit {
        TimeUnit::Second => contract::TimeUnit::Second,
        TimeUnit::Millisecond => contract::TimeUnit::Millisecond,
        TimeUnit::Microsecond => contract::TimeUnit::Microsecond,
        TimeUnit::Nanosecond => contract::TimeUnit::Nanosecond,
    }
}

/// A panic ends in a trap, which has no text: the last error line before it is its text.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::error(panic.to_string())));
}
