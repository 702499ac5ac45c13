//! The edit list that a guest answers with: whatever it is, it is refused, or every edit of it can be read.
#![no_main]

use gristmill_records::{Edit, EditBounds, Edits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, Vec<u32>, Vec<u8>)| {
    let (rows, outputs, operations, data) = input;
    let rows = usize::from(rows);
    let edits = Edits::new(&operations, &data);
    let bounds = EditBounds { rows, outputs: u32::from(outputs) + 1, max_records: 1_000, max_bytes: 1 << 16 };
    let Ok(counts) = edits.check(&bounds) else { return };
    let (mut kept, mut dropped, mut rejected, mut emitted) = (0, 0, 0, 0);
    for edit in Edits::new(&operations, &data) {
        match edit {
            Edit::Keep(n) => kept += n,
            Edit::Drop(n) => dropped += n,
            Edit::Change(change) => {
                kept += 1;
                assert!(change.output <= u32::from(outputs));
                change.headers.into_iter().flatten().for_each(|header| assert!(header.name.len() <= data.len()));
            }
            Edit::Emit(emit) => {
                emitted += 1;
                assert!(emit.output <= u32::from(outputs));
                emit.headers.into_iter().for_each(|header| assert!(header.name.len() <= data.len()));
            }
            Edit::Reject { code, message } => {
                rejected += 1;
                assert!(!code.is_empty() && message.len() <= data.len());
            }
        }
    }
    assert_eq!(kept + dropped + rejected, rows);
    assert_eq!((kept, dropped), (counts.kept as usize, counts.dropped as usize));
    assert_eq!((rejected, emitted), (counts.rejected as usize, counts.emitted as usize));
});
