use super::*;

/// What a function of the vectors gives for each input, by each set of the processor.
fn each(inputs: &[f32], apply: impl Fn(Isa, &[f32]) -> Vec<f32>, mut check: impl FnMut(Isa, f32, f32)) {
    for isa in Isa::available() {
        for (x, y) in inputs.iter().zip(apply(isa, inputs)) {
            check(isa, *x, y);
        }
    }
}

macro_rules! kernel {
    ($name:ident, $method:ident) => {
        struct $name<'a>(&'a [f32]);
        impl Kernel for $name<'_> {
            type Output = Vec<f32>;
            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> Vec<f32> {
                let mut out = vec![0.0; self.0.len()];
                for (from, to) in self.0.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                    s.write_short(to, s.$method(s.read_short(from)));
                }
                out
            }
        }
    };
}
kernel!(Exp, exp);
kernel!(Sigmoid, sigmoid);
kernel!(Tanh, tanh);
kernel!(Erf, erf);

fn sweep(low: f32, high: f32) -> Vec<f32> {
    let steps = 20_011;
    (0..=steps).map(|i| low + (high - low) * i as f32 / steps as f32).collect()
}

#[test]
fn exp_is_right_to_a_few_parts_in_ten_million() {
    each(
        &sweep(-87.3, 88.7),
        |isa, x| dispatch(isa, Exp(x)),
        |isa, x, y| {
            let want = f64::from(x).exp();
            assert!((f64::from(y) / want - 1.0).abs() < 3e-7, "{isa:?}: e^{x} = {y}, not {want}");
        },
    );
}

#[test]
fn exp_of_what_is_out_of_range_is_zero_infinite_or_not_a_number() {
    for isa in Isa::available() {
        let x = [f32::NEG_INFINITY, f32::MIN, -88.0, 89.0, 1e9, f32::INFINITY, f32::NAN, 0.0, -0.0];
        let y = dispatch(isa, Exp(&x));
        assert_eq!(y[..3], [0.0; 3], "{isa:?}");
        assert_eq!(y[3..6], [f32::INFINITY; 3], "{isa:?}");
        assert!(y[6].is_nan(), "{isa:?}");
        assert_eq!(y[7..], [1.0; 2], "{isa:?}");
    }
}

#[test]
fn sigmoid_and_tanh_follow_their_definitions() {
    let inputs = sweep(-30.0, 30.0);
    each(
        &inputs,
        |isa, x| dispatch(isa, Sigmoid(x)),
        |isa, x, y| {
            let want = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(y) - want).abs() <= 5e-7 * want, "{isa:?}: {x} gave {y}, not {want}");
        },
    );
    each(
        &inputs,
        |isa, x| dispatch(isa, Tanh(x)),
        |isa, x, y| {
            let want = f64::from(x).tanh();
            assert!((f64::from(y) - want).abs() < 5e-7, "{isa:?}: {x} gave {y}, not {want}");
        },
    );
}

/// erf as its Maclaurin series, which converges well in double precision up to 4.
fn erf_of(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn erf_follows_its_series() {
    each(
        &sweep(-4.0, 4.0),
        |isa, x| dispatch(isa, Erf(x)),
        |isa, x, y| {
            let want = erf_of(f64::from(x));
            assert!((f64::from(y) - want).abs() < 1e-6, "{isa:?}: {x} gave {y}, not {want}");
        },
    );
}
