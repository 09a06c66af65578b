//! How much of a prompt a step may compute while others wait for their next token.
//!
//! A step costs what its decodes cost, so much more for each prompt token, and so much for each token that a prompt
//! token looks back at: late in a long prompt that is the most. All are measured as the engine runs, because they
//! depend on the model, the machine and the load; the share of the prompt follows from them.

use std::collections::BTreeMap;
use std::time::Duration;

/// What prompts may add to a step, in steps of decodes alone. Less than the 4 that callers are promised, since the
/// measurements lag behind what they measure.
const ALLOWANCE: f64 = 2.5;
/// What a step may take when nobody waits for a next token: a caller who leaves is noticed after it.
const ALONE: f64 = 0.1;
/// Fewest prompt tokens in a step: every prompt comes to an end, and fewer would cost hardly less, since a step unpacks
/// weights and the tokens looked back at once for all of them.
const LEAST: usize = 8;
/// Most prompt tokens in a step.
const MOST: usize = 512;
/// Seconds without a limit, few enough to compute with.
pub(super) const FOREVER: f64 = 1e9;
/// Before anything was measured.
const FIRST: usize = 32;
/// Fewer prompt tokens alone cost what any step costs: nothing can be learned from them.
const TELLING: usize = 16;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.2;
/// Looks back that are taken to cost about as much as one token: where learning starts from.
const LOOKS: f64 = 1000.0;

/// Prompt tokens of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Prefill {
    pub(super) tokens: usize,
    /// How many tokens they look back at, each of them at all before it.
    pub(super) looks: usize,
}

impl Prefill {
    /// Adds tokens of a sequence that has so many before them.
    pub(super) fn add(&mut self, tokens: usize, past: usize) {
        self.tokens += tokens;
        self.looks += tokens * past + tokens * tokens.saturating_sub(1) / 2;
    }
}

/// What is left of a step for prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Budget {
    pub(super) seconds: f64,
    pub(super) tokens: usize,
}

/// Measured costs, in seconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// A step of so many decodes alone.
    decodes: BTreeMap<usize, f64>,
    /// One prompt token more in a step.
    token: Option<f64>,
    /// One token more that a prompt token looks back at.
    look: f64,
}

impl Pace {
    /// What prompts may take of the next step, beside so many sequences that decode. `past` is how many tokens the
    /// first of them has before those to be computed: a few of them always fit.
    pub(super) fn budget(&self, decoding: usize, past: usize) -> Budget {
        let allowed = match (decoding, self.decode_time(decoding)) {
            (0, _) => ALONE,
            (_, Some(time)) => ALLOWANCE * time,
            // This step tells what decodes alone cost.
            (_, None) => return Budget { seconds: 0.0, tokens: 0 },
        };
        let Some(token) = self.token else { return Budget { seconds: FOREVER, tokens: FIRST } };
        let least = (token + self.look * (past + LEAST) as f64) * LEAST as f64;
        Budget { seconds: allowed.max(least), tokens: MOST }
    }

    /// How many tokens of a prompt fit, the first of which has so many before it.
    pub(super) fn fits(&self, budget: Budget, past: usize) -> usize {
        // A cost of zero cannot be: the clock was too coarse to see it.
        let token = self.token.unwrap_or(0.0).max(1e-9) + self.look * past as f64;
        // The n-th token looks back at n more: seconds = n * token + n * n / 2 * look, solved for n.
        let root = (token * token + 2.0 * self.look * budget.seconds).sqrt();
        ((2.0 * budget.seconds / (token + root)) as usize).min(budget.tokens)
    }

    /// Takes tokens of a prompt out of a budget.
    pub(super) fn spend(&self, budget: &mut Budget, tokens: usize, past: usize) {
        let mut prefill = Prefill::default();
        prefill.add(tokens, past);
        budget.seconds = (budget.seconds - self.cost(prefill)).max(0.0);
        budget.tokens -= tokens;
    }

    /// Learns from a step, and answers how much of its time went into prompts.
    pub(super) fn learn(&mut self, decoded: usize, prefill: Prefill, took: Duration) -> Duration {
        let took = took.as_secs_f64();
        if prefill.tokens == 0 {
            let mean = self.decodes.entry(decoded).or_insert(took);
            *mean = mixed(*mean, took);
            return Duration::ZERO;
        }
        let alone = if decoded > 0 { self.decode_time(decoded).unwrap_or(0.0) } else { 0.0 };
        let more = (took - alone).max(0.0);
        if decoded > 0 || prefill.tokens >= TELLING {
            self.correct(prefill, more);
        }
        Duration::from_secs_f64(more)
    }

    fn cost(&self, prefill: Prefill) -> f64 {
        self.token.unwrap_or(0.0) * prefill.tokens as f64 + self.look * prefill.looks as f64
    }

    /// Moves both costs towards what was measured, each as far as it had to do with it ("normalised least mean
    /// squares", Widrow and Hoff, 1960).
    fn correct(&mut self, prefill: Prefill, seconds: f64) {
        let share = if self.token.is_some() { NEWEST } else { 1.0 };
        let (tokens, looks) = (prefill.tokens as f64, prefill.looks as f64 / LOOKS);
        let step = share * (seconds - self.cost(prefill)) / (tokens * tokens + looks * looks);
        self.token = Some((self.token.unwrap_or(0.0) + step * tokens).max(0.0));
        self.look = (self.look + step * looks / LOOKS).max(0.0);
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

    /// Seconds of a decode step, of a prompt token, and of a look back.
    type Machine = (f64, f64, f64);

    /// How many decode steps a step takes.
    fn run(
        pace: &mut Pace,
        (decode, token, look): Machine,
        decodes: usize,
        prompt: usize,
        past: usize,
    ) -> f64 {
        let alone = if decodes > 0 { decode * (0.9 + 0.1 * decodes as f64) } else { 0.0 };
        let mut prefill = Prefill::default();
        prefill.add(prompt, past);
        let took = alone + token * prompt as f64 + look * prefill.looks as f64;
        pace.learn(decodes, prefill, Duration::from_secs_f64(took));
        took / alone
    }

    fn chunk(pace: &Pace, decodes: usize, past: usize) -> usize {
        pace.fits(pace.budget(decodes, past), past)
    }

    #[test]
    fn a_long_prompt_adds_less_than_four_decode_steps_to_any_step() {
        // A laptop, a small server, one whose attention is slow, a GPU, a crawl.
        for machine in [
            (0.008, 0.001, 1e-6),
            (0.005, 0.000_5, 1e-6),
            (0.004, 0.000_4, 6e-7),
            (0.004, 0.000_01, 1e-9),
            (0.5, 0.05, 1e-5),
        ] {
            for decodes in [1, 3, 8] {
                let mut pace = Pace::default();
                (0..50).for_each(|_| _ = run(&mut pace, machine, decodes, 0, 0));
                let mut past = 0;
                for _ in 0..3 {
                    let tokens = chunk(&pace, 0, past);
                    run(&mut pace, machine, 0, tokens, past);
                    past += tokens;
                }
                // Twice, since the second prompt begins where nothing is looked back at.
                for _ in 0..2 {
                    let (mut past, mut steps) = (0, 0);
                    while past < 2000 {
                        let tokens = chunk(&pace, decodes, past).min(2000 - past);
                        let slower = run(&mut pace, machine, decodes, tokens, past);
                        assert!(
                            slower < 5.0,
                            "{machine:?} with {decodes}: {tokens} after {past}, {slower} steps"
                        );
                        past += tokens;
                        steps += 1;
                    }
                    assert!(steps <= 2000 / LEAST, "{machine:?}: {steps} steps");
                }
            }
        }
    }

    #[test]
    fn what_looking_back_costs_is_told_from_what_a_token_costs() {
        let machine = (0.003, 0.000_4, 1.3e-6);
        let mut pace = Pace::default();
        (0..50).for_each(|_| _ = run(&mut pace, machine, 1, 0, 0));
        for _ in 0..20 {
            (0..2000).step_by(20).for_each(|past| _ = run(&mut pace, machine, 1, 20, past));
        }
        assert!((pace.look / machine.2 - 1.0).abs() < 0.1, "{pace:?}");
        assert!((pace.token.unwrap_or(0.0) / machine.1 - 1.0).abs() < 0.2, "{pace:?}");
        let fits = |past| pace.fits(Budget { seconds: 0.02, tokens: MOST }, past);
        assert!(fits(2000) < fits(0) / 3);
    }

    #[test]
    fn nobody_waiting_means_large_chunks_and_a_slow_machine_small_ones() {
        let mut fast = Pace::default();
        run(&mut fast, (0.005, 0.000_1, 0.0), 0, 32, 0);
        assert_eq!(chunk(&fast, 0, 0), MOST);
        let mut slow = Pace::default();
        run(&mut slow, (0.05, 0.002, 0.0), 0, 32, 0);
        assert_eq!(chunk(&slow, 0, 0), 49);
        assert_eq!(chunk(&slow, 0, 1_000_000_000), LEAST);
    }

    #[test]
    fn decodes_that_were_never_measured_are_taken_for_cheap() {
        let mut pace = Pace::default();
        assert_eq!((chunk(&pace, 0, 9), chunk(&pace, 3, 9)), (FIRST, 0));
        pace.learn(4, Prefill::default(), Duration::from_millis(8));
        assert_eq!(pace.decode_time(9), Some(0.008));
        assert_eq!(pace.decode_time(1), Some(0.002));
    }

    #[test]
    fn no_prompt_is_computed_beside_decodes_that_were_never_measured_alone() {
        let machine = (0.004, 0.000_5, 0.0);
        let mut pace = Pace::default();
        run(&mut pace, machine, 0, FIRST, 0);
        assert_eq!(chunk(&pace, 1, 0), 0);
        run(&mut pace, machine, 1, 0, 0);
        assert_eq!(chunk(&pace, 1, 0), 20);
    }

    #[test]
    fn the_time_of_a_mixed_step_is_divided() {
        let mut pace = Pace::default();
        let prefill = |tokens| Prefill { tokens, looks: 0 };
        pace.learn(2, prefill(0), Duration::from_millis(10));
        assert_eq!(pace.learn(2, prefill(100), Duration::from_millis(60)), Duration::from_millis(50));
        assert_eq!(pace.learn(0, prefill(100), Duration::from_millis(60)), Duration::from_millis(60));
        // Faster than the decodes alone: it is noise, and no time is negative.
        assert_eq!(pace.learn(2, prefill(1), Duration::from_millis(9)), Duration::ZERO);
    }

    #[test]
    fn a_budget_is_spent_by_what_each_prompt_costs() {
        let pace = Pace { token: Some(0.001), look: 1e-5, ..Pace::default() };
        let mut budget = Budget { seconds: 0.1, tokens: 60 };
        pace.spend(&mut budget, 10, 100);
        let left = 0.1 - 0.01 - 1e-5 * (1000.0 + 45.0);
        assert!((budget.seconds - left).abs() < 1e-9 && budget.tokens == 50, "{budget:?}");
        pace.spend(&mut budget, 50, 1_000_000);
        assert_eq!(budget, Budget { seconds: 0.0, tokens: 0 });
    }
}
