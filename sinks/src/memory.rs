//! One budget for the open files of all partitions of a sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that the open entries of all partitions hold together.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: usize,
    held: AtomicUsize,
    /// Open entries that hold anything.
    holders: AtomicUsize,
}

impl MemoryBudget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(MemoryBudget { limit, held: AtomicUsize::new(0), holders: AtomicUsize::new(0) })
    }
}

/// What one open entry holds. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryShare {
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> Self {
        MemoryShare { budget: budget.clone(), bytes: 0 }
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        let b = &self.budget;
        match (self.bytes, bytes) {
            (0, 1..) => b.holders.fetch_add(1, Ordering::Relaxed),
            (1.., 0) => b.holders.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        b.held.fetch_add(bytes, Ordering::Relaxed);
        b.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// Whether the budget is spent and this entry holds more than its part: then it is the one that has to give
    /// back. Of the holders of a budget that is spent, one at least does.
    pub(crate) fn has_to_give(&self) -> bool {
        let b = &self.budget;
        let holders = b.holders.load(Ordering::Relaxed).max(1);
        b.held.load(Ordering::Relaxed) > b.limit && self.bytes > b.limit / holders
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_more_than_a_part_of_a_spent_budget_has_to_give() {
        let budget = MemoryBudget::new(100);
        let (mut large, mut small) = (MemoryShare::new(&budget), MemoryShare::new(&budget));
        large.set(90);
        assert!(!large.has_to_give());
        small.set(20);
        assert!(large.has_to_give() && !small.has_to_give());
        large.set(70);
        assert!(!large.has_to_give());
        drop(small);
        large.set(101);
        assert!(large.has_to_give(), "alone, everything is its part");
        drop(large);
        assert_eq!((budget.held.load(Ordering::Relaxed), budget.holders.load(Ordering::Relaxed)), (0, 0));
    }
}
