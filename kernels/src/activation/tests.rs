use proptest::prelude::*;

use super::*;
use crate::testing::{assert_close, numbers, pools};

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu_by_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

/// erf by its Maclaurin series, good for the small arguments of these tests.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn products(gate: &[f32], up: &[f32], of: impl Fn(f64) -> f64) -> Vec<f64> {
    gate.iter().zip(up).map(|(gate, up)| of(f64::from(*gate)) * f64::from(*up)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn gated_activations_follow_their_definitions(len in 0usize..3000, seed: u64) {
        let gate: Vec<f32> = numbers(len, seed).iter().map(|x| x * 4.0).collect();
        let up = numbers(len, !seed);
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; len];
            Gating::Silu.apply(isa, &gate, &up, &mut out);
            assert_close(&out, &products(&gate, &up, silu), 2e-6);
            Gating::GeluTanh.apply(isa, &gate, &up, &mut out);
            assert_close(&out, &products(&gate, &up, gelu_by_tanh), 3e-6);
        }
    }

    #[test]
    fn gelu_follows_its_definition(len in 0usize..3000, seed: u64) {
        let x: Vec<f32> = numbers(len, seed).iter().map(|x| x * 2.0).collect();
        let want: Vec<f64> = x
            .iter()
            .map(|x| 0.5 * f64::from(*x) * (1.0 + erf(f64::from(*x) * std::f64::consts::FRAC_1_SQRT_2)))
            .collect();
        for pool in pools() {
            let mut out = x.clone();
            gelu(&pool, &mut out);
            assert_close(&out, &want, 2e-6);
        }
    }
}

#[test]
fn numbers_enough_for_several_threads_are_each_computed_once() {
    let x = numbers(100_003, 1);
    let want: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let want: Vec<f64> =
        want.iter().map(|x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))).collect();
    for pool in pools() {
        let mut out = x.clone();
        gelu(&pool, &mut out);
        assert_close(&out, &want, 2e-6);
    }
}

#[test]
fn far_from_zero_a_gate_is_open_or_closed_and_never_undefined() {
    let gate = [-1e30, -200.0, 200.0, 1e30, f32::NAN];
    for isa in Isa::available() {
        for gating in [Gating::Silu, Gating::GeluTanh] {
            let mut out = [0.0; 5];
            gating.apply(isa, &gate, &[1.0; 5], &mut out);
            assert_eq!(out[..4], [0.0, 0.0, 200.0, 1e30], "{isa:?}");
            assert!(out[4].is_nan(), "{isa:?}");
        }
    }
}
