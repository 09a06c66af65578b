//! What a caller may ask of one generation.

use crate::InferenceError;
use crate::grammar::Grammar;

/// Most stop strings one job may carry.
pub const MAX_STOP_STRINGS: usize = 16;
/// Longest stop string, in bytes: text is held back up to this length.
pub const MAX_STOP_BYTES: usize = 1024;
/// Most alternatives a token's logprobs may list.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// How one sequence is to be generated. The default is the model's plain distribution, until it ends by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationParams {
    /// Most tokens to generate, at least 1; `None` means as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Softmax temperature, 0 to 2; 0 is greedy decoding.
    pub temperature: f32,
    /// Nucleus sampling: keep the most likely tokens that together reach this probability, above 0 and at most 1.
    pub top_p: f32,
    /// Keep only this many most likely tokens, at least 1; `None` keeps all.
    pub top_k: Option<usize>,
    /// Seed of the random choice; the same seed, prompt and parameters give the same tokens. `None` draws one.
    pub seed: Option<u64>,
    /// Subtracted once from the logit of every token already generated, -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted for every time a token was already generated, -2 to 2.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens, -100 to 100 each.
    pub logit_bias: Vec<(u32, f32)>,
    /// Texts that end the answer; they are not part of it. At most [`MAX_STOP_STRINGS`] of 1 to [`MAX_STOP_BYTES`]
    /// bytes.
    pub stop: Vec<String>,
    /// `Some(n)` asks for the log-probability of each chosen token and of the `n` most likely ones
    /// (0 to [`MAX_TOP_LOGPROBS`]).
    pub logprobs: Option<usize>,
    /// What the answer must look like; `None` leaves it free. Only tokens that can lead to a whole text of the grammar
    /// are chosen, and the model may end its answer only where the text is whole.
    pub grammar: Option<Grammar>,
}

impl Default for GenerationParams {
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            seed: None,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            stop: Vec::new(),
            logprobs: None,
            grammar: None,
        }
    }
}

impl GenerationParams {
    /// Checks every range given at the fields.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] naming the first field that is out of range.
    pub fn validate(&self) -> Result<(), InferenceError> {
        check(self.max_tokens != Some(0), "max_tokens", "must be at least 1")?;
        check((0.0..=2.0).contains(&self.temperature), "temperature", "must be between 0 and 2")?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", "must be above 0 and at most 1")?;
        check(self.top_k != Some(0), "top_k", "must be at least 1")?;
        check((-2.0..=2.0).contains(&self.presence_penalty), "presence_penalty", "must be between -2 and 2")?;
        check(
            (-2.0..=2.0).contains(&self.frequency_penalty),
            "frequency_penalty",
            "must be between -2 and 2",
        )?;
        let bias_in_range = self.logit_bias.iter().all(|(_, bias)| (-100.0..=100.0).contains(bias));
        check(bias_in_range, "logit_bias", "must be between -100 and 100")?;
        check(self.stop.len() <= MAX_STOP_STRINGS, "stop", "has too many entries")?;
        let stops_fit = self.stop.iter().all(|stop| (1..=MAX_STOP_BYTES).contains(&stop.len()));
        check(stops_fit, "stop", "must be 1 to 1024 bytes long")?;
        check(self.logprobs.is_none_or(|top| top <= MAX_TOP_LOGPROBS), "logprobs", "must be at most 20")
    }
}

fn check(holds: bool, name: &'static str, reason: &str) -> Result<(), InferenceError> {
    if holds { Ok(()) } else { Err(InferenceError::BadParameter { name, reason: reason.to_owned() }) }
}

/// The log-probability of one generated token, under the model's own distribution (before temperature and cuts).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token and its log-probability.
    pub chosen: TopLogprob,
    /// The most likely tokens at this position, best first, as many as were asked for.
    pub top: Vec<TopLogprob>,
}

/// One token with its natural-logarithm probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// Token id in the model's vocabulary.
    pub id: u32,
    /// The token's bytes; a single token need not be valid UTF-8.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability, at most 0.
    pub logprob: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_default_is_valid_and_each_range_is_enforced() {
        assert_eq!(GenerationParams::default().validate(), Ok(()));
        let bad = |change: fn(&mut GenerationParams)| {
            let mut params = GenerationParams::default();
            change(&mut params);
            params.validate().map_err(|error| error.kind())
        };
        let cases: [fn(&mut GenerationParams); 13] = [
            |p| p.max_tokens = Some(0),
            |p| p.temperature = -0.1,
            |p| p.temperature = f32::NAN,
            |p| p.temperature = 2.5,
            |p| p.top_p = 0.0,
            |p| p.top_p = f32::NAN,
            |p| p.top_k = Some(0),
            |p| p.presence_penalty = 2.1,
            |p| p.frequency_penalty = f32::INFINITY,
            |p| p.logit_bias = vec![(0, 101.0)],
            |p| p.stop = vec![String::new()],
            |p| p.stop = vec!["x".to_owned(); MAX_STOP_STRINGS + 1],
            |p| p.logprobs = Some(MAX_TOP_LOGPROBS + 1),
        ];
        for (index, case) in cases.into_iter().enumerate() {
            assert_eq!(bad(case), Err(ErrorKind::BadParameter), "case {index}");
        }
    }
}
