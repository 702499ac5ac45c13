//! WebAssembly transforms, on records and on columns.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{Array, RecordBatch};
use arrow_schema::{Field, Schema, SchemaRef};
use gristmill_pipeline::TransformLimits;
use gristmill_records::{NO_TIMESTAMP, RawBatch, RawBatchBuilder};
use gristmill_smt::{
    Applied, ColumnInstance, Instance, Kind, Runtime, RuntimeConfig, Stream, Transform as Component,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use serde_json::Value;

use crate::batch::Batch;
use crate::blocking::detached;
use crate::error::Failure;
use crate::frame::Frame;
use crate::process::{OfProcess, PerProcess};
use crate::producer::Payload;
use crate::{arrow, record};

/// Rows that a transform of columns is given at once: what is larger is cut.
const ROWS: usize = 4_096;

static RUNTIME: PerProcess<Runtime> = PerProcess::new();

/// Compiled components are kept in the user's cache folder.
fn runtime() -> Result<&'static Runtime, Failure> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let mut config = RuntimeConfig::new();
    if let Some(folder) = RuntimeConfig::default_cache_dir() {
        config = config.with_cache_dir(folder);
    }
    Ok(RUNTIME.set(Runtime::new(config)?).0)
}

/// See `gristmill/transforms.py`.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct Transform {
    component: OfProcess<Component>,
    config: Value,
    stream: Stream,
    /// Held while the guest runs, by a thread that is not attached.
    instances: Mutex<Instances>,
}

#[derive(Default)]
struct Instances {
    records: Option<Instance>,
    /// For the columns of the last call.
    columns: Option<(SchemaRef, ColumnInstance)>,
}

#[derive(FromPyObject)]
enum Source {
    Wasm(Vec<u8>),
    File(PathBuf),
}

#[pymethods]
impl Transform {
    #[new]
    fn new(
        py: Python<'_>,
        source: Source,
        config: &str,
        topic: String,
        partition: u32,
        limits: &str,
    ) -> PyResult<Self> {
        let limits: TransformLimits = serde_json::from_str(limits)
            .map_err(|e| Failure::new("invalid_config", format!("the limits cannot be read: {e}")))?;
        let limits = limits.limits();
        let config = serde_json::from_str(config)
            .map_err(|e| Failure::new("invalid_config", format!("the configuration is not JSON: {e}")))?;
        let load = || {
            let runtime = runtime()?;
            let loaded = match source {
                Source::Wasm(wasm) => runtime.load(&wasm, limits),
                Source::File(path) => runtime.load_file(path, limits),
            };
            let transform = Transform {
                component: OfProcess::new(loaded?),
                config,
                stream: Stream { topic, partition },
                instances: Mutex::default(),
            };
            // One of records has nothing to wait for; one of columns is configured with their schema.
            if transform.component.get()?.kind() == Kind::Records {
                transform.lock().records = Some(transform.instance()?);
            }
            Ok::<_, Failure>(transform)
        };
        Ok(detached(py, load)?)
    }

    #[getter]
    fn name(&self) -> Result<&str, Failure> {
        Ok(&self.component.get()?.manifest().name)
    }

    #[getter]
    fn version(&self) -> Result<&str, Failure> {
        Ok(&self.component.get()?.manifest().version)
    }

    #[getter]
    fn description(&self) -> Result<&str, Failure> {
        Ok(&self.component.get()?.manifest().description)
    }

    /// `records` or `columns`.
    #[getter]
    fn kind(&self) -> Result<String, Failure> {
        Ok(self.component.get()?.kind().to_string())
    }

    /// SHA-256 of the component.
    #[getter]
    fn digest(&self) -> Result<&str, Failure> {
        Ok(self.component.get()?.digest())
    }

    /// The JSON Schema of its configuration, as JSON.
    #[getter]
    fn config_schema(&self) -> Result<String, Failure> {
        Ok(self.component.get()?.manifest().config_schema.to_string())
    }

    #[getter]
    fn outputs(&self) -> Result<Vec<String>, Failure> {
        let outputs = self.component.get()?.manifest().outputs.iter().map(|output| output.name.clone());
        Ok(std::iter::once("main".to_owned()).chain(outputs).collect())
    }

    fn apply_values(&self, py: Python<'_>, values: Vec<Payload>) -> PyResult<TransformedRecords> {
        let mut batch = RawBatchBuilder::new(self.stream.topic.as_str(), 0);
        for (offset, value) in values.into_iter().enumerate() {
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            batch
                .push(offset, NO_TIMESTAMP, None, value.bytes(), [])
                .map_err(|e| Failure::invalid_argument(format!("value {offset}: {e}")))?;
        }
        self.apply_records(py, batch.build())
    }

    fn apply_batch(&self, py: Python<'_>, batch: &Batch) -> PyResult<TransformedRecords> {
        self.apply_records(py, batch.records().clone())
    }

    /// `stream`: anything with `__arrow_c_stream__`.
    fn apply_columns(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<TransformedColumns> {
        self.expect(Kind::Columns, "apply it to a list of values or to a batch")?;
        let (schema, batches) = arrow::import(stream)?;
        let mut made = TransformedColumns {
            schema: schema.clone(),
            batches: Vec::new(),
            rows: Vec::new(),
            outputs: Vec::new(),
            rejects: Vec::new(),
            dropped: 0,
        };
        let mut first = 0;
        let (schema, output) = detached(py, || self.bind_rows(schema, &batches))?;
        made.schema = output;
        for batch in batches {
            let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec())
                .map_err(|e| Failure::new("other", e.to_string()))?;
            for begin in (0..batch.num_rows()).step_by(ROWS) {
                let part = batch.slice(begin, ROWS.min(batch.num_rows() - begin));
                detached(py, || self.apply_part(&schema, &part, first, &mut made))?;
                first += part.num_rows();
                py.check_signals()?;
            }
        }
        Ok(made)
    }
}

impl Transform {
    fn lock(&self) -> std::sync::MutexGuard<'_, Instances> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(self.component.get()?.instantiate(&self.stream, &self.config)?)
    }

    fn expect(&self, kind: Kind, advice: &str) -> Result<(), Failure> {
        let component = self.component.get()?;
        if component.kind() == kind {
            return Ok(());
        }
        let name = &component.manifest().name;
        Err(Failure::invalid_argument(format!("{name} is a transform of {}: {advice}", component.kind())))
    }

    fn apply_records(&self, py: Python<'_>, batch: RawBatch) -> PyResult<TransformedRecords> {
        self.expect(Kind::Records, "apply it to an Arrow table or a frame")?;
        let apply = || {
            let mut instances = self.lock();
            let instance = match &mut instances.records {
                Some(instance) => instance,
                none => none.insert(self.instance()?),
            };
            Ok::<_, Failure>(instance.apply(&batch)?)
        };
        let transform = self.component.get()?.clone();
        Ok(TransformedRecords { applied: detached(py, apply)?, transform })
    }

    /// The columns as it is bound to them, and those that come out. Frames seldom say that a column has no nulls: where the
    /// transform cannot take one that may have some, it is looked at.
    fn bind_rows(
        &self,
        schema: SchemaRef,
        batches: &[RecordBatch],
    ) -> Result<(SchemaRef, SchemaRef), Failure> {
        let refused = match self.bind(&schema) {
            Ok(output) => return Ok((schema, output)),
            Err(refused) => refused,
        };
        let fields = schema.fields().iter().enumerate().map(|(i, field)| {
            let is_full = batches.iter().all(|batch| batch.column(i).null_count() == 0);
            Field::clone(field).with_nullable(field.is_nullable() && !is_full)
        });
        let full = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()));
        match self.bind(&full) {
            Ok(output) => Ok((full, output)),
            Err(_) => Err(refused),
        }
    }

    /// The columns that come out.
    fn bind(&self, schema: &SchemaRef) -> Result<SchemaRef, Failure> {
        let mut instances = self.lock();
        match &instances.columns {
            Some((known, instance)) if known == schema => Ok(instance.output_schema().clone()),
            _ => {
                let component = self.component.get()?;
                let instance = component.instantiate_columns(&self.stream, &self.config, schema)?;
                let output = instance.output_schema().clone();
                instances.columns = Some((schema.clone(), instance));
                Ok(output)
            }
        }
    }

    fn apply_part(
        &self,
        schema: &SchemaRef,
        part: &RecordBatch,
        first: usize,
        made: &mut TransformedColumns,
    ) -> Result<(), Failure> {
        // Another thread may have bound it to other columns meanwhile.
        self.bind(schema)?;
        let mut instances = self.lock();
        let Some((_, instance)) = instances.columns.as_mut().filter(|(known, _)| known == schema) else {
            drop(instances);
            return self.apply_part(schema, part, first, made);
        };
        let offsets: Vec<i64> = (first..first + part.num_rows()).map(|row| row as i64).collect();
        let applied = instance.apply(part, &offsets)?;
        made.rows.extend(applied.rows().iter().map(|row| first + row.row));
        let transform = instance.transform().clone();
        made.outputs.extend(applied.rows().iter().map(|row| output_name(&transform, row.output)));
        made.rejects.extend(applied.rejects().iter().map(|reject| Rejected {
            row: first + reject.row,
            code: reject.code.clone(),
            message: reject.message.clone(),
        }));
        made.dropped += applied.dropped();
        made.batches.push(applied.batch().clone());
        Ok(())
    }
}

fn output_name(transform: &Component, output: u16) -> String {
    transform.manifest().output_name(output).unwrap_or("main").to_owned()
}

/// A row that a transform refused, or the sandbox in its place.
#[pyclass(frozen, get_all, module = "gristmill._lib")]
#[derive(Clone)]
pub(crate) struct Rejected {
    /// The input row.
    row: usize,
    /// The transform's own code, or the sandbox's: `TRANSFORM_TRAP`, `TRANSFORM_FUEL`, ...
    code: String,
    message: String,
}

#[pymethods]
impl Rejected {
    fn __repr__(&self) -> String {
        format!("Rejected(row={}, code={:?}, message={:?})", self.row, self.code, self.message)
    }
}

/// What became of records.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct TransformedRecords {
    applied: Applied,
    transform: Component,
}

/// A record that goes on.
#[pyclass(frozen, get_all, module = "gristmill._lib")]
pub(crate) struct TransformedRecord {
    /// The input row that it comes from.
    row: usize,
    /// 0 for the row itself, 1 and above for the extra records that belong to it.
    sub: u32,
    /// The name of the output: `main` if nothing else was said.
    output: String,
    key: Option<Py<PyBytes>>,
    value: Option<Py<PyBytes>>,
    headers: Py<PyList>,
    /// Milliseconds since the Unix epoch.
    timestamp_ms: Option<i64>,
}

#[pymethods]
impl TransformedRecords {
    /// The values that go on.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let values: Vec<_> = self.applied.records().map(|r| r.value.map(|v| PyBytes::new(py, v))).collect();
        PyList::new(py, values)
    }

    fn records(&self, py: Python<'_>) -> PyResult<Vec<TransformedRecord>> {
        let bytes = |bytes: Option<&[u8]>| bytes.map(|bytes| PyBytes::new(py, bytes).unbind());
        self.applied
            .records()
            .map(|r| {
                Ok(TransformedRecord {
                    row: r.row,
                    sub: r.sub,
                    output: output_name(&self.transform, r.output),
                    key: bytes(r.key),
                    value: bytes(r.value),
                    headers: record::headers(py, r.headers)?.unbind(),
                    timestamp_ms: r.timestamp,
                })
            })
            .collect()
    }

    #[getter]
    fn rejects(&self) -> Vec<Rejected> {
        let rejects = self.applied.rejects().iter();
        rejects.map(|r| Rejected { row: r.row, code: r.code.clone(), message: r.message.clone() }).collect()
    }

    #[getter]
    fn dropped(&self) -> usize {
        self.applied.dropped()
    }
}

/// What became of rows.
#[pyclass(frozen, module = "gristmill._lib")]
pub(crate) struct TransformedColumns {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: Vec<usize>,
    outputs: Vec<String>,
    rejects: Vec<Rejected>,
    dropped: usize,
}

#[pymethods]
impl TransformedColumns {
    #[getter]
    fn frame(&self) -> Frame {
        Frame {
            own: self.schema.fields().len(),
            schema: self.schema.clone(),
            batches: self.batches.clone(),
            undecodable: Vec::new(),
        }
    }

    #[getter]
    fn rows(&self) -> Vec<usize> {
        self.rows.clone()
    }

    #[getter]
    fn outputs(&self) -> Vec<String> {
        self.outputs.clone()
    }

    #[getter]
    fn rejects(&self) -> Vec<Rejected> {
        self.rejects.clone()
    }

    #[getter]
    fn dropped(&self) -> usize {
        self.dropped
    }
}
