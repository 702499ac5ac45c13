//! The columns that a guest answers with: whatever they are, they are refused, or they are valid Arrow.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<u32>, Vec<u64>)| {
    let (rows, layout, buffers) = input;
    gristmill_smt::fuzzing::columns(usize::from(rows), &layout, buffers);
});
