use proptest::prelude::*;

use super::*;

fn limiter(slots: u32) -> Limiter {
    Limiter::new(AdmissionConfig { max_in_flight: slots, queue: 2 * slots, ..AdmissionConfig::default() })
}

fn run(limiter: &mut Limiter, lane: Lane, times: usize) -> usize {
    let now = Instant::now();
    (0..times).filter(|_| limiter.arrive(lane, now) == Verdict::Run).count()
}

#[test]
fn slots_then_queue_then_refusal() {
    let now = Instant::now();
    let mut limiter = limiter(10);
    assert_eq!(run(&mut limiter, Lane::Live, 10), 10);
    for _ in 0..18 {
        assert_eq!(limiter.arrive(Lane::Live, now), Verdict::Wait { until: now + Duration::from_secs(10) });
    }
    assert_eq!(limiter.arrive(Lane::Live, now), Verdict::Refuse { retry_after: Duration::from_secs(1) });
}

#[test]
fn batch_takes_what_is_idle_but_leaves_room_for_a_person() {
    let mut limiter = limiter(10);
    assert_eq!(run(&mut limiter, Lane::Batch, 20), 9);
    assert_eq!(run(&mut limiter, Lane::Live, 1), 1);
}

#[test]
fn batch_keeps_its_share_under_a_flood_of_live_requests() {
    let mut limiter = limiter(10);
    run(&mut limiter, Lane::Live, 30);
    run(&mut limiter, Lane::Batch, 5);
    assert_eq!(limiter.counts().batch.waiting, 2, "a tenth of the queue is its own");
}

#[test]
fn a_freed_slot_goes_to_batch_below_its_share_then_to_live() {
    let mut limiter = limiter(10);
    run(&mut limiter, Lane::Live, 15);
    run(&mut limiter, Lane::Batch, 2);
    limiter.release(Lane::Live, None);
    assert_eq!(limiter.admit_next(), Some(Lane::Batch));
    limiter.release(Lane::Live, None);
    assert_eq!(limiter.admit_next(), Some(Lane::Live));
    assert_eq!(limiter.admit_next(), None);
}

#[test]
fn a_newcomer_does_not_overtake_who_waits() {
    let mut limiter = limiter(1);
    run(&mut limiter, Lane::Live, 2);
    limiter.release(Lane::Live, None);
    limiter.arrive(Lane::Live, Instant::now());
    assert_eq!(limiter.counts().live.running, 0, "the slot is for the one who came first");
    assert_eq!(limiter.admit_next(), Some(Lane::Live));
}

#[test]
fn the_time_to_come_again_follows_queue_and_service() {
    let mut limiter = limiter(10);
    run(&mut limiter, Lane::Live, 1);
    limiter.release(Lane::Live, Some(Duration::from_secs(4)));
    assert_eq!(limiter.retry_after(), Duration::from_secs(1));
    run(&mut limiter, Lane::Live, 30);
    // 18 wait, and the newcomer, in turns of 10 at 4 s each.
    assert_eq!(limiter.retry_after(), Duration::from_secs(8));
    limiter.release(Lane::Live, Some(Duration::from_secs(100_000)));
    assert_eq!(limiter.retry_after(), Duration::from_secs(60));
}

proptest! {
    #[test]
    fn no_slot_is_lost_or_given_twice(
        slots in 1u32..20,
        steps in proptest::collection::vec((0u8..3, any::<bool>()), 1..300),
    ) {
        let now = Instant::now();
        let mut limiter = limiter(slots);
        // The model: who runs and who waits, by lane (0 live, 1 batch).
        let (mut running, mut waiting) = ([0u32; 2], [0u32; 2]);
        for (what, batch) in steps {
            let lane = if batch { Lane::Batch } else { Lane::Live };
            let i = usize::from(batch);
            match what {
                0 => match limiter.arrive(lane, now) {
                    Verdict::Run => running[i] += 1,
                    Verdict::Wait { .. } => waiting[i] += 1,
                    Verdict::Refuse { retry_after } => {
                        prop_assert!((1..=60).contains(&retry_after.as_secs()));
                        prop_assert!(running.iter().sum::<u32>() + waiting.iter().sum::<u32>() > 0);
                    }
                },
                1 if running[i] > 0 => {
                    running[i] -= 1;
                    limiter.release(lane, Some(Duration::from_millis(500)));
                }
                2 if waiting[i] > 0 => {
                    waiting[i] -= 1;
                    limiter.give_up(lane);
                }
                _ => {}
            }
            while let Some(lane) = limiter.admit_next() {
                let i = match lane { Lane::Live => 0, Lane::Batch => 1 };
                prop_assert!(waiting[i] > 0);
                waiting[i] -= 1;
                running[i] += 1;
            }
            let counts = limiter.counts();
            prop_assert_eq!([counts.live.running, counts.batch.running], running);
            prop_assert_eq!([counts.live.waiting, counts.batch.waiting], waiting);
            prop_assert!(running.iter().sum::<u32>() <= slots);
            prop_assert!(waiting.iter().sum::<u32>() <= 2 * slots);
            // Nobody of the live lane waits while a slot is free.
            prop_assert!(waiting[0] == 0 || running.iter().sum::<u32>() == slots);
        }
    }
}
