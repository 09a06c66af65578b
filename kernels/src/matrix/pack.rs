//! Stored blocks into packed tiles.
//!
//! Stored layouts: `ggml-common.h` of the ggml library; each function restates its block. All are little-endian.

use super::format::{BLOCK, Format, Layout, TILE};
use super::storage::Storage;
use super::{PackError, ReadRows};

/// Packs a matrix tile by tile, so that no more than sixteen stored rows are in memory beside it.
pub(super) fn pack(
    format: Format,
    outputs: usize,
    inputs: usize,
    read: &mut ReadRows<'_>,
    order: Option<&[usize]>,
) -> Result<Storage, PackError> {
    let row_bytes = format.row_bytes(inputs).ok_or(PackError::Inputs { format, inputs })?;
    if outputs == 0 || inputs == 0 {
        return Err(PackError::Empty { outputs, inputs });
    }
    if order.is_some_and(|order| order.len() != outputs || order.iter().any(|&row| row >= outputs)) {
        return Err(PackError::Order { outputs });
    }
    let tile_bytes = inputs / format.unit_len() * format.unit_bytes();
    let mut packed = outputs
        .div_ceil(TILE)
        .checked_mul(tile_bytes)
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .and_then(Storage::zeroed)
        .ok_or(PackError::TooLarge { outputs, inputs })?;
    let mut rows = vec![0; TILE * row_bytes];
    for (index, tile) in packed.bytes_mut().chunks_exact_mut(tile_bytes).enumerate() {
        let first = index * TILE;
        let count = TILE.min(outputs - first);
        read_tile(read, first, order, &mut rows[..count * row_bytes], row_bytes)?;
        for (row, stored) in rows[..count * row_bytes].chunks_exact(row_bytes).enumerate() {
            pack_row(format, stored, row, tile);
        }
    }
    Ok(packed)
}

fn read_tile(
    read: &mut ReadRows<'_>,
    first: usize,
    order: Option<&[usize]>,
    rows: &mut [u8],
    row_bytes: usize,
) -> Result<(), PackError> {
    let Some(order) = order else {
        return Ok(read(first, rows)?);
    };
    for (&stored, row) in order[first..].iter().zip(rows.chunks_exact_mut(row_bytes)) {
        read(stored, row)?;
    }
    Ok(())
}

/// Puts one stored row into its place in a tile.
fn pack_row(format: Format, stored: &[u8], row: usize, tile: &mut [u8]) {
    let blocks = stored.chunks_exact(format.block_bytes());
    let units = tile.chunks_exact_mut(format.unit_bytes());
    let Some(layout) = format.layout() else {
        let bytes = format.block_bytes();
        blocks
            .zip(units)
            .for_each(|(block, unit)| unit[bytes * row..bytes * (row + 1)].copy_from_slice(block));
        return;
    };
    let parse = parser(format);
    for (block, unit) in blocks.zip(units) {
        let mut target = UnitRow { layout, row, unit };
        parse(block, &mut target);
    }
}

/// One row of one packed unit.
struct UnitRow<'a> {
    layout: Layout,
    row: usize,
    unit: &'a mut [u8],
}

impl UnitRow<'_> {
    /// The `f16` scale (`field` 0) or minimum (1): of the super block, or of a plain block.
    fn half(&mut self, field: usize, bytes: &[u8]) {
        let at = 2 * (field * TILE + self.row);
        self.unit[at..at + 2].copy_from_slice(bytes);
    }

    /// The 8-bit scale (`field` 0) or the minimum or second scale (1) of a group in a super block.
    fn group_byte(&mut self, group: usize, field: usize, value: u8) {
        self.unit[self.layout.header_bytes() + group * self.layout.group_bytes() + field * TILE + self.row] =
            value;
    }

    /// The 32 codes of a group.
    fn codes(&mut self, group: usize, codes: &[u8; BLOCK]) {
        let layout = self.layout;
        let start = layout.header_bytes()
            + group * layout.group_bytes()
            + layout.scale_bytes()
            + layout.minimum_bytes();
        let (upper, rest) = self.unit[start..].split_at_mut(layout.upper_bytes());
        let lower = &mut rest[..layout.lower_bytes()];
        let at = 4 * self.row;
        // Four codes at once. No shift below moves a bit into the next code: what it would move has been masked out.
        for (quad, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
            let codes = u32::from_le_bytes(*codes);
            match layout.bits {
                8 => {
                    add(&mut lower[64 * quad + at..], codes);
                    continue;
                }
                5 => add(&mut upper[at..], (codes >> 4 & 0x0101_0101) << quad),
                6 => add(&mut upper[64 * (quad / 4) + at..], (codes >> 4 & 0x0303_0303) << (2 * (quad % 4))),
                _ => {}
            }
            add(&mut lower[64 * (quad % 4) + at..], (codes & 0x0f0f_0f0f) << (4 * (quad / 4)));
        }
    }
}

/// Sets these bits of the first four bytes.
fn add(bytes: &mut [u8], bits: u32) {
    if let Some(bytes) = bytes.first_chunk_mut::<4>() {
        *bytes = (u32::from_le_bytes(*bytes) | bits).to_le_bytes();
    }
}

/// Puts one stored block into one row of a unit.
type Parser = fn(&[u8], &mut UnitRow<'_>);

fn parser(format: Format) -> Parser {
    match format {
        Format::Q4_0 => |block, row| {
            row.half(0, &block[..2]);
            row.codes(0, &nibbles(&block[2..], 0));
        },
        Format::Q4_1 => |block, row| {
            row.half(0, &block[..2]);
            row.half(1, &block[2..4]);
            row.codes(0, &nibbles(&block[4..], 0));
        },
        Format::Q5_0 => |block, row| {
            row.half(0, &block[..2]);
            row.codes(0, &nibbles(&block[6..], word(&block[2..6])));
        },
        Format::Q5_1 => |block, row| {
            row.half(0, &block[..2]);
            row.half(1, &block[2..4]);
            row.codes(0, &nibbles(&block[8..], word(&block[4..8])));
        },
        Format::Q4K => |block, row| k_quant(block, &[], &block[16..], row),
        Format::Q5K => |block, row| k_quant(block, &block[16..48], &block[48..], row),
        Format::Q6K => q6_k,
        Format::Q8_0 | Format::F32 | Format::F16 | Format::BF16 => |block, row| {
            row.half(0, &block[..2]);
            row.codes(0, &std::array::from_fn(|input| block[2 + input] ^ 0x80));
        },
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Sixteen bytes: the low nibbles are the first 16 codes, the high ones the last; bit `i` of `fifth` is bit 4 of code
/// `i`.
fn nibbles(bytes: &[u8], fifth: u32) -> [u8; BLOCK] {
    std::array::from_fn(|input| {
        let pair = bytes[input % 16];
        let nibble = if input < 16 { pair & 0x0f } else { pair >> 4 };
        nibble | (((fifth >> input) & 1) as u8) << 4
    })
}

/// Q4_K `f16 scale, f16 minimum, u8 packed[12], u8 nibbles[128]` and Q5_K, which has `u8 upper[32]` before the nibbles:
/// each run of 32 bytes holds two groups, the first in the low nibbles; bit `g` of `upper[i]` is the fifth bit of
/// number `i` of group `g`.
fn k_quant(block: &[u8], upper: &[u8], nibbles: &[u8], row: &mut UnitRow<'_>) {
    row.half(0, &block[..2]);
    row.half(1, &block[2..4]);
    for group in 0..8 {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        row.group_byte(group, 0, scale);
        row.group_byte(group, 1, minimum);
        let bytes = &nibbles[32 * (group / 2)..32 * (group / 2 + 1)];
        row.codes(
            group,
            &std::array::from_fn(|input| {
                let fifth = upper.get(input).map_or(0, |bits| (bits >> group) & 1);
                (bytes[input] >> (4 * (group % 2))) & 0x0f | fifth << 4
            }),
        );
    }
}

/// Unpacks group `group` of the 12 bytes that hold eight 6-bit scales and eight 6-bit minima: the first four scales
/// are the low six bits of bytes 0 to 3, the first four minima those of bytes 4 to 7; the others keep four bits in
/// bytes 8 to 11 and their upper two in the spare bits of the earlier bytes.
fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let shared = packed[group + 4];
        ((shared & 0x0f) | (packed[group - 4] >> 6) << 4, (shared >> 4) | (packed[group] >> 6) << 4)
    }
}

/// `u8 low[128], u8 high[64], i8 scales[16], f16 scale`: each half of 128 numbers takes 64 low and 32 high bytes and is
/// laid out as four groups of 32: the low nibbles of both 32-byte rows, then their high nibbles. A scale belongs to 16
/// numbers.
fn q6_k(block: &[u8], row: &mut UnitRow<'_>) {
    row.half(0, &block[208..210]);
    for group in 0..8 {
        let (half, run) = (group / 4, group % 4);
        let low = &block[64 * half + 32 * (run % 2)..];
        let high = &block[128 + 32 * half..];
        row.group_byte(group, 0, block[192 + 2 * group]);
        row.group_byte(group, 1, block[193 + 2 * group]);
        row.codes(
            group,
            &std::array::from_fn(|input| {
                (low[input] >> (4 * (run / 2))) & 0x0f | ((high[input] >> (2 * run)) & 3) << 4
            }),
        );
    }
}
