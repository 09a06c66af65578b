use proptest::prelude::*;

use super::*;
use crate::testing::{assert_close, numbers, pools};

fn rms_reference(x: &[f32], scale: &[f32], epsilon: f32) -> Vec<f64> {
    x.chunks(scale.len())
        .flat_map(|row| {
            let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row.len() as f64;
            let root = (mean + f64::from(epsilon)).sqrt();
            row.iter().zip(scale).map(move |(x, w)| f64::from(*x) / root * f64::from(*w))
        })
        .collect()
}

fn layer_reference(x: &[f64], scale: &[f32], bias: &[f32], epsilon: f32) -> Vec<f64> {
    x.chunks(scale.len())
        .flat_map(|row| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let root = (variance + f64::from(epsilon)).sqrt();
            row.iter()
                .zip(scale)
                .zip(bias)
                .map(move |((x, w), b)| (x - mean) / root * f64::from(*w) + f64::from(*b))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn rms_norm_follows_its_definition(rows in 0usize..5, width in 1usize..200, seed: u64) {
        let (x, y, scale) = (numbers(rows * width, seed), numbers(rows * width, !seed), numbers(width, seed ^ 1));
        for pool in pools() {
            let mut out = vec![f32::NAN; x.len()];
            rms_norm(&pool, &x, &scale, 1e-5, &mut out);
            assert_close(&out, &rms_reference(&x, &scale, 1e-5), 2e-6);

            let mut sum = x.clone();
            add_rms_norm(&pool, &mut sum, &y, &scale, 1e-5, &mut out);
            let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            prop_assert_eq!(&sum, &want);
            assert_close(&out, &rms_reference(&want, &scale, 1e-5), 2e-6);

            rms_norm_in_place(&pool, &mut sum, &scale, 1e-5);
            prop_assert_eq!(sum.iter().zip(&out).position(|(a, b)| (a - b).abs() > 1e-6), None);
        }
    }

    #[test]
    fn layer_norm_follows_its_definition(rows in 0usize..5, width in 2usize..200, seed: u64) {
        let (x, y) = (numbers(rows * width, seed), numbers(rows * width, !seed));
        let (scale, bias) = (numbers(width, seed ^ 1), numbers(width, seed ^ 2));
        let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
        for pool in pools() {
            let mut out = vec![f32::NAN; x.len()];
            layer_norm(&pool, &x, &scale, &bias, 1e-3, &mut out);
            assert_close(&out, &layer_reference(&wide(&x), &scale, &bias, 1e-3), 2e-5);

            let mut both = x.clone();
            add_layer_norm(&pool, &mut both, &y, &scale, &bias, 1e-3);
            let sum: Vec<f64> = x.iter().zip(&y).map(|(x, y)| f64::from(x + y)).collect();
            assert_close(&both, &layer_reference(&sum, &scale, &bias, 1e-3), 2e-5);
        }
    }
}

#[test]
fn rows_enough_for_several_threads_are_each_normalised_once() {
    let (rows, width) = (203, 576);
    let (x, scale) = (numbers(rows * width, 7), numbers(width, 8));
    for pool in pools() {
        let mut out = x.clone();
        rms_norm_in_place(&pool, &mut out, &scale, 1e-5);
        assert_close(&out, &rms_reference(&x, &scale, 1e-5), 2e-6);

        let mut sum = x.clone();
        add(&pool, &mut sum, &out);
        let want: Vec<f64> = x.iter().zip(&out).map(|(x, y)| f64::from(x + y)).collect();
        assert_close(&sum, &want, 0.0);
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_itself_alone() {
    let (x, scale) = ([1.0, f32::NAN, 3.0, 4.0], [1.0, 1.0]);
    for pool in pools() {
        let mut out = [0.0; 4];
        rms_norm(&pool, &x, &scale, 1e-5, &mut out);
        assert!(out[0].is_nan() && out[1].is_nan());
        assert_close(&out[2..], &rms_reference(&x[2..], &scale, 1e-5), 1e-6);
    }
}
