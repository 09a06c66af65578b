//! Whether two devices compute the same.

use std::fmt;

use opossum_inference::LoadedModel;

/// Tokens compared.
const TOKENS: usize = 128;
/// How far below the CPU's best logit the device's choice may be, in spreads of the CPU's logits: near ties fall either
/// way, since the devices round differently.
const NEAR: f32 = 0.25;

/// What comparing came to.
pub(crate) struct Agreement {
    same: usize,
    all: usize,
    /// The widest gap of a choice that differs, in spreads.
    widest: f32,
}

impl Agreement {
    /// Nine of ten choices are the same, and the others near ties.
    pub(crate) fn is_good(&self) -> bool {
        10 * self.same >= 9 * self.all && self.widest <= NEAR
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_good() { "" } else { " WRONG" };
        write!(f, "{} of {}, gap {:.2}{verdict}", self.same, self.all, self.widest)
    }
}

/// Teacher forcing: the most likely token after each of the same tokens, on both.
pub(crate) fn compare(device: &LoadedModel, cpu: &LoadedModel) -> Agreement {
    let vocab = cpu.info().vocab;
    let tokens = tokens(cpu);
    let [ours, reference] = [device, cpu].map(|model| {
        model.logits(&tokens).unwrap_or_else(|error| panic!("{}: {error}", model.info().device))
    });
    let mut agreement = Agreement { same: 0, all: tokens.len(), widest: 0.0 };
    for (ours, reference) in ours.chunks_exact(vocab).zip(reference.chunks_exact(vocab)) {
        let (chosen, best) = (best(ours), best(reference));
        agreement.same += usize::from(chosen == best);
        // A logit that is no number makes a gap that is not small.
        let gap = (reference[best] - reference[chosen]) / spread(reference);
        let gap = if ours.iter().all(|logit| logit.is_finite()) { gap } else { f32::INFINITY };
        agreement.widest = agreement.widest.max(gap);
    }
    agreement
}

/// A text where the vocabulary has words, else any tokens.
fn tokens(model: &LoadedModel) -> Vec<u32> {
    let text = "The lighthouse keeper wrote in his book every evening: the wind, the ships that passed, the colour of \
        the sea. Nobody had ever asked him to. On the first day of October a letter came, with a stamp he did not know, \
        and for once he wrote nothing at all. What did it say? He read it again in the morning, folded it, and put it \
        between the pages of the year 1931. Then he climbed the 212 steps, cleaned the lamp, and counted the boats.";
    let mut tokens = model.tokenizer().encode_text(text).unwrap_or_default();
    tokens.extend((0..TOKENS as u32).map(|at| 3 + at * 7919 % 250));
    tokens.truncate(TOKENS);
    tokens
}

fn best(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

/// Standard deviation.
fn spread(logits: &[f32]) -> f32 {
    let mean = logits.iter().sum::<f32>() / logits.len() as f32;
    (logits.iter().map(|logit| (logit - mean).powi(2)).sum::<f32>() / logits.len() as f32).sqrt()
}
