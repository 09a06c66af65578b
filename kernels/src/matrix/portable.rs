//! The product in plain code: what the vector code must compute.

use super::Matrix;
use super::activations::Activations;
use super::format::{BLOCK, Layout, TILE};
use super::unpack::Group;

/// The products of sixteen rows with one token.
pub(super) type Sums = [f32; TILE];

/// Multiplies one tile with the tokens `first..first + sums.len()`.
pub(super) fn quantized(
    matrix: &Matrix,
    layout: Layout,
    tile: usize,
    x: &Activations,
    first: usize,
    sums: &mut [Sums],
) {
    sums.fill([0.0; TILE]);
    let mut group = Group::empty();
    for (index, unit) in matrix.tile(tile).chunks_exact(layout.unit_bytes()).enumerate() {
        for inner in 0..layout.groups() {
            group.read(layout, unit, inner);
            let block = index * layout.groups() + inner;
            for (token, sums) in sums.iter_mut().enumerate() {
                add_group(&group, layout, x, first + token, block, sums);
            }
        }
    }
}

fn add_group(group: &Group, layout: Layout, x: &Activations, token: usize, block: usize, sums: &mut Sums) {
    let at = token * x.blocks + block;
    let codes = x.codes(token, block);
    let mut halves = [0, 1].map(|half| [layout.offset * x.halves[2 * at + half]; TILE]);
    for (quad, (weights, x)) in group.codes.chunks_exact(64).zip(codes.chunks_exact(4)).enumerate() {
        let dots = &mut halves[quad / (BLOCK / 8)];
        for (dot, weights) in dots.iter_mut().zip(weights.chunks_exact(4)) {
            for (&weight, &x) in weights.iter().zip(x) {
                *dot += i32::from(weight) * i32::from(x);
            }
        }
    }
    for (row, sum) in sums.iter_mut().enumerate() {
        let dot = if layout.split() {
            halves[0][row] as f32 * group.scales[0][row] + halves[1][row] as f32 * group.scales[1][row]
        } else {
            (halves[0][row] + halves[1][row]) as f32 * group.scales[0][row]
        };
        *sum += dot * x.scales[at] + group.minima[row] * x.sums[at];
    }
}
