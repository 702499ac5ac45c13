//! Tables that take everything and keep the last of it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gristmill_sinks::{
    BoxFuture, Create, Error, ErrorKind, Generation, Listed, Move, Object, Result, RowsOf, Staged,
    StagedWrite, Stat, Store,
};

/// What was appended.
#[derive(Debug, Default)]
pub(crate) struct Counting(Arc<Mutex<Vec<u8>>>);

impl Counting {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Upload(Arc<Mutex<Vec<u8>>>);

impl StagedWrite for Upload {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes);
        Box::pin(async { Ok(()) })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Staged>> {
        Box::pin(async { Err(unsupported()) })
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "nothing is published here")
}

impl Store for Counting {
    fn create_if_absent<'a>(&'a self, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<Create>> {
        Box::pin(async { Err(unsupported()) })
    }

    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Object>>> {
        Box::pin(async { Ok(None) })
    }

    fn stat<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Stat>>> {
        Box::pin(async { Ok(None) })
    }

    fn list<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: usize) -> BoxFuture<'a, Result<Vec<Listed>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    fn stage<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        Box::pin(async { Err(unsupported()) })
    }

    fn stage_rows<'a>(&'a self, _: &'a str, _: RowsOf<'a>) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        let upload: Box<dyn StagedWrite> = Box::new(Upload(self.0.clone()));
        Box::pin(async move { Ok(upload) })
    }

    fn move_if_absent<'a>(&'a self, _: &'a str, _: Generation, _: &'a str) -> BoxFuture<'a, Result<Move>> {
        Box::pin(async { Err(unsupported()) })
    }
}
