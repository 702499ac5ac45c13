use std::sync::Arc;

use gristmill_records::RawBatch;

use crate::call::Records;
use crate::runner::Runner;
use crate::{Applied, Error, Transform};

/// A transform of records at work on one stream. Not for two threads at a time; `apply` does not wait for
/// anything but the guest.
///
/// The WebAssembly instance inside is used for batch after batch, and replaced after a failed call and
/// when it has grown over three quarters of its memory limit.
#[derive(Debug)]
pub struct Instance {
    runner: Runner,
    /// Memory of calls that get a part of a batch.
    scratch: Vec<u32>,
}

impl Instance {
    pub(crate) fn new(runner: Runner) -> Self {
        Instance { runner, scratch: Vec::new() }
    }

    /// The transform.
    pub fn transform(&self) -> &Transform {
        self.runner.transform()
    }

    /// Gives the transform a schema that it may ask for by id. Kept for this instance's life.
    pub fn add_schema(&mut self, id: u32, text: impl Into<Arc<str>>) {
        self.runner.add_schema(id, text.into());
    }

    /// Throws the WebAssembly instance away, and what the breaker has counted; the next batch gets a fresh
    /// one. For tests of transforms that should not remember anything.
    pub fn reset(&mut self) {
        self.runner.reset();
    }

    /// WebAssembly fuel that a batch burns, about one unit an instruction: the same on every machine, in a build that is
    /// compiled for it. What the transform does is thrown away.
    ///
    /// # Errors
    /// Kind `Limit`: a call failed, or was over a limit. Kind `Host`: our own trouble.
    pub fn fuel(&mut self, batch: &RawBatch) -> Result<u64, Error> {
        self.runner.fuel(&mut Records { batch, scratch: &mut self.scratch })
    }

    /// Gives a batch to the transform. Every row is accounted for in the answer.
    ///
    /// A call that fails is searched for the rows that make it fail: these are rejected with a code of the
    /// runtime, the others go on, in order.
    ///
    /// # Errors
    /// Then nothing of the batch counts, and the next one gets a fresh instance. Kind `Limit`: the search
    /// took longer than [`Limits::search_timeout`](crate::Limits::search_timeout). Kind `Breaker`: too large a
    /// share of rows is rejected. Kind `Configure`: a fresh instance refused the configuration that an
    /// earlier one accepted. Kind `Host`: our own trouble.
    pub fn apply(&mut self, batch: &RawBatch) -> Result<Applied, Error> {
        let mut input = Records { batch, scratch: &mut self.scratch };
        Ok(Applied::new(batch.clone(), self.runner.run(&mut input)?))
    }
}
