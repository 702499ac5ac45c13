//! The transform behind two C functions, compiled for this machine: what `gristmill transform bench --native` compares the
//! component with. Exported where the macros expand with `GRISTMILL_NATIVE_EXPORT` in their environment, and nowhere else.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gristmill_records::Rows;

use crate::Transform;
use crate::columns::{ColumnState, ColumnTransform, Field};
use crate::run::State;

/// Bytes that the caller keeps during the call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    start: *const u8,
    bytes: usize,
}

type Configure = unsafe extern "C" fn(*const Part, usize) -> *mut c_void;
type Apply = unsafe extern "C" fn(*mut c_void, usize, *const Part, usize) -> i64;

/// What the library exports as `GRISTMILL_NATIVE`.
#[repr(C)]
#[derive(Debug)]
pub struct NativeExports {
    /// Of this struct and of what its functions take.
    version: u32,
    /// 1: of columns, 0: of records.
    columns: u32,
    /// Configuration, topic, and of columns the fields as JSON. Null: refused; why is on standard error.
    configure: Configure,
    /// What `configure` gave, so many rows, and: index, keys, values, headers, timestamps, offsets of records; layout and
    /// buffers of columns. The words of the answer; -1: it panicked.
    apply: Apply,
}

impl NativeExports {
    /// Of a transform of records.
    pub const fn of_records<T: Transform>() -> Self {
        NativeExports { version: 1, columns: 0, configure: configure_records::<T>, apply: apply_records::<T> }
    }

    /// Of a transform of columns.
    pub const fn of_columns<T: ColumnTransform>() -> Self {
        NativeExports { version: 1, columns: 1, configure: configure_columns::<T>, apply: apply_columns::<T> }
    }
}

/// # Safety
/// As many parts as said, each of as many bytes as it says, which stay as they are while they are looked at.
unsafe fn parts<'a, const N: usize>(parts: *const Part, count: usize) -> [&'a [u8]; N] {
    assert_eq!(count, N, "the caller is of another version");
    // SAFETY: the caller's promise.
    let parts = unsafe { std::slice::from_raw_parts(parts, count) };
    std::array::from_fn(|i| {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(parts[i].start, parts[i].bytes) }
    })
}

fn made<S>(state: impl FnOnce() -> Result<S, String>) -> *mut c_void {
    match catch_unwind(AssertUnwindSafe(state)) {
        Ok(Ok(state)) => Box::into_raw(Box::new(state)).cast(),
        Ok(Err(refusal)) => {
            eprintln!("the native build refuses its configuration: {refusal}");
            std::ptr::null_mut()
        }
        Err(_) => std::ptr::null_mut(),
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|e| e.to_string())
}

unsafe extern "C" fn configure_records<T: Transform>(given: *const Part, count: usize) -> *mut c_void {
    made(|| {
        // SAFETY: as this function's caller promises.
        let [config, topic] = unsafe { parts(given, count) };
        State::<T>::new(text(config)?, text(topic)?, 0)
    })
}

unsafe extern "C" fn configure_columns<T: ColumnTransform>(given: *const Part, count: usize) -> *mut c_void {
    made(|| {
        // SAFETY: as this function's caller promises.
        let [config, topic, fields] = unsafe { parts(given, count) };
        let fields: Vec<Field> = serde_json::from_slice(fields).map_err(|e| e.to_string())?;
        ColumnState::<T>::new(text(config)?, text(topic)?, 0, &fields).map(|(state, _)| state)
    })
}

unsafe extern "C" fn apply_records<T: Transform>(
    state: *mut c_void,
    _: usize,
    given: *const Part,
    count: usize,
) -> i64 {
    let words = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as this function's caller promises; the state is what `configure_records` gave, of one thread.
        let ([index, keys, values, headers, timestamps, offsets], state) =
            unsafe { (parts(given, count), &mut *state.cast::<State<T>>()) };
        let cast = bytemuck::cast_slice::<u8, i64>;
        let rows = Rows {
            index: bytemuck::cast_slice(index),
            keys,
            values,
            headers,
            timestamps: cast(timestamps),
            offsets: cast(offsets),
        };
        let (operations, data) = state.apply(rows);
        operations.len() + data.len()
    }));
    words.map_or(-1, |words| words as i64)
}

unsafe extern "C" fn apply_columns<T: ColumnTransform>(
    state: *mut c_void,
    rows: usize,
    given: *const Part,
    count: usize,
) -> i64 {
    let words = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as this function's caller promises; the state is what `configure_columns` gave, of one thread.
        let ([layout, buffers], state) =
            unsafe { (parts(given, count), &mut *state.cast::<ColumnState<T>>()) };
        let answer = state.apply(rows, bytemuck::cast_slice(layout), bytemuck::cast_slice(buffers));
        answer.operations.len() + answer.data.len() + answer.columns.buffers.len()
    }));
    words.map_or(-1, |words| words as i64)
}
