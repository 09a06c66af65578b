//! How much of a prompt a step may compute while others wait for their next token.
//!
//! A step costs what its decodes cost and so much more for each prompt token. Both are measured as the engine runs,
//! because they depend on the model, the machine and the load; the share of the prompt follows from them.

use std::collections::BTreeMap;
use std::time::Duration;

/// What prompts may add to a step, in steps of decodes alone. Less than the 4 that callers are promised, since the
/// measurements lag behind what they measure.
const ALLOWANCE: f64 = 2.5;
/// What a step may take when nobody waits for a next token: a caller who leaves is noticed after it.
const ALONE: f64 = 0.1;
/// Fewest prompt tokens in a step: fewer would hardly cost less, since the weights are read once in any case.
const LEAST: usize = 16;
/// Most prompt tokens in a step.
const MOST: usize = 512;
/// Before anything was measured.
const FIRST: usize = 32;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.2;

/// Measured costs, in seconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// A step of so many decodes alone.
    decodes: BTreeMap<usize, f64>,
    /// One prompt token more in a step.
    token: Option<f64>,
}

impl Pace {
    /// Prompt tokens that the next step may compute, beside so many sequences that decode.
    pub(super) fn budget(&self, decoding: usize) -> usize {
        let Some(token) = self.token else { return FIRST };
        let allowed = match (decoding, self.decode_time(decoding)) {
            (0, _) => ALONE,
            (_, Some(time)) => ALLOWANCE * time,
            (_, None) => return LEAST,
        };
        // A cost of zero cannot be: the clock was too coarse to see it.
        ((allowed / token.max(1e-9)) as usize).clamp(LEAST, MOST)
    }

    /// Learns from a step, and answers how much of its time went into prompts.
    pub(super) fn learn(&mut self, decoded: usize, prefilled: usize, took: Duration) -> Duration {
        let took = took.as_secs_f64();
        if prefilled == 0 {
            let mean = self.decodes.entry(decoded).or_insert(took);
            *mean = mixed(*mean, took);
            return Duration::ZERO;
        }
        let alone = if decoded > 0 { self.decode_time(decoded) } else { None };
        let more = (took - alone.unwrap_or(0.0)).max(0.0);
        // Few tokens cost what any step costs, whatever is in it: nothing can be learned from them.
        if prefilled >= LEAST {
            let newest = more / prefilled as f64;
            self.token = Some(self.token.map_or(newest, |mean| mixed(mean, newest)));
        }
        Duration::from_secs_f64(more)
    }

    /// Seconds of a step of so many decodes, rather too few than too many where that was not measured: more
    /// sequences never take less time, and half of them never less than half of it.
    fn decode_time(&self, decodes: usize) -> Option<f64> {
        let fewer = self.decodes.range(..=decodes).next_back().map(|(_, time)| *time);
        fewer.or_else(|| {
            let (more, time) = self.decodes.range(decodes..).next()?;
            Some(time * decodes as f64 / *more as f64)
        })
    }
}

fn mixed(mean: f64, newest: f64) -> f64 {
    mean + NEWEST * (newest - mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a step on a machine with this cost of a decode step and of a prompt token.
    fn run(pace: &mut Pace, (decode, token): (f64, f64), decodes: usize, prompt: usize) -> f64 {
        let alone = if decodes > 0 { decode * (0.9 + 0.1 * decodes as f64) } else { 0.0 };
        let took = alone + token * prompt as f64;
        pace.learn(decodes, prompt, Duration::from_secs_f64(took));
        took / alone
    }

    #[test]
    fn a_long_prompt_adds_less_than_four_decode_steps_to_any_step() {
        // A laptop, a small server, a GPU, a crawl.
        for machine in [(0.008, 0.001), (0.005, 0.000_5), (0.004, 0.000_01), (0.5, 0.05)] {
            for decodes in [1, 3, 8] {
                let mut pace = Pace::default();
                (0..50).for_each(|_| _ = run(&mut pace, machine, decodes, 0));
                (0..3).for_each(|_| {
                    _ = {
                        let chunk = pace.budget(0);
                        run(&mut pace, machine, 0, chunk)
                    }
                });
                let mut left = 2000_usize;
                let mut steps = 0;
                while left > 0 {
                    let chunk = pace.budget(decodes).min(left);
                    let slower = run(&mut pace, machine, decodes, chunk);
                    assert!(slower < 5.0, "{machine:?} with {decodes}: {chunk} tokens, {slower} steps");
                    left -= chunk;
                    steps += 1;
                }
                assert!(steps <= 2000 / LEAST, "{machine:?}: {steps} steps");
            }
        }
    }

    #[test]
    fn nobody_waiting_means_large_chunks_and_a_slow_machine_small_ones() {
        let mut fast = Pace::default();
        run(&mut fast, (0.005, 0.000_1), 0, 32);
        assert_eq!(fast.budget(0), MOST);
        let mut slow = Pace::default();
        run(&mut slow, (0.05, 0.002), 0, 32);
        assert_eq!(slow.budget(0), 50);
    }

    #[test]
    fn decodes_that_were_never_measured_are_taken_for_cheap() {
        let mut pace = Pace::default();
        pace.learn(4, 0, Duration::from_millis(8));
        assert_eq!(pace.decode_time(9), Some(0.008));
        assert_eq!(pace.decode_time(1), Some(0.002));
        assert_eq!(Pace::default().budget(3), FIRST);
    }

    #[test]
    fn the_time_of_a_mixed_step_is_divided() {
        let mut pace = Pace::default();
        pace.learn(2, 0, Duration::from_millis(10));
        assert_eq!(pace.learn(2, 100, Duration::from_millis(60)), Duration::from_millis(50));
        assert_eq!(pace.learn(0, 100, Duration::from_millis(60)), Duration::from_millis(60));
        // Faster than the decodes alone: it is noise, and no time is negative.
        assert_eq!(pace.learn(2, 1, Duration::from_millis(9)), Duration::ZERO);
    }
}
