//! How the weights of a matrix are stored: in a GGUF file, and packed.

/// Output rows that lie interleaved in a packed matrix.
pub(super) const TILE: usize = 16;

/// Inputs that share one scale of the activations.
pub(super) const BLOCK: usize = 32;

/// Number formats of stored weights, each with the block layout of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the GGUF format")]
pub enum Format {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Numbers in one stored block.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one stored block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of one stored row, if rows of this length exist in this format.
    #[must_use]
    pub fn row_bytes(self, inputs: usize) -> Option<usize> {
        let blocks = inputs / self.block_len();
        if blocks * self.block_len() == inputs { blocks.checked_mul(self.block_bytes()) } else { None }
    }

    /// How its codes and scales lie in a packed matrix; none for the formats that are plain floats.
    pub(super) const fn layout(self) -> Option<Layout> {
        let layout = match self {
            Self::F32 | Self::F16 | Self::BF16 => return None,
            Self::Q4_0 => Layout { bits: 4, offset: 8, minimum: false, super_block: false },
            Self::Q4_1 => Layout { bits: 4, offset: 0, minimum: true, super_block: false },
            Self::Q5_0 => Layout { bits: 5, offset: 16, minimum: false, super_block: false },
            Self::Q5_1 => Layout { bits: 5, offset: 0, minimum: true, super_block: false },
            Self::Q8_0 => Layout { bits: 8, offset: 128, minimum: false, super_block: false },
            Self::Q4K => Layout { bits: 4, offset: 0, minimum: true, super_block: true },
            Self::Q5K => Layout { bits: 5, offset: 0, minimum: true, super_block: true },
            Self::Q6K => Layout { bits: 6, offset: 32, minimum: false, super_block: true },
        };
        Some(layout)
    }

    /// Inputs of one packed unit: what [`Format::unit_bytes`] counts.
    pub(super) const fn unit_len(self) -> usize {
        self.block_len()
    }

    /// Bytes that a packed tile of [`TILE`] rows takes for [`Format::unit_len`] inputs.
    pub(super) const fn unit_bytes(self) -> usize {
        match self.layout() {
            Some(layout) => layout.unit_bytes(),
            None => TILE * self.block_bytes(),
        }
    }
}

/// A packed unit of a quantized format: sixteen rows, side by side, by one stored block of inputs.
///
/// A weight is `scale * (code - offset) - minimum`, where the code is an unsigned number of `bits` bits. A unit is
/// a header (super blocks only: `f16 scale[16]` and, with minima, `f16 minimum[16]`) and then a group for each 32
/// inputs:
/// - scales: `f16 scale[16]`, or in a super block `u8 scale[16]` that multiply the header's (Q6_K: `i8 scale[2][16]`,
///   one for each 16 inputs);
/// - minima, where the format has them, as the scales. Plain formats add theirs, super blocks subtract them;
/// - upper bits of codes of 5 bits (64 bytes, bit `g` belongs to quad `g`) or 6 bits (128 bytes, 2 bits a quad, first
///   quads 0 to 3, then 4 to 7);
/// - lower bits: 256 bytes, quads 0 to 3 in the low nibbles and 4 to 7 in the high ones; codes of 8 bits take 512 bytes.
///
/// A quad is four consecutive inputs of every row: byte `4 * row + input`, 64 bytes in all. This is the order in which
/// one instruction multiplies and adds for sixteen rows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) bits: usize,
    pub(super) offset: i32,
    pub(super) minimum: bool,
    pub(super) super_block: bool,
}

impl Layout {
    /// Groups of 32 inputs in a unit.
    pub(super) const fn groups(self) -> usize {
        if self.super_block { 8 } else { 1 }
    }

    /// Whether each 16 inputs have a scale of their own (Q6_K).
    pub(super) const fn split(self) -> bool {
        self.bits == 6
    }

    pub(super) const fn header_bytes(self) -> usize {
        if self.super_block { if self.minimum { 4 * TILE } else { 2 * TILE } } else { 0 }
    }

    pub(super) const fn scale_bytes(self) -> usize {
        if self.super_block && !self.split() { TILE } else { 2 * TILE }
    }

    pub(super) const fn minimum_bytes(self) -> usize {
        if self.minimum { self.scale_bytes() } else { 0 }
    }

    pub(super) const fn upper_bytes(self) -> usize {
        match self.bits {
            5 => 64,
            6 => 128,
            _ => 0,
        }
    }

    pub(super) const fn lower_bytes(self) -> usize {
        if self.bits == 8 { TILE * BLOCK } else { TILE * BLOCK / 2 }
    }

    pub(super) const fn group_bytes(self) -> usize {
        self.scale_bytes() + self.minimum_bytes() + self.upper_bytes() + self.lower_bytes()
    }

    pub(super) const fn unit_bytes(self) -> usize {
        self.header_bytes() + self.groups() * self.group_bytes()
    }
}
