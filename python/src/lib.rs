//! `gristmill._lib`: what the Python package is made of. Private and flat; `gristmill/*.py` is its face.
#![deny(missing_docs)]

mod arrow;
mod awaiting;
mod batch;
mod blocking;
mod consumer;
mod encode;
mod error;
mod frame;
mod interpreter;
mod logs;
mod pipeline;
mod process;
mod producer;
mod record;
mod registry;
mod scan;
mod settings;
mod testing;
mod transform;
mod value_format;
mod values;

use std::ffi::OsString;

use pyo3::prelude::*;

/// The command `gristmill`. It has the process to itself.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    blocking::detached(py, || gristmill_cli::main(arguments))
}

#[pymodule]
fn _lib(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<awaiting::Task>()?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<consumer::Consumer>()?;
    module.add_class::<frame::Frame>()?;
    module.add_class::<frame::Undecodable>()?;
    module.add_class::<pipeline::Pipeline>()?;
    module.add_class::<producer::Producer>()?;
    module.add_class::<producer::Report>()?;
    module.add_class::<record::Record>()?;
    module.add_class::<scan::Scan>()?;
    module.add_class::<testing::Cluster>()?;
    module.add_class::<testing::TestRegistry>()?;
    module.add_class::<value_format::Format>()?;
    module.add_class::<registry::Registry>()?;
    module.add_class::<transform::Rejected>()?;
    module.add_class::<transform::Transform>()?;
    module.add_class::<transform::TransformedColumns>()?;
    module.add_class::<transform::TransformedRecord>()?;
    module.add_class::<transform::TransformedRecords>()?;
    module.add_function(wrap_pyfunction!(command, module)?)?;
    module.add_function(wrap_pyfunction!(encode::avro_schema, module)?)?;
    module.add_function(wrap_pyfunction!(encode::encode, module)?)?;
    module.add_function(wrap_pyfunction!(interpreter::close_interpreter, module)?)?;
    Ok(())
}
