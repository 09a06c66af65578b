//! Events that follow every request cost no allocation. In a file of its own: it counts all allocations of
//! its process, by thread.

#![expect(unsafe_code, reason = "an allocator is unsafe by nature; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use opossum_actors::outbox::Outbox;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn pushing_allocates_nothing_even_into_a_full_outbox() {
    let outbox = Outbox::new(100);
    assert_eq!(allocations(|| (0..1_000).for_each(|event: u64| outbox.push([event; 8]))), 0);
    assert_eq!(outbox.overflowed(), 900);
    // The counter does count.
    assert_eq!(allocations(|| drop(Box::new(7))), 1);
}
