//! What the tests of several kernels share.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::{Isa, Pool};

/// Numbers between -2 and 2.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..len).map(|_| random.random_range(-2.0..2.0)).collect()
}

/// One thread and three, with each instruction set of this processor.
pub(crate) fn pools() -> impl Iterator<Item = Pool> {
    Isa::available().flat_map(|isa| [1, 3].map(|threads| Pool::with_isa(threads, isa)))
}

/// That every number is within `tolerance` of what it should be, relative to it where that is more than one.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= tolerance * want.abs().max(1.0), "number {index} is {got}, not {want}");
    }
}
