//! A store in memory, and one that misbehaves on purpose: a second implementation of the trait, and quick
//! enough for thousands of random runs.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use gristmill_sinks::{
    BoxFuture, Create, Error, ErrorKind, Generation, Listed, Move, Object, Result, Staged, StagedWrite, Stat,
    Store, conformance, validate_name,
};

#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryStore(Arc<Mutex<Objects>>);

#[derive(Debug, Default)]
struct Objects {
    by_name: BTreeMap<String, (Generation, Bytes)>,
    last_generation: u64,
}

impl Objects {
    fn create(&mut self, name: &str, bytes: Bytes) -> Create {
        if self.by_name.contains_key(name) {
            return Create::Exists;
        }
        // Distinct even when the last bit is flipped, as the suite does.
        self.last_generation += 2;
        let generation = Generation(self.last_generation);
        self.by_name.insert(name.to_owned(), (generation, bytes));
        Create::Created(generation)
    }
}

impl MemoryStore {
    fn with<T: Send + 'static>(
        &self,
        names: &[&str],
        work: impl FnOnce(&mut Objects) -> Result<T>,
    ) -> BoxFuture<'static, Result<T>> {
        let checked = names.iter().try_for_each(|n| validate_name(n));
        let outcome = checked.and_then(|()| work(&mut self.0.lock().unwrap()));
        Box::pin(async move { outcome })
    }
}

impl Store for MemoryStore {
    fn create_if_absent<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Create>> {
        self.with(&[name], |o| Ok(o.create(name, bytes)))
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Object>>> {
        self.with(&[name], |o| {
            Ok(o.by_name
                .get(name)
                .map(|(generation, bytes)| Object { bytes: bytes.clone(), generation: *generation }))
        })
    }

    fn stat<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Stat>>> {
        self.with(&[name], |o| {
            Ok(o.by_name.get(name).map(|(generation, bytes)| Stat {
                generation: *generation,
                bytes: bytes.len() as u64,
                crc32c: crc32c::crc32c(bytes),
            }))
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Listed>>> {
        self.with(&[], |o| {
            let from = match start_after {
                Some(after) if after >= prefix => Bound::Excluded(after),
                _ => Bound::Included(prefix),
            };
            let listed = o.by_name.range::<str, _>((from, Bound::Unbounded));
            Ok(listed
                .take_while(|(name, _)| name.starts_with(prefix))
                .take(limit)
                .map(|(name, (generation, bytes))| Listed {
                    name: name.clone(),
                    generation: *generation,
                    bytes: bytes.len() as u64,
                })
                .collect())
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        self.with(&[name], |o| Ok(o.by_name.remove(name).is_some()))
    }

    fn stage<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        let write = MemoryWrite { store: self.clone(), name: name.to_owned(), bytes: BytesMut::new() };
        self.with(&[name], |_| Ok(Box::new(write) as Box<dyn StagedWrite>))
    }

    fn move_if_absent<'a>(
        &'a self,
        staged: &'a str,
        generation: Generation,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Move>> {
        self.with(&[staged, to], |o| {
            let Some((found, _)) = o.by_name.get(staged) else { return Ok(Move::AlreadyMoved) };
            if *found != generation {
                return Err(Error::new(ErrorKind::Changed, "another generation"));
            }
            if o.by_name.contains_key(to) {
                return Ok(Move::DestinationExists);
            }
            if let Some(object) = o.by_name.remove(staged) {
                o.by_name.insert(to.to_owned(), object);
            }
            Ok(Move::Moved)
        })
    }
}

#[derive(Debug)]
struct MemoryWrite {
    store: MemoryStore,
    name: String,
    bytes: BytesMut,
}

impl StagedWrite for MemoryWrite {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        self.bytes.extend_from_slice(&bytes);
        Box::pin(async { Ok(()) })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Staged>> {
        Box::pin(async move {
            let bytes = self.bytes.freeze();
            let (size, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
            match self.store.0.lock().unwrap().create(&self.name, bytes) {
                Create::Created(generation) => {
                    Ok(Staged { name: self.name, generation, bytes: size, crc32c })
                }
                Create::Exists => Err(Error::new(ErrorKind::DestinationTaken, "staged names must be unique")),
            }
        })
    }
}

/// What goes wrong with one request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Nothing is done.
    Unavailable,
    /// It is done, the reply is lost.
    ReplyLost,
    /// Nothing is done, and nobody knows.
    RequestLost,
}

/// Another store whose next creates and moves fail as the script says.
#[derive(Debug)]
pub(crate) struct Scripted {
    inner: Arc<dyn Store>,
    script: Mutex<VecDeque<Fault>>,
    hangs: AtomicBool,
    looks: AtomicU64,
}

impl Scripted {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Scripted {
            inner,
            script: Mutex::default(),
            hangs: AtomicBool::new(false),
            looks: AtomicU64::new(0),
        })
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().unwrap().extend(faults);
    }

    /// From now on no upload begins and no error comes.
    pub(crate) fn hang(&self) {
        self.hangs.store(true, Ordering::Relaxed);
    }

    /// How many objects were read, looked up and listings asked for so far.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    async fn run<T>(&self, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        let fault = self.script.lock().unwrap().pop_front().unwrap_or(Fault::None);
        let unknown = || Error::new(ErrorKind::OutcomeUnknown, "the reply was lost");
        match fault {
            Fault::None => work.await,
            Fault::Unavailable => Err(Error::new(ErrorKind::Unavailable, "the store is away")),
            Fault::ReplyLost => work.await.and(Err(unknown())),
            Fault::RequestLost => Err(unknown()),
        }
    }
}

impl Store for Scripted {
    fn create_if_absent<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Create>> {
        // The memory store acts when it is called: call it only when it is to act.
        Box::pin(
            async move { self.run(Box::pin(async { self.inner.create_if_absent(name, bytes).await })).await },
        )
    }
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Object>>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.inner.get(name)
    }
    fn stat<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Stat>>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.inner.stat(name)
    }
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Listed>>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.inner.list(prefix, start_after, limit)
    }
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        self.inner.delete(name)
    }
    fn stage<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn StagedWrite>>> {
        if self.hangs.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        self.inner.stage(name)
    }
    fn move_if_absent<'a>(
        &'a self,
        staged: &'a str,
        generation: Generation,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Move>> {
        Box::pin(async move {
            self.run(Box::pin(async { self.inner.move_if_absent(staged, generation, to).await })).await
        })
    }
}

#[tokio::test]
async fn the_store_that_tests_use_keeps_every_promise_too() {
    conformance::run(Arc::new(MemoryStore::default()), "suite").await;
}
