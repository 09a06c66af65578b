//! The random numbers of sampling.
//!
//! A caller's seed must give the same tokens with every later version of this crate, so the generator is fixed here
//! and not taken from a library that may change it.

/// The next number of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014),
/// uniform in `0.0..1.0` with 53 random bits. Advances `state`.
pub fn split_mix_64(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // First outputs of SplitMix64 seeded with 1234567, as listed with the reference implementation.
        let mut state = 1_234_567;
        for expected in [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        {
            assert_eq!(split_mix_64(&mut state), (expected >> 11) as f64 / (1_u64 << 53) as f64);
        }
    }
}
