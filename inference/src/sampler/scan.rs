//! Passes over the logits of a whole vocabulary.
//!
//! A vocabulary has up to 262,144 entries and every token pays for these loops, so they are written in blocks of
//! independent lanes that the compiler turns into vector instructions.

use crate::InferenceError;

/// Lanes of a pass: enough to fill the widest vector registers.
const LANES: usize = 16;
/// Weights added up in single precision before the sum goes on in double precision.
const BLOCK: usize = 256;

/// The highest logit.
///
/// # Errors
/// [`InferenceError::NumericalFault`] when a logit is not a number or infinitely high, or all are infinitely low.
pub(super) fn highest(logits: &[f32]) -> Result<f32, InferenceError> {
    let mut most = [f32::NEG_INFINITY; LANES];
    let mut sound = [true; LANES];
    let blocks = logits.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for lane in 0..LANES {
            // False for what is not a number as well.
            sound[lane] &= block[lane] < f32::INFINITY;
            most[lane] = if block[lane] > most[lane] { block[lane] } else { most[lane] };
        }
    }
    let sound = sound.into_iter().all(|sound| sound) && rest.iter().all(|logit| *logit < f32::INFINITY);
    let fault = |reason: String| Err(InferenceError::NumericalFault { reason });
    if !sound {
        let id =
            logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY).unwrap_or_default();
        return fault(format!("the logit of token {id} is {}", logits[id]));
    }
    let highest = most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY { fault("no token has a finite logit".to_owned()) } else { Ok(highest) }
}

/// The lowest id of this logit, which is one of them.
pub(super) fn first_of(logits: &[f32], logit: f32) -> u32 {
    let blocks =
        logits.chunks(LANES).position(|block| block.iter().fold(false, |any, l| any | (*l == logit)));
    let start = blocks.unwrap_or_default() * LANES;
    let within = logits[start..].iter().position(|l| *l == logit).unwrap_or_default();
    (start + within) as u32
}

/// What each logit weighs against the highest: `exp((logit - highest) / temperature)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) highest: f32,
    pub(super) temperature: f32,
}

impl Scale {
    /// The weight of one logit, from 0 to 1.
    pub(super) fn weight(self, logit: f32) -> f32 {
        exp_not_above_0((logit - self.highest) / self.temperature)
    }

    /// The weight of all logits together.
    pub(super) fn total(self, logits: &[f32]) -> f64 {
        logits.chunks(BLOCK).map(|block| self.block(block)).sum()
    }

    /// The token at this point of the cumulated weights of all tokens; `point` is in `0.0..1.0`.
    pub(super) fn pick(self, logits: &[f32], point: f64) -> Option<u32> {
        let sums: Vec<f64> = logits.chunks(BLOCK).map(|block| self.block(block)).collect();
        let target = sums.iter().sum::<f64>() * point;
        let mut before = 0.0;
        let mut chosen = None;
        for (index, sum) in sums.into_iter().enumerate().filter(|(_, sum)| *sum > 0.0) {
            chosen = Some((index * BLOCK, before));
            before += sum;
            if before > target {
                break;
            }
        }
        let (start, mut sum) = chosen?;
        let block = &logits[start..logits.len().min(start + BLOCK)];
        let mut last = None;
        for (place, logit) in block.iter().enumerate() {
            let weight = self.weight(*logit);
            if weight > 0.0 {
                sum += f64::from(weight);
                last = Some((start + place) as u32);
                if sum > target {
                    break;
                }
            }
        }
        last
    }

    fn block(self, block: &[f32]) -> f64 {
        let mut sums = [0.0_f32; LANES];
        let lanes = block.chunks_exact(LANES);
        let rest: f32 = lanes.remainder().iter().map(|logit| self.weight(*logit)).sum();
        for logits in lanes {
            for lane in 0..LANES {
                sums[lane] += self.weight(logits[lane]);
            }
        }
        f64::from(rest) + sums.into_iter().map(f64::from).sum::<f64>()
    }
}

/// `exp(x)` for `x` up to 0, within two units in the last place; 0 below -87.
///
/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`; `exp(r)` by its Taylor polynomial of degree 7, `2^n` put into the exponent
/// bits (the reduction of Cody and Waite, "Software Manual for the Elementary Functions", 1980).
#[inline(always)]
fn exp_not_above_0(x: f32) -> f32 {
    /// Adding this rounds to a whole number, which then stands in the lowest bits: 1.5 · 2^23.
    const ROUND: f32 = 12_582_912.0;
    /// `ln 2` in two parts, the first with few enough bits that its product with `n` is exact.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    const LOWEST: f32 = -87.0;
    let low = x.max(LOWEST);
    let rounded = low * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = low - n * LN_2.0 - n * LN_2.1;
    let mut polynomial = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        polynomial = polynomial * r + factor;
    }
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { polynomial * power }
}

/// How far below the highest candidates are looked for, in natural logarithms: nearly all of the weight first, then
/// all that can matter in double precision, then everything.
const REACHES: [f32; 3] = [7.0, 16.0, f32::INFINITY];

/// Tokens not far below the highest, best first and lower ids first among equals, until `enough` of them are found:
/// it answers how many to keep, or `None` to look further down. All of them when it never has enough.
pub(super) fn best(
    logits: &[f32],
    scale: Scale,
    mut enough: impl FnMut(&mut Vec<(u32, f32)>) -> Option<usize>,
) -> Vec<(u32, f32)> {
    let mut found = Vec::new();
    for reach in REACHES {
        gather(logits, scale.highest - reach * scale.temperature, &mut found);
        if let Some(count) = enough(&mut found) {
            found.truncate(count);
            return found;
        }
    }
    sort(&mut found);
    found
}

/// All tokens with a logit of at least `least`.
fn gather(logits: &[f32], least: f32, found: &mut Vec<(u32, f32)>) {
    found.clear();
    for (index, block) in logits.chunks(LANES).enumerate() {
        if block.iter().fold(false, |any, logit| any | (*logit >= least)) {
            let ids = (index * LANES) as u32..;
            found.extend(ids.zip(block.iter().copied()).filter(|(_, logit)| *logit >= least));
        }
    }
}

/// The `count` highest logits, best first, lower ids first among equals.
pub(super) fn most_likely(logits: &[f32], scale: Scale, count: usize) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let count = count.min(logits.len());
    best(logits, scale, |found| {
        if found.len() < count {
            return None;
        }
        if found.len() > count {
            found.select_nth_unstable_by(count - 1, better);
            found.truncate(count);
        }
        sort(found);
        Some(count)
    })
}

fn better(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Best first, lower ids first among equals.
pub(super) fn sort(tokens: &mut [(u32, f32)]) {
    tokens.sort_unstable_by(better);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_exponential_is_exact_to_a_few_units(x in -87.0_f32..=0.0) {
            let exact = f64::from(x).exp();
            prop_assert!((f64::from(exp_not_above_0(x)) - exact).abs() <= 3e-7 * exact);
        }

        #[test]
        fn the_most_likely_are_a_sorted_prefix(
            logits in prop::collection::vec(-40_i32..5, 1..200),
            count in 0_usize..220,
        ) {
            let logits: Vec<f32> = logits.into_iter().map(|logit| logit as f32).collect();
            let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            all.truncate(count);
            let scale = Scale { highest: highest(&logits)?, temperature: 0.5 };
            prop_assert_eq!(most_likely(&logits, scale, count), all);
        }

        #[test]
        fn the_highest_is_found_in_every_lane(len in 1_usize..70, at in 0_usize..70) {
            let mut logits = vec![-1.0; len];
            let at = at % len;
            logits[at] = 2.0;
            let most = highest(&logits)?;
            prop_assert_eq!((most, first_of(&logits, most)), (2.0, at as u32));
            logits[at] = f32::NAN;
            prop_assert!(highest(&logits).is_err());
        }
    }

    #[test]
    fn what_is_infinitely_low_weighs_nothing() {
        let scale = Scale { highest: 3.0, temperature: 1e-3 };
        assert_eq!((scale.weight(f32::NEG_INFINITY), scale.weight(3.0)), (0.0, 1.0));
    }
}
