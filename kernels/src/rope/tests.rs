use proptest::prelude::*;

use super::*;
use crate::testing::{assert_close, numbers, pools};

fn reference(x: &[f32], positions: &[usize], frequencies: &[f64], heads: usize, dim: usize) -> Vec<f64> {
    let half = frequencies.len();
    let mut out: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    for (token, position) in positions.iter().enumerate() {
        for head in 0..heads {
            let head = &mut out[(token * heads + head) * dim..][..dim];
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (*position as f64 * frequency).sin_cos();
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = a * sin + b * cos;
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn pairs_turn_by_position_times_frequency(
        positions in prop::collection::vec(0usize..130_000, 0..6),
        heads in 1usize..4,
        half in 0usize..40,
        rest in 0usize..9,
        seed: u64,
    ) {
        let dim = 2 * half + rest.max(1);
        let frequencies: Vec<f64> = (0..half).map(|i| 1e4f64.powf(-(i as f64) / half as f64)).collect();
        let x = numbers(positions.len() * heads * dim, seed);
        let want = reference(&x, &positions, &frequencies, heads, dim);
        for pool in pools() {
            let mut turned = x.clone();
            let angles = Angles::new(&frequencies, positions.iter().copied());
            rope(&pool, &angles, heads, dim, &mut turned);
            assert_close(&turned, &want, 1e-6);
        }
    }
}

#[test]
fn tokens_enough_for_several_threads_are_each_turned_once() {
    let positions: Vec<usize> = (5..305).collect();
    let frequencies: Vec<f64> = (0..32).map(|i| 1e5f64.powf(-f64::from(i) / 32.0)).collect();
    let x = numbers(300 * 9 * 64, 3);
    let want = reference(&x, &positions, &frequencies, 9, 64);
    for pool in pools() {
        let mut turned = x.clone();
        rope(&pool, &Angles::new(&frequencies, positions.iter().copied()), 9, 64, &mut turned);
        assert_close(&turned, &want, 1e-6);
    }
}
