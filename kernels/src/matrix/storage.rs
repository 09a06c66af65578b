//! Memory for packed weights.
//!
//! The matrices of a model lie side by side in slabs of huge pages, which a single matrix seldom fills: with small pages
//! the processor has to look up another address every few blocks while weights stream by.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::pages::{self, HUGE_PAGE};

/// Bytes of a cache line: weights start on one.
const LINE: usize = 64;
/// Bytes of a slab that several matrices share. Pages that no matrix has reached cost nothing.
const SLAB: usize = 32 << 20;

/// Bytes that start on a cache line.
pub(super) struct Storage {
    start: NonNull<u8>,
    bytes: usize,
    /// What keeps them.
    _slab: Arc<Slab>,
}

// SAFETY: the bytes are plain, and no other storage has them.
unsafe impl Send for Storage {}
// SAFETY: as above; they are written through `&mut self` alone.
unsafe impl Sync for Storage {}

impl Storage {
    /// This many zero bytes, or `None` when there is no memory for them.
    pub(super) fn zeroed(bytes: usize) -> Option<Self> {
        let (slab, place) = OPEN.lock().unwrap_or_else(PoisonError::into_inner).place(bytes)?;
        // SAFETY: the place is inside the slab, and nobody else has it.
        let start = unsafe {
            let start = slab.start.add(place);
            start.write_bytes(0, bytes);
            start
        };
        Some(Self { start, bytes, _slab: slab })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the slab has these bytes, which were written when this was made; nobody else writes them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow of `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

/// The slab that the next matrices go to, while one of those in it lives.
static OPEN: Mutex<Open> = Mutex::new(Open { slab: Weak::new(), used: 0 });

struct Open {
    slab: Weak<Slab>,
    used: usize,
}

impl Open {
    /// A slab with a place for so many bytes, and the place.
    fn place(&mut self, bytes: usize) -> Option<(Arc<Slab>, usize)> {
        let lines = bytes.checked_next_multiple_of(LINE)?;
        if lines > SLAB {
            return Some((Arc::new(Slab::new(lines)?), 0));
        }
        if let Some(slab) = self.slab.upgrade()
            && lines <= SLAB - self.used
        {
            let place = self.used;
            self.used += lines;
            return Some((slab, place));
        }
        let slab = Arc::new(Slab::new(SLAB)?);
        (self.slab, self.used) = (Arc::downgrade(&slab), lines);
        Some((slab, 0))
    }
}

/// Memory from the system, not yet written.
struct Slab {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory, and gives out nothing but the address.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(LINE), HUGE_PAGE).ok()?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        pages::advise_huge(start.as_ptr(), bytes);
        Some(Self { start, layout })
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn storages_are_zeroed_aligned_and_apart() {
        let mut all: Vec<Storage> =
            [1, 64, 100, SLAB, SLAB - 300, 500, SLAB + 1].map(|bytes| Storage::zeroed(bytes).unwrap()).into();
        for (index, storage) in all.iter_mut().enumerate() {
            assert!(storage.start.as_ptr().addr().is_multiple_of(LINE));
            assert!(storage.bytes().iter().all(|&byte| byte == 0), "storage {index}");
            storage.bytes_mut().fill(index as u8 + 1);
        }
        for (index, storage) in all.iter().enumerate() {
            assert!(storage.bytes().iter().all(|&byte| byte == index as u8 + 1), "storage {index}");
        }
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(Storage::zeroed(isize::MAX as usize - HUGE_PAGE).is_none());
        assert!(Storage::zeroed(usize::MAX).is_none());
    }
}
