//! Packed units back to codes, scales and minima.

use half::{bf16, f16};

use super::Matrix;
use super::format::{BLOCK, Format, Layout, TILE};

/// One group of a packed unit: sixteen rows by 32 inputs.
pub(super) struct Group {
    /// Codes in the order of the layout: byte `64 * quad + 4 * row + input`.
    pub(super) codes: [u8; TILE * BLOCK],
    /// A scale for the first and one for the last 16 inputs of each row; the same but in Q6_K.
    pub(super) scales: [[f32; TILE]; 2],
    /// What is added to each weight, whatever its code.
    pub(super) minima: [f32; TILE],
}

impl Group {
    pub(super) const fn empty() -> Self {
        Self { codes: [0; TILE * BLOCK], scales: [[0.0; TILE]; 2], minima: [0.0; TILE] }
    }

    /// Reads group `group` of a unit.
    pub(super) fn read(&mut self, layout: Layout, unit: &[u8], group: usize) {
        let (header, groups) = unit.split_at(layout.header_bytes());
        let bytes = &groups[group * layout.group_bytes()..(group + 1) * layout.group_bytes()];
        for row in 0..TILE {
            self.read_scales(layout, header, bytes, row);
        }
        let (upper, lower) =
            bytes[layout.scale_bytes() + layout.minimum_bytes()..].split_at(layout.upper_bytes());
        if layout.bits == 8 {
            self.codes.copy_from_slice(lower);
            return;
        }
        for (quad, codes) in self.codes.chunks_exact_mut(64).enumerate() {
            let nibbles = &lower[64 * (quad % 4)..64 * (quad % 4 + 1)];
            for (code, nibble) in codes.iter_mut().zip(nibbles) {
                *code = (nibble >> (4 * (quad / 4))) & 0x0f;
            }
            match layout.bits {
                5 => codes.iter_mut().zip(upper).for_each(|(code, bits)| *code |= (bits >> quad & 1) << 4),
                6 => {
                    let bits = &upper[64 * (quad / 4)..];
                    let shift = 2 * (quad % 4);
                    codes.iter_mut().zip(bits).for_each(|(code, bits)| *code |= (bits >> shift & 3) << 4);
                }
                _ => {}
            }
        }
    }

    fn read_scales(&mut self, layout: Layout, header: &[u8], group: &[u8], row: usize) {
        if !layout.super_block {
            self.scales = with_row(self.scales, row, [half_at(group, row); 2]);
            self.minima[row] = if layout.minimum { half_at(group, TILE + row) } else { 0.0 };
        } else if layout.split() {
            let scale = half_at(header, row);
            let of = |half: usize| scale * f32::from(group[half * TILE + row] as i8);
            self.scales = with_row(self.scales, row, [of(0), of(1)]);
            self.minima[row] = 0.0;
        } else {
            let scale = half_at(header, row) * f32::from(group[row]);
            self.scales = with_row(self.scales, row, [scale; 2]);
            self.minima[row] = -half_at(header, TILE + row) * f32::from(group[TILE + row]);
        }
    }
}

fn with_row(mut scales: [[f32; TILE]; 2], row: usize, values: [f32; 2]) -> [[f32; TILE]; 2] {
    scales[0][row] = values[0];
    scales[1][row] = values[1];
    scales
}

/// The `index`th 16-bit float of these bytes.
fn half_at(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}

/// One number of a plain format.
pub(super) fn float(format: Format, bytes: &[u8]) -> f32 {
    match format {
        Format::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        Format::BF16 => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
    }
}

/// The weights of one output row.
pub(super) fn row(matrix: &Matrix, index: usize, out: &mut [f32]) {
    let (tile, row) = (matrix.tile(index / TILE), index % TILE);
    let units = tile.chunks_exact(matrix.format.unit_bytes());
    let Some(layout) = matrix.format.layout() else {
        let bytes = matrix.format.block_bytes();
        out.iter_mut().zip(units).for_each(|(out, unit)| *out = float(matrix.format, &unit[bytes * row..]));
        return;
    };
    let mut group = Group::empty();
    for (unit, out) in units.zip(out.chunks_exact_mut(matrix.format.unit_len())) {
        for (index, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            group.read(layout, unit, index);
            for (input, out) in out.iter_mut().enumerate() {
                let code = i32::from(group.codes[64 * (input / 4) + 4 * row + input % 4]) - layout.offset;
                *out = group.scales[input / 16][row] * code as f32 + group.minima[row];
            }
        }
    }
}
