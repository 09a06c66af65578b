//! What fails, and when: a pure function of a seed and a length.
//!
//! A run is a row of acts. In each the broker and the workers fail side by side, and afterwards the store is
//! lost, alone: a job that runs while the store is away may be answered in two ways if its worker dies as well,
//! or if it is asked twice, which is the one thing that is not promised.

use std::time::Duration;

use opossum_testkit::Dice;

/// Replicas of the service.
pub(crate) const WORKERS: usize = 3;

/// How long an act takes, more or less.
const ACT: Duration = Duration::from_secs(40);

/// RabbitMQ 3.10 may lose a queue that is a second old when it is killed.
const SETTLED: Duration = Duration::from_secs(3);

/// The longest freeze of a short run, in milliseconds: publishing gives up meanwhile.
const SHORT_FREEZE: u64 = 8_000;

/// The longest of another: every heartbeat is missed meanwhile.
const LONG_FREEZE: u64 = 30_000;

/// What happens to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokerFault {
    /// Killed, and started again after so long.
    Kill { away: Duration },
    /// Stopped in its tracks for so long, its sockets open.
    Freeze { lasts: Duration },
    /// It closes all connections, those of the callers too.
    CloseConnections,
}

/// What happens to one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerFault {
    /// Killed, and started again after so long.
    Kill { away: Duration },
    /// One of its connections is cut.
    Cut(Link),
    /// Nothing arrives any more of what it says on one of its connections, which stays open.
    Mute(Link),
}

/// A worker's connections to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The one that takes jobs and acknowledges them.
    Consumer,
    /// The one that sends replies.
    Publisher,
}

/// A fault, and the pause before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timed<F> {
    pub(crate) after: Duration,
    pub(crate) fault: F,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    /// One after the other.
    pub(crate) broker: Vec<Timed<BrokerFault>>,
    /// One after the other, beside those of the broker, each with the worker that it hits.
    pub(crate) workers: Vec<Timed<(usize, WorkerFault)>>,
    /// Afterwards the store is lost, for so long.
    pub(crate) store_away: Duration,
}

/// The acts of a run that is to last about so long.
pub(crate) fn plan(dice: &mut Dice, length: Duration) -> Vec<Act> {
    let acts = (length.as_millis() / ACT.as_millis()).max(1);
    (0..acts).map(|number| act(dice, if number == 0 { SHORT_FREEZE } else { LONG_FREEZE })).collect()
}

/// An act in which the broker is frozen for so long at most, in milliseconds.
fn act(dice: &mut Dice, longest_freeze: u64) -> Act {
    let mut broker = vec![
        BrokerFault::Kill { away: between(dice, 0, 1500) },
        BrokerFault::Freeze { lasts: between(dice, 1000, longest_freeze) },
        BrokerFault::CloseConnections,
    ];
    shuffle(dice, &mut broker);
    let mut broker = timed(dice, broker, 500, 2500);
    broker[0].after += SETTLED;
    let mut workers = vec![
        WorkerFault::Cut(Link::Consumer),
        WorkerFault::Cut(Link::Publisher),
        WorkerFault::Mute(Link::Consumer),
        WorkerFault::Mute(Link::Publisher),
    ];
    let kills = 6 + dice.below(5);
    workers.extend((0..kills).map(|_| WorkerFault::Kill { away: between(dice, 0, 1000) }));
    shuffle(dice, &mut workers);
    let hit = workers.into_iter().map(|fault| (dice.below(WORKERS as u64) as usize, fault)).collect();
    let workers = timed(dice, hit, 200, 2200);
    Act { broker, workers, store_away: between(dice, 500, 4000) }
}

/// Each fault with a pause before it, of so many milliseconds.
fn timed<F>(dice: &mut Dice, faults: Vec<F>, least: u64, most: u64) -> Vec<Timed<F>> {
    faults.into_iter().map(|fault| Timed { after: between(dice, least, most), fault }).collect()
}

fn between(dice: &mut Dice, least: u64, most: u64) -> Duration {
    Duration::from_millis(least + dice.below(most - least))
}

/// Fisher and Yates.
fn shuffle<T>(dice: &mut Dice, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, dice.below(last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn of(seed: u64, length: Duration) -> Vec<Act> {
        plan(&mut Dice::seeded(seed), length)
    }

    #[test]
    fn a_seed_gives_the_same_plan_again_and_another_seed_another() {
        assert_eq!(of(7, 5 * MINUTE), of(7, 5 * MINUTE));
        assert_ne!(of(7, 5 * MINUTE), of(8, 5 * MINUTE));
        assert_eq!(of(7, 5 * MINUTE)[..1], of(7, MINUTE)[..], "a longer run begins as a short one");
    }

    #[test]
    fn a_minute_has_every_fault_and_five_have_it_again_and_again() {
        for seed in 0..200 {
            assert_eq!(of(seed, 5 * MINUTE).len(), 7);
            let acts = of(seed, MINUTE);
            let broker = |is: fn(BrokerFault) -> bool| {
                acts.iter().flat_map(|act| &act.broker).filter(|timed| is(timed.fault)).count()
            };
            assert_eq!(broker(|fault| matches!(fault, BrokerFault::Kill { .. })), 1);
            assert_eq!(broker(|fault| matches!(fault, BrokerFault::Freeze { .. })), 1);
            assert_eq!(broker(|fault| fault == BrokerFault::CloseConnections), 1);
            let hits: Vec<_> = acts.iter().flat_map(|act| &act.workers).map(|timed| timed.fault).collect();
            for link in [Link::Consumer, Link::Publisher] {
                for fault in [WorkerFault::Cut(link), WorkerFault::Mute(link)] {
                    assert!(hits.iter().any(|(_, hit)| *hit == fault), "{fault:?} in {acts:?}");
                }
            }
            let kills = hits.iter().filter(|(_, hit)| matches!(hit, WorkerFault::Kill { .. })).count();
            assert!((6..=10).contains(&kills), "{kills}");
            assert!(hits.iter().all(|(worker, _)| *worker < WORKERS));
        }
    }

    #[test]
    fn every_worker_is_killed_in_a_run_of_five_minutes_and_no_queue_is_young_when_the_broker_is() {
        for seed in 0..200 {
            let acts = of(seed, 5 * MINUTE);
            for worker in 0..WORKERS {
                let killed = |timed: &Timed<(usize, WorkerFault)>| {
                    timed.fault.0 == worker && matches!(timed.fault.1, WorkerFault::Kill { .. })
                };
                assert!(acts.iter().flat_map(|act| &act.workers).any(killed), "{worker} of {seed}");
            }
            assert!(acts.iter().all(|act| act.broker[0].after >= SETTLED));
        }
    }
}
