//! The keys and values of all sequences of one model, in blocks that sequences borrow by number (Kwon et al. 2023,
//! arXiv:2309.06180).

use std::alloc::{Layout, alloc_zeroed};
use std::cell::UnsafeCell;

use half::f16;

use crate::simd::{Kernel, MAX_LANES, Simd, dispatch};
use crate::{Isa, Pool, pages};

/// Tokens in a block.
pub const BLOCK_TOKENS: usize = 32;
/// Bytes that vectors are aligned to, so that none of them lies across two cache lines.
const ALIGNMENT: usize = 64;

/// How a [`KvStore`] is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub layers: usize,
    /// Heads of keys and values in a layer.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub dim: usize,
    /// Blocks for all sequences together.
    pub blocks: usize,
}

impl KvShape {
    /// Bytes of one block over all layers; none if a dimension is zero or the number is out of range.
    #[must_use]
    pub fn bytes_per_block(&self) -> Option<usize> {
        let per_token = self.dim.checked_add(self.padded()?)?;
        let elements = [BLOCK_TOKENS, self.kv_heads, self.layers]
            .into_iter()
            .try_fold(per_token, |all, n| (n > 0).then(|| all.checked_mul(n)).flatten())?;
        (self.dim > 0).then(|| elements.checked_mul(size_of::<f16>())).flatten()
    }

    /// Elements from one value row to the next: whole vectors.
    fn padded(&self) -> Option<usize> {
        self.dim.checked_next_multiple_of(MAX_LANES)
    }
}

/// Why there is no [`KvStore`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// A dimension is zero, or there are more bytes than can be addressed.
    #[error("a cache of {0:?} is empty or larger than memory can be")]
    Shape(KvShape),
    /// The system refused the memory.
    #[error("no memory for a cache of {bytes} bytes")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
}

/// Keys and values in half precision, `[block, layer, head]`; memory is taken from the system when it is first
/// written.
///
/// Within a head the keys are `[dim, token]`, so that one vector holds the same dimension of many tokens and scores
/// need no sum across a vector; the values are `[token, dim]`, for the same reason.
#[derive(Debug)]
pub struct KvStore {
    shape: KvShape,
    padded: usize,
    /// Elements of one head in one block: keys, then values.
    per_head: usize,
    /// Elements of one block.
    per_block: usize,
    /// In cells, because threads may write heads of some blocks while others read what lies elsewhere.
    memory: Box<[UnsafeCell<f16>]>,
    /// The first element that is aligned.
    start: usize,
}

// SAFETY: `write_head` is the only way to write through a shared store, and its callers vouch for that.
unsafe impl Sync for KvStore {}

impl KvStore {
    /// An empty store.
    ///
    /// # Errors
    /// If the shape makes no sense or the memory is refused.
    pub fn new(shape: KvShape) -> Result<Self, KvError> {
        let bytes = (|| shape.bytes_per_block()?.checked_mul(shape.blocks))().ok_or(KvError::Shape(shape))?;
        let padded = shape.padded().ok_or(KvError::Shape(shape))?;
        let elements = (bytes + ALIGNMENT) / size_of::<u16>();
        let memory = zeroed(elements).ok_or(KvError::Memory { bytes })?;
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT / size_of::<u16>());
        let per_head = BLOCK_TOKENS * (shape.dim + padded);
        Ok(Self {
            shape,
            padded,
            per_head,
            per_block: per_head * shape.kv_heads * shape.layers,
            memory,
            start,
        })
    }

    /// How it is laid out.
    #[must_use]
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Writes the keys and values of the next tokens of one sequence, both `[tokens, kv_heads, dim]`.
    ///
    /// `blocks` is the sequence's table; the first of the tokens is at position `past`.
    ///
    /// # Panics
    /// If a tensor is of another shape, or the table ends too early or names a block that is not there.
    pub fn append(
        &mut self,
        pool: &Pool,
        layer: usize,
        blocks: &[u32],
        past: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let width = self.shape.kv_heads * self.shape.dim;
        assert!(keys.len() == values.len() && keys.len().is_multiple_of(width), "tensors of one shape");
        let rows = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (position, (keys, values)) in (past..).zip(rows) {
            let block = blocks[position / BLOCK_TOKENS];
            self.write(pool.isa(), layer, block, position % BLOCK_TOKENS, keys, values);
        }
    }

    /// Makes block `to` equal to block `from` in all layers.
    ///
    /// # Panics
    /// If one of them is not there.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let (from, to) = (self.block(from), self.block(to));
        for element in 0..self.per_block {
            *self.memory[to + element].get_mut() = *self.memory[from + element].get_mut();
        }
    }

    /// Elements from one value row to the next.
    pub(crate) fn value_stride(&self) -> usize {
        self.padded
    }

    /// Keys, `[dim, BLOCK_TOKENS]`, and values, `[BLOCK_TOKENS, value_stride]`, of one head in one block.
    pub(crate) fn head(&self, layer: usize, block: u32, head: usize) -> (&[f16], &[f16]) {
        let cells = self.cells(layer, block, head);
        // SAFETY: as many elements as the cells; whoever writes them while the store is shared vouches that nobody reads.
        let all = unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<f16>(), cells.len()) };
        all.split_at(self.shape.dim * BLOCK_TOKENS)
    }

    fn write(&mut self, isa: Isa, layer: usize, block: u32, slot: usize, keys: &[f32], values: &[f32]) {
        let dim = self.shape.dim;
        for (head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
            dispatch(isa, Write { store: self, layer, block, head, slot, key, value });
        }
    }

    /// Writes the key and the value of one head of one token.
    ///
    /// # Safety
    /// No other thread reads or writes this head of this block.
    #[inline(always)]
    pub(crate) unsafe fn write_head<S: Simd>(
        &self,
        s: S,
        (layer, block, head): (usize, u32, usize),
        slot: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let cells = self.cells(layer, block, head);
        let start = UnsafeCell::raw_get(cells.as_ptr());
        // SAFETY: as many elements as the cells; the caller vouches that they are nobody else's.
        let all = unsafe { std::slice::from_raw_parts_mut(start, cells.len()) };
        let (keys, values) = all.split_at_mut(self.shape.dim * BLOCK_TOKENS);
        Scatter { from: key, to: &mut keys[slot..] }.run(s);
        Narrow { from: value, to: &mut values[slot * self.padded..][..self.shape.dim] }.run(s);
    }

    /// One head in one block.
    fn cells(&self, layer: usize, block: u32, head: usize) -> &[UnsafeCell<f16>] {
        let start = self.head_start(layer, block, head);
        &self.memory[start..start + self.per_head]
    }

    fn head_start(&self, layer: usize, block: u32, head: usize) -> usize {
        let KvShape { layers, kv_heads, .. } = self.shape;
        assert!(layer < layers && head < kv_heads, "a layer and a head of the store");
        self.block(block) + (layer * kv_heads + head) * self.per_head
    }

    fn block(&self, block: u32) -> usize {
        let block = block as usize;
        assert!(block < self.shape.blocks, "a block of the store");
        self.start + block * self.per_block
    }
}

/// Memory that the system gives as zeros, and for real only once it is written.
fn zeroed(elements: usize) -> Option<Box<[UnsafeCell<f16>]>> {
    let layout = Layout::array::<UnsafeCell<f16>>(elements).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) };
    if !start.is_null() {
        pages::advise_huge(start, layout.size());
    }
    let start = start.cast::<UnsafeCell<f16>>();
    // SAFETY: just allocated with the layout of this slice by the allocator of boxes; zeros are valid numbers.
    (!start.is_null()).then(|| unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, elements)) })
}

/// [`KvStore::write_head`] of a store that is borrowed alone.
struct Write<'a> {
    store: &'a mut KvStore,
    layer: usize,
    block: u32,
    head: usize,
    slot: usize,
    key: &'a [f32],
    value: &'a [f32],
}

impl Kernel for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { store, layer, block, head, slot, key, value } = self;
        // SAFETY: the store is borrowed mutably.
        unsafe { store.write_head(s, (layer, block, head), slot, key, value) };
    }
}

/// Writes numbers in half precision, one to each column of [`BLOCK_TOKENS`].
struct Scatter<'a> {
    from: &'a [f32],
    to: &'a mut [f16],
}

impl Kernel for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = self.to.chunks_mut(S::LANES * BLOCK_TOKENS);
        for (from, to) in self.from.chunks(S::LANES).zip(columns) {
            let mut halves = [f16::ZERO; MAX_LANES];
            narrow(s, from, &mut halves[..from.len()]);
            for (half, column) in halves[..from.len()].iter().zip(to.chunks_mut(BLOCK_TOKENS)) {
                column[0] = *half;
            }
        }
    }
}

/// Writes numbers in half precision.
struct Narrow<'a> {
    from: &'a [f32],
    to: &'a mut [f16],
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (from, to) in self.from.chunks(S::LANES).zip(self.to.chunks_mut(S::LANES)) {
            narrow(s, from, to);
        }
    }
}

/// At most one vector.
#[inline(always)]
fn narrow<S: Simd>(s: S, from: &[f32], to: &mut [f16]) {
    assert!(from.len() == to.len() && from.len() <= S::LANES, "no more than a vector");
    if from.len() == S::LANES {
        // SAFETY: both slices are as long as a vector.
        unsafe { s.store_half(to.as_mut_ptr(), s.load(from.as_ptr())) };
    } else {
        let mut halves = [f16::ZERO; MAX_LANES];
        // SAFETY: the array is at least as long as a vector.
        unsafe { s.store_half(halves.as_mut_ptr(), s.read_short(from)) };
        to.copy_from_slice(&halves[..from.len()]);
    }
}

#[cfg(test)]
mod tests;
