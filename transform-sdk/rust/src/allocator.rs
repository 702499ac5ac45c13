//! The allocator of a guest: free lists by size over memory that only grows, everything aligned to 16.
//!
//! The host fills buffers that it allocates here, so these are aligned for vector loads although the
//! contract asks for bytes. A block never changes its size: what a batch needs, the next one finds.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

use crate::size_class::{CLASSES, LARGEST, class, class_size};

#[global_allocator]
static GLOBAL: Lists = Lists(UnsafeCell::new(Heap { free: [null_mut(); CLASSES], next: 0, end: 0 }));

const PAGE: usize = 64 * 1024;
const ALIGN: usize = 16;
/// Before every block's bytes. As long as the alignment.
#[repr(C, align(16))]
struct Head {
    class: usize,
    /// From the start of the block to the bytes; more than one head where a wide alignment was asked for.
    offset: usize,
}

struct Heap {
    /// Blocks of each size; the first word of a free block points to the next.
    free: [*mut u8; CLASSES],
    /// Memory that was never given out.
    next: usize,
    end: usize,
}

struct Lists(UnsafeCell<Heap>);

// SAFETY: a component instance has one thread.
unsafe impl Sync for Lists {}

// SAFETY: blocks are disjoint, as large as their class, aligned to 16, and given out once until freed.
unsafe impl GlobalAlloc for Lists {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and nothing here calls back.
        let heap = unsafe { &mut *self.0.get() };
        let wide = if layout.align() > ALIGN { layout.align() } else { 0 };
        let Some(size) = layout.size().checked_add(size_of::<Head>() + wide) else { return null_mut() };
        if size > LARGEST {
            return null_mut();
        }
        let class = class(size);
        let mut block = heap.free[class];
        if block.is_null() {
            block = heap.fresh(class_size(class));
            if block.is_null() {
                return null_mut();
            }
        } else {
            // SAFETY: a free block begins with a pointer to the next one.
            heap.free[class] = unsafe { block.cast::<*mut u8>().read() };
        }
        let mut bytes = block as usize + size_of::<Head>();
        if wide > 0 {
            bytes = bytes.next_multiple_of(wide);
        }
        let head = Head { class, offset: bytes - block as usize };
        // SAFETY: the head lies before the bytes and inside the block.
        unsafe { ((bytes - size_of::<Head>()) as *mut Head).write(head) };
        bytes as *mut u8
    }

    unsafe fn dealloc(&self, bytes: *mut u8, _: Layout) {
        // SAFETY: as in `alloc`; `bytes` came from there, so its head is before it.
        unsafe {
            let heap = &mut *self.0.get();
            let Head { class, offset } = bytes.sub(size_of::<Head>()).cast::<Head>().read();
            let block = bytes.sub(offset);
            block.cast::<*mut u8>().write(heap.free[class]);
            heap.free[class] = block;
        }
    }

    unsafe fn realloc(&self, bytes: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `bytes` came from `alloc` with `layout`.
        unsafe {
            let Head { class, offset } = bytes.sub(size_of::<Head>()).cast::<Head>().read();
            if new_size <= class_size(class) - offset {
                return bytes;
            }
            let Ok(wanted) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(bytes, layout.size());
                self.dealloc(bytes, layout);
            }
            moved
        }
    }
}

impl Heap {
    fn fresh(&mut self, size: usize) -> *mut u8 {
        if self.end - self.next < size {
            // A batch's arenas come and go at one size each; growing in steps saves calls, not memory.
            let pages = size.div_ceil(PAGE).max(4);
            let old = memory_grow(0, pages);
            if old == usize::MAX {
                return null_mut();
            }
            // Memory that was grown right after ours continues it.
            if old * PAGE != self.end {
                self.next = old * PAGE;
            }
            self.end = memory_size(0).saturating_mul(PAGE);
        }
        let block = self.next;
        self.next += size;
        block as *mut u8
    }
}
