//! Passes before the first caller.
//!
//! A GPU compiles kernels for shapes it has not met, and tries out several for each. Shapes come in buckets, so that
//! there are few; computing each once leaves the waiting to the start. What was compiled and chosen is kept where
//! [`keep_kernels_in`](crate::device::keep_kernels_in) says.

use burn::tensor::Device;

use super::{BLOCK_TOKENS, BatchEntry, KvCache, LoadedModel, Rows};
use crate::InferenceError;
use crate::ops::{LEAST_SEEN, LEAST_TOKENS, bucket};

/// Most tokens of a prompt in one step.
const MOST_TOKENS: usize = 512;

impl LoadedModel {
    /// Whether the device compiles kernels as it goes.
    pub(crate) fn compiles(&self) -> bool {
        self.place.device != Device::flex()
    }

    /// Computes what steps of up to `sequences` sequences compute, and answers how many passes that took. What the
    /// cache held is lost.
    ///
    /// # Errors
    /// As [`LoadedModel::forward`].
    pub(crate) fn warm_up(&self, cache: &mut KvCache, sequences: usize) -> Result<usize, InferenceError> {
        let context = self.info.context_length.min(cache.blocks() * BLOCK_TOKENS);
        // Every sequence lies in the first block, over and over: what is computed means nothing.
        let blocks = vec![0; context.div_ceil(BLOCK_TOKENS)];
        let tokens = [0; MOST_TOKENS];
        let entry = |count: usize, seen: usize| BatchEntry {
            tokens: &tokens[..count],
            past: seen - count,
            blocks: &blocks,
            rows: Rows::Last,
        };
        let mut batches = Vec::new();
        for seen in buckets(LEAST_SEEN, context) {
            let counts = (0..).map(|power| 1 << power).take_while(|&count| count < 2 * sequences);
            batches.extend(counts.map(|count| vec![entry(1, seen); count]));
        }
        for count in buckets(LEAST_TOKENS, context.min(MOST_TOKENS)) {
            batches.extend([count, context].map(|seen| vec![entry(count, seen)]));
        }
        for batch in &batches {
            self.forward(batch, cache)?;
        }
        Ok(batches.len())
    }
}

/// Every bucket from `least` on, the last one cut to `most`.
fn buckets(least: usize, most: usize) -> impl Iterator<Item = usize> {
    let next = move |size: &usize| (*size < most).then(|| bucket(size + 1, least).min(most));
    std::iter::successors(Some(least.min(most)), next)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::LoadOptions;
    use crate::testing::{TempModel, TinyLlama};

    #[test]
    fn every_size_has_a_bucket_that_was_met() {
        assert_eq!(buckets(64, 300).collect::<Vec<_>>(), [64, 96, 128, 192, 256, 300]);
        assert_eq!(buckets(16, 5).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_cache_computes_as_before_after_it_was_used_to_warm_up() {
        let file = TempModel::new(&TinyLlama { context_length: 100, ..TinyLlama::default() });
        let options = LoadOptions { reference: true, ..LoadOptions::new(file.path()) };
        let model = LoadedModel::load(&options).unwrap();
        let tokens: Vec<u32> = (0..40).map(|at| 10 + at * 7 % 200).collect();
        let compute = |cache: &mut KvCache| {
            let entry = BatchEntry { tokens: &tokens, past: 0, blocks: &[0, 1], rows: Rows::All };
            model.forward(&[entry], cache).unwrap().into_vec()
        };
        let mut cache = model.new_cache(4).unwrap();
        let before = compute(&mut cache);
        // 64, 96 and 100 tokens seen by 1, 2 and 4 sequences; 16, 24, 32, 48, 64, 96 and 100 tokens of a prompt, twice.
        assert_eq!(model.warm_up(&mut cache, 3).unwrap(), 3 * 3 + 7 * 2);
        assert_eq!(compute(&mut cache), before);
    }
}
