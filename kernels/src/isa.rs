//! Which vector instructions this processor has.

/// An instruction set that kernels are written for, from plain to wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What every processor has.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ and VNNI, with all of [`Isa::Avx2`].
    Avx512Vnni,
    /// [`Isa::Avx512Vnni`] with BF16, and tile registers (AMX) that multiply BF16.
    Amx,
}

impl Isa {
    /// The widest set that this processor has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().next_back().unwrap_or(Self::Portable)
    }

    /// Every set that this processor can run, plain first. Tests run each.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512Vnni, Self::Amx].into_iter().filter(|isa| isa.is_there())
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_there(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
        };
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512Vnni => avx512(),
            Self::Amx => {
                avx512() && is_x86_feature_detected!("avx512bf16") && crate::matrix::tiles_are_available()
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn is_there(self) -> bool {
        self == Self::Portable
    }
}
