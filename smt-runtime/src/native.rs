//! A transform compiled for this machine, without a sandbox: what the cost of its component is compared with.
//!
//! The other side is `transform-sdk/rust/src/native.rs`.

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use gristmill_records::RawBatch;
use libloading::Library;
use serde_json::{Value, json};

use crate::columns::{Offered, Words};
use crate::contract::columns;
use crate::{ColumnInstance, Error, guest_build};

const SYMBOL: &[u8] = b"GRISTMILL_NATIVE\0";
const VERSION: u32 = 1;

#[repr(C)]
struct Part {
    start: *const u8,
    bytes: usize,
}

impl Part {
    fn of<T: Copy>(items: &[T]) -> Self {
        Part { start: items.as_ptr().cast(), bytes: size_of_val(items) }
    }
}

#[repr(C)]
struct Exports {
    version: u32,
    columns: u32,
    configure: unsafe extern "C" fn(*const Part, usize) -> *mut c_void,
    apply: unsafe extern "C" fn(*mut c_void, usize, *const Part, usize) -> i64,
}

/// A crate of a transform that was compiled for this machine. It can do what this process can: only for code that you would
/// run anyway.
#[derive(Debug)]
pub struct NativeTransform {
    library: Arc<Library>,
}

impl NativeTransform {
    /// Compiles the crate in `dir`, and loads it.
    ///
    /// # Errors
    /// Kind `Load`: it is no crate, does not compile, or was written against another version of the SDK. Kind `Host`: cargo
    /// is not there.
    pub fn build(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let file = guest_build::build_native(dir.as_ref())?;
        let wrong = |what: String| Error::load(format!("{}: {what}", file.display()));
        // SAFETY: the library was made just now, of code that the caller wants to be run.
        let library = unsafe { Library::new(&file) }.map_err(|e| wrong(e.to_string()))?;
        let native = NativeTransform { library: Arc::new(library) };
        match native.exports().map(|exports| exports.version) {
            Some(VERSION) => Ok(native),
            _ => Err(wrong("it is of another version of gristmill-transform than this command".into())),
        }
    }

    fn exports(&self) -> Option<&Exports> {
        // SAFETY: the SDK exports a struct of this layout under this name; if it is of another version, only that is looked
        // at. It lives as long as the library.
        unsafe { self.library.get::<*const Exports>(SYMBOL).ok().and_then(|symbol| symbol.as_ref()) }
    }

    fn configure(&self, of_columns: bool, parts: &[Part]) -> Result<NativeInstance, Error> {
        let exports = self.exports().filter(|exports| (exports.columns == 1) == of_columns);
        let exports =
            exports.ok_or_else(|| Error::load("the native build is of another kind of transform"))?;
        // SAFETY: the parts live during the call.
        let state = unsafe { (exports.configure)(parts.as_ptr(), parts.len()) };
        match state.is_null() {
            true => Err(Error::load("the native build refuses its configuration")),
            false => Ok(NativeInstance { _library: self.library.clone(), apply: exports.apply, state }),
        }
    }

    /// Configured, for records.
    ///
    /// # Errors
    /// Kind `Load`: it is of columns, or refuses its configuration.
    pub fn of_records(&self, topic: &str, config: &Value) -> Result<NativeInstance, Error> {
        self.configure(false, &[Part::of(config.to_string().as_bytes()), Part::of(topic.as_bytes())])
    }

    /// Configured, for the columns of an instance of the same transform.
    ///
    /// # Errors
    /// Kind `Load`: it is of records, or refuses its configuration or the columns.
    pub fn of_columns(
        &self,
        topic: &str,
        config: &Value,
        instance: &ColumnInstance,
    ) -> Result<NativeInstance, Error> {
        let offered = Offered::new(instance.input_schema().clone()).map_err(Error::load)?;
        let fields: Value = offered.fields.iter().map(field).collect();
        let (config, fields) = (config.to_string(), fields.to_string());
        let parts = [config.as_bytes(), topic.as_bytes(), fields.as_bytes()].map(Part::of);
        self.configure(true, &parts)
    }
}

/// A configured one. What it has allocated is not given back.
#[derive(Debug)]
pub struct NativeInstance {
    _library: Arc<Library>,
    apply: unsafe extern "C" fn(*mut c_void, usize, *const Part, usize) -> i64,
    state: *mut c_void,
}

/// Rows as the function gets them.
#[derive(Debug)]
pub struct NativeRows {
    rows: usize,
    words: Words,
}

impl NativeRows {
    /// The columns that `instance` reads.
    pub fn new(instance: &ColumnInstance, batch: &RecordBatch) -> Self {
        NativeRows { rows: batch.num_rows(), words: instance.words_of(batch) }
    }
}

impl NativeInstance {
    /// Gives it a batch of records; its answer is thrown away.
    ///
    /// # Errors
    /// Kind `Host`: it panicked.
    pub fn apply_records(&mut self, batch: &RawBatch) -> Result<(), Error> {
        let rows = batch.rows();
        self.call(
            batch.len(),
            &[
                Part::of(rows.index),
                Part::of(rows.keys),
                Part::of(rows.values),
                Part::of(rows.headers),
                Part::of(rows.timestamps),
                Part::of(rows.offsets),
            ],
        )
    }

    /// As [`NativeInstance::apply_records`], of columns.
    ///
    /// # Errors
    /// As there.
    pub fn apply_columns(&mut self, batch: &NativeRows) -> Result<(), Error> {
        self.call(batch.rows, &[Part::of(&batch.words.layout), Part::of(&batch.words.buffers)])
    }

    fn call(&mut self, rows: usize, parts: &[Part]) -> Result<(), Error> {
        // SAFETY: the parts live during the call, and nobody else has the state.
        match unsafe { (self.apply)(self.state, rows, parts.as_ptr(), parts.len()) } {
            0.. => Ok(()),
            _ => Err(Error::host("the native build panicked")),
        }
    }
}

/// A field as the SDK reads it.
fn field(field: &columns::Field) -> Value {
    use columns::DataType as C;
    let unit = |unit: columns::TimeUnit| match unit {
        columns::TimeUnit::Second => "Second",
        columns::TimeUnit::Millisecond => "Millisecond",
        columns::TimeUnit::Microsecond => "Microsecond",
        columns::TimeUnit::Nanosecond => "Nanosecond",
    };
    let data_type = match &field.data_type {
        C::FixedSizeBinary(bytes) => json!({"FixedSizeBinary": bytes}),
        C::Decimal128(d) => json!({"Decimal128": [d.precision, d.scale]}),
        C::Decimal256(d) => json!({"Decimal256": [d.precision, d.scale]}),
        C::Time32(u) => json!({"Time32": unit(*u)}),
        C::Time64(u) => json!({"Time64": unit(*u)}),
        C::Timestamp(t) => json!({"Timestamp": [unit(t.unit), t.timezone]}),
        // `DataType::Int64`
        plain => format!("{plain:?}").rsplit("::").next().into(),
    };
    json!({"name": field.name, "data_type": data_type, "nullable": field.nullable, "children": field.children})
}
