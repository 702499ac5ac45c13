//! The sizes of the allocator's blocks: steps of 16 up to 64 bytes, then four for each power of two. All are
//! multiples of 16, and no block is more than a quarter larger than what it holds, small ones aside.

/// Number of sizes.
pub(crate) const CLASSES: usize = 104;

/// The largest size.
pub(crate) const LARGEST: usize = 1 << 31;

/// The smallest class whose blocks hold `size` bytes, 1 to [`LARGEST`].
pub(crate) fn class(size: usize) -> usize {
    if size <= 64 {
        return size.saturating_sub(1) / 16;
    }
    let last = size - 1;
    let doubling = last.ilog2() as usize;
    4 + (doubling - 6) * 4 + ((last >> (doubling - 2)) & 3)
}

/// The size of a class's blocks.
pub(crate) fn class_size(class: usize) -> usize {
    match class.checked_sub(4) {
        None => (class + 1) * 16,
        Some(class) => (5 + class % 4) << (class / 4 + 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_its_class_and_not_the_one_below() {
        let edges = (4..=31).flat_map(|n| [(1usize << n) - 1, 1 << n, (1 << n) + 1]);
        for size in (1..5000).chain(edges).filter(|s| *s <= LARGEST) {
            let class = class(size);
            assert!(class < CLASSES && class_size(class) >= size, "{size}");
            assert!(class_size(class).is_multiple_of(16), "{size}");
            assert!(class == 0 || class_size(class - 1) < size, "{size}");
            assert!(size <= 64 || class_size(class) * 4 <= size * 5, "{size}");
        }
    }
}
