//! The tile registers and their instructions, which the compiler has no stable names for.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::bytes::Products;
use super::{Sums, Tile};

/// Bytes from one row of a tile to the next.
const STRIDE: usize = 64;

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

impl Configuration {
    /// All eight tiles with 16 rows of 64 bytes.
    const FULL: Self = Self::new([(16, 64); 3]);

    /// Palette 1, and the rows and the bytes of each for tiles 0 to 3 (sums), 4 and 5 (activations), 6 and 7 (weights).
    const fn new([sums, activations, weights]: [(u8, u8); 3]) -> Self {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            let (rows, width) = match tile {
                0..4 => sums,
                4..6 => activations,
                _ => weights,
            };
            bytes[16 + 2 * tile] = width;
            bytes[48 + tile] = rows;
            tile += 1;
        }
        Self(bytes)
    }

    /// # Safety
    /// The processor has the instruction, which reads 64 bytes.
    unsafe fn load(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) self.0.as_ptr(), options(readonly, nostack, preserves_flags));
        }
    }
}

/// Whether the processor has the tiles and the system lets this process use them.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| is_there() && is_permitted())
}

fn is_there() -> bool {
    const TILES: u32 = 1 << 24;
    const BF16_TILES: u32 = 1 << 22;
    const BYTE_TILES: u32 = 1 << 25;
    let has = |register: u32, bits: u32| register & bits == bits;
    is_x86_feature_detected!("avx512f") && has(__cpuid_count(7, 0).edx, TILES | BF16_TILES | BYTE_TILES)
}

/// Asks for the permission that Linux wants to give to each process, for all its threads.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of `arch_prctl(2)`.
    const REQUEST: libc::c_ulong = 0x1023;
    /// The state component of tile data.
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and changes nothing but what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The tiles of this thread, configured until this is dropped.
///
/// Tiles 0 to 3 are sums, 4 and 5 activations, 6 and 7 weights. The compiler uses no tile by itself, so they keep their
/// contents between the methods.
pub(crate) struct Configured(());

impl Configured {
    /// # Safety
    /// [`available`] holds.
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: the caller vouches for the instruction.
        unsafe { const { &Configuration::FULL }.load() };
        Self(())
    }

    /// Sets the sums to zero.
    pub(crate) fn zero(&self) {
        // SAFETY: the tiles are configured.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nomem, nostack, preserves_flags)
            );
        }
    }

    /// Reads the sums from memory.
    pub(super) fn load(&self, sums: &[Sums; 4]) {
        // SAFETY: the tiles are configured, and each source is 16 rows of 64 bytes, one behind the other.
        unsafe {
            asm!(
                "tileloadd tmm0, [{from} + {stride}]",
                "tileloadd tmm1, [{from} + {stride} + 1024]",
                "tileloadd tmm2, [{from} + {stride} + 2048]",
                "tileloadd tmm3, [{from} + {stride} + 3072]",
                from = in(reg) sums.as_ptr(),
                stride = in(reg) STRIDE,
                options(readonly, nostack, preserves_flags)
            );
        }
    }

    /// Adds the products of two tiles of activations with two of weights to the four sums.
    #[inline(always)]
    pub(crate) fn multiply(&self, x: [&Tile; 2], weights: [&Tile; 2]) {
        // SAFETY: the tiles are configured, and each operand is 16 rows of 64 bytes.
        unsafe {
            asm!(
                "tileloaddt1 tmm4, [{x0} + {stride}]",
                "tileloadd tmm6, [{w0} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{w1} + {stride}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloaddt1 tmm5, [{x1} + {stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                x0 = in(reg) &raw const *x[0],
                x1 = in(reg) &raw const *x[1],
                w0 = in(reg) &raw const *weights[0],
                w1 = in(reg) &raw const *weights[1],
                stride = in(reg) STRIDE,
                options(readonly, nostack, preserves_flags)
            );
        }
    }

    /// Copies the sums to memory.
    pub(crate) fn store(&self, sums: &mut [Sums; 4]) {
        // SAFETY: the tiles are configured, and each target is 16 rows of 64 bytes, one behind the other.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}], tmm0",
                "tilestored [{to} + {stride} + 1024], tmm1",
                "tilestored [{to} + {stride} + 2048], tmm2",
                "tilestored [{to} + {stride} + 3072], tmm3",
                to = in(reg) sums.as_mut_ptr(),
                stride = in(reg) STRIDE,
                options(nostack, preserves_flags)
            );
        }
    }
}

impl Configured {
    /// Copies the sums to a row-major matrix.
    ///
    /// # Safety
    /// It has 32 rows and columns from `to` on.
    pub(crate) unsafe fn store_rows(&self, to: *mut f32, stride: usize) {
        // SAFETY: the caller vouches for the target.
        unsafe {
            asm!(
                "tilestored [{upper} + {stride}], tmm0",
                "tilestored [{upper} + {stride} + 64], tmm1",
                "tilestored [{lower} + {stride}], tmm2",
                "tilestored [{lower} + {stride} + 64], tmm3",
                upper = in(reg) to,
                lower = in(reg) to.add(16 * stride),
                stride = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags)
            );
        }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        release();
    }
}

/// The tiles of this thread, configured for bytes until this is dropped.
pub(super) struct Bytes {
    tokens: usize,
}

impl Bytes {
    /// For so many tokens, at most 16, and so many quads of inputs, at most 16.
    ///
    /// # Safety
    /// [`available`] holds.
    pub(super) unsafe fn new(tokens: usize, quads: usize) -> Self {
        assert!((1..=16).contains(&tokens) && (1..=16).contains(&quads), "tiles have 16 rows at most");
        let (rows, inputs) = (tokens as u8, quads as u8);
        // SAFETY: the caller vouches for the instruction.
        unsafe { Configuration::new([(rows, 64), (rows, 4 * inputs), (inputs, 64)]).load() };
        Self { tokens }
    }

    /// The products of activations, whose tokens are `stride` bytes apart, and weights, whose quads are lines of 64 bytes.
    ///
    /// # Safety
    /// The activations may be read for all tokens, and the weights for all quads, that these tiles were made for.
    #[inline(always)]
    pub(super) unsafe fn multiply(&self, x: *const i8, stride: usize, weights: *const i8, to: &mut Products) {
        debug_assert!(to.0.len() >= self.tokens, "room for all tokens");
        // SAFETY: the tiles are configured; the caller vouches for what is read, and the products are long enough.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm4, [{x} + {stride}]",
                "tileloadd tmm6, [{weights} + {line}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tilestored [{to} + {line}], tmm0",
                x = in(reg) x,
                stride = in(reg) stride,
                weights = in(reg) weights,
                line = in(reg) STRIDE,
                to = in(reg) to.0.as_mut_ptr(),
                options(nostack, preserves_flags)
            );
        }
    }

    /// As [`Self::multiply`], with two tiles of weights.
    ///
    /// # Safety
    /// As [`Self::multiply`], for both.
    #[inline(always)]
    pub(super) unsafe fn multiply_two(
        &self,
        x: *const i8,
        stride: usize,
        weights: [*const i8; 2],
        to_left: &mut Products,
        to_right: &mut Products,
    ) {
        debug_assert!(to_left.0.len() >= self.tokens, "room for all tokens");
        // SAFETY: as in `multiply`.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tileloadd tmm4, [{x} + {stride}]",
                "tileloadd tmm6, [{left} + {line}]",
                "tileloadd tmm7, [{right} + {line}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm7",
                "tilestored [{to_left} + {line}], tmm0",
                "tilestored [{to_right} + {line}], tmm1",
                x = in(reg) x,
                stride = in(reg) stride,
                left = in(reg) weights[0],
                right = in(reg) weights[1],
                line = in(reg) STRIDE,
                to_left = in(reg) to_left.0.as_mut_ptr(),
                to_right = in(reg) to_right.0.as_mut_ptr(),
                options(nostack, preserves_flags)
            );
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        release();
    }
}

/// Released, the tiles cost nothing when threads are switched.
fn release() {
    // SAFETY: whoever calls this has configured the tiles.
    unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
}
