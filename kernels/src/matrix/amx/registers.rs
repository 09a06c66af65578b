//! The tile registers and their instructions, which the compiler has no stable names for.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::{Sums, Tile};

/// Bytes from one row of a tile to the next.
const STRIDE: usize = 64;

/// Rows of each of the eight tiles.
const ROWS: u8 = 16;

/// What `ldtilecfg` reads: palette 1, 64 bytes a row, 16 rows, for all eight tiles.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

static CONFIGURATION: Configuration = Configuration(configuration());

const fn configuration() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = STRIDE as u8;
        bytes[48 + tile] = ROWS;
        tile += 1;
    }
    bytes
}

/// Whether the processor has the tiles and the system lets this process use them.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| is_there() && is_permitted())
}

fn is_there() -> bool {
    const TILES: u32 = 1 << 24;
    const BF16_TILES: u32 = 1 << 22;
    let has = |register: u32, bits: u32| register & bits == bits;
    is_x86_feature_detected!("avx512f") && has(__cpuid_count(7, 0).edx, TILES | BF16_TILES)
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
pub(super) struct Configured(());

impl Configured {
    /// # Safety
    /// [`available`] holds.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller vouches for the instruction; it reads 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) CONFIGURATION.0.as_ptr(), options(nostack, preserves_flags));
        }
        Self(())
    }

    /// Sets the sums to zero.
    pub(super) fn zero(&self) {
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

    /// Adds the products of two tiles of activations with two of weights to the four sums.
    #[inline(always)]
    pub(super) fn multiply(&self, x: [&Tile; 2], weights: [&Tile; 2]) {
        // SAFETY: the tiles are configured, and each operand is 16 rows of 64 bytes.
        unsafe {
            asm!(
                "tileloadd tmm4, [{x0} + {stride}]",
                "tileloadd tmm6, [{w0} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{w1} + {stride}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{x1} + {stride}]",
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
    pub(super) fn store(&self, sums: &mut [Sums; 4]) {
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

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured. Released, they cost nothing when threads are switched.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
