//! Polling with a deadline, and reproducible random numbers.

use std::time::{Duration, Instant};

/// Asks every 5 ms until the condition holds; false when `limit` has passed first.
pub async fn eventually<F>(limit: Duration, mut condition: F) -> bool
where
    F: AsyncFnMut() -> bool,
{
    let deadline = Instant::now() + limit;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for shuffling faults, and replayed by its seed.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice of the seed in `OPOSSUM_TEST_SEED`, else of a fresh one; the seed is printed, so that a failed
    /// run can be repeated.
    #[expect(clippy::print_stderr, reason = "the seed has to be in the output of a failed test")]
    pub fn from_env() -> Self {
        let given = std::env::var("OPOSSUM_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            now.as_secs() ^ u64::from(now.subsec_nanos()).rotate_left(32)
        });
        eprintln!("OPOSSUM_TEST_SEED={seed}");
        Self { state: seed }
    }

    /// Dice of a fixed seed.
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }
}
