//! Which queue a free worker serves next.
//!
//! Smooth weighted round-robin (as in nginx's upstream module): each turn every queue that has work gains its
//! weight, the richest is served and pays the sum of the weights that took part. Shares are exact over a round
//! and spread within it, and a queue without work saves nothing up.

use super::words::Lane;

/// Weights of high, normal and batch.
const WEIGHTS: [i64; 3] = [8, 3, 1];

/// Takes turns among the lanes by weight 8 : 3 : 1.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    credit: [i64; 3],
}

impl Turns {
    /// The lane to serve next among those that have work, by their index; `None` when none has.
    pub fn next(&mut self, has_work: [bool; 3]) -> Option<Lane> {
        let mut total = 0;
        let mut best: Option<Lane> = None;
        for lane in Lane::ALL {
            let i = lane.index();
            if !has_work[i] {
                self.credit[i] = 0;
                continue;
            }
            self.credit[i] += WEIGHTS[i];
            total += WEIGHTS[i];
            if best.is_none_or(|other| self.credit[i] > self.credit[other.index()]) {
                best = Some(lane);
            }
        }
        let lane = best?;
        self.credit[lane.index()] -= total;
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_follow_the_weights() {
        let mut turns = Turns::default();
        let mut served = [0; 3];
        for _ in 0..1200 {
            served[turns.next([true; 3]).map_or(0, Lane::index)] += 1;
        }
        assert_eq!(served, [800, 300, 100]);
    }

    #[test]
    fn an_urgent_job_beside_a_backlog_is_served_next() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            turns.next([false, false, true]);
        }
        assert_eq!(turns.next([true, false, true]), Some(Lane::High));
    }

    proptest! {
        #[test]
        fn work_is_served_whenever_there_is_some(steps in prop::collection::vec(any::<[bool; 3]>(), 1..200)) {
            let mut turns = Turns::default();
            for has_work in steps {
                let lane = turns.next(has_work);
                prop_assert_eq!(lane.is_some(), has_work.contains(&true));
                prop_assert!(lane.is_none_or(|lane| has_work[lane.index()]));
            }
        }

        #[test]
        fn no_queue_with_work_waits_for_more_than_a_round(
            others in prop::collection::vec(any::<[bool; 2]>(), 12),
            lane in 0..3_usize,
        ) {
            let mut turns = Turns::default();
            let served = others.iter().any(|other| {
                let mut has_work = [true; 3];
                has_work[(lane + 1) % 3] = other[0];
                has_work[(lane + 2) % 3] = other[1];
                turns.next(has_work).map(Lane::index) == Some(lane)
            });
            prop_assert!(served);
        }
    }
}
