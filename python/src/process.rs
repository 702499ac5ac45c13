//! What belongs to one process: a fork inherits memory, but no threads.

use std::sync::atomic::{AtomicPtr, Ordering};

use crate::error::Failure;

/// A value of this process, made when it is first needed. Without a lock: a fork while another thread holds one would leave
/// it locked in the child for ever. The parent's value is left as it is in a child, never used and never dropped.
pub(crate) struct PerProcess<T>(AtomicPtr<Held<T>>);

struct Held<T> {
    process: u32,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The value, if this process has one.
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        // SAFETY: what is stored comes from `Box::into_raw` in `set`, and is never freed.
        let held = unsafe { self.0.load(Ordering::Acquire).as_ref() };
        held.filter(|held| held.process == std::process::id()).map(|held| &held.value)
    }

    /// Keeps a value, unless another thread of this process was first: then that one's, and `false`.
    pub(crate) fn set(&'static self, value: T) -> (&'static T, bool) {
        let before = self.0.load(Ordering::Acquire);
        if let Some(there) = self.get() {
            return (there, false);
        }
        let ours = Box::into_raw(Box::new(Held { process: std::process::id(), value }));
        match self.0.compare_exchange(before, ours, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: it is never freed.
            Ok(_) => (unsafe { &(*ours).value }, true),
            Err(_) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(ours) });
                (self.get().expect("another thread of this process has stored one"), false)
            }
        }
    }
}

/// Something with threads behind it, which a fork does not have.
pub(crate) struct OfProcess<T: Send + 'static> {
    process: u32,
    inner: Option<T>,
}

impl<T: Send + 'static> OfProcess<T> {
    pub(crate) fn new(inner: T) -> Self {
        OfProcess { process: std::process::id(), inner: Some(inner) }
    }

    /// # Errors
    /// If the process was forked since.
    pub(crate) fn get(&self) -> Result<&T, Failure> {
        match &self.inner {
            Some(inner) if self.process == std::process::id() => Ok(inner),
            _ => Err(Failure::new(
                "closed",
                "this was made before the process forked, and its threads are not here; make one in this process",
            )),
        }
    }
}

impl<T: Send + 'static> Drop for OfProcess<T> {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if self.process == std::process::id() {
            // Dropping may start tasks, which needs a runtime.
            let _in = crate::blocking::runtime().enter();
            drop(inner);
        } else {
            // It would wait for threads that are the parent's.
            std::mem::forget(inner);
        }
    }
}
