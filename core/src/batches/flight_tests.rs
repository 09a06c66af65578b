use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn launched(flight: &mut Flight, now: UnixMillis) -> Vec<u32> {
    std::iter::from_fn(|| flight.launch(now)).map(|launch| launch.line).collect()
}

#[test]
fn lines_are_published_in_order_and_no_more_than_the_window_at_once() {
    let mut flight = Flight::new(100);
    assert_eq!(launched(&mut flight, 0), (0..16).collect::<Vec<_>>());
    assert_eq!(flight.land(3, Verdict::Succeeded, 1), Landed::Over(true));
    assert_eq!(launched(&mut flight, 1), [16, 17], "one for the place, one more for the answer");
    for line in [0, 1, 2] {
        flight.land(line, Verdict::Failed, 2);
    }
    assert_eq!(launched(&mut flight, 2).len(), 6);
}

#[test]
fn while_nothing_answers_one_line_at_a_time_feels_for_a_service() {
    let mut flight = Flight::new(1000);
    let mut now = 0;
    let mut launches = 0;
    while now < 24 * 3_600_000 {
        let lines = launched(&mut flight, now);
        launches += lines.len();
        now += 40_000;
        for line in lines {
            assert!(
                matches!(flight.land(line, Verdict::Passing, now), Landed::Again(_)),
                "nobody is given up"
            );
        }
    }
    assert!(launches < 2_300, "{launches} in a day without an answer");
    for line in launched(&mut flight, now) {
        flight.land(line, Verdict::Succeeded, now);
    }
    assert_eq!(launched(&mut flight, now).len(), 2, "and it grows again with answers");
}

#[test]
fn a_line_that_alone_fails_is_given_up_after_the_third_time() {
    let mut flight = Flight::new(4);
    let mut now = 0;
    for attempt in 1..=3 {
        assert!(launched(&mut flight, now).contains(&0));
        // Somebody else is answered meanwhile.
        assert_eq!(flight.land(attempt, Verdict::Succeeded, now), Landed::Over(true));
        match flight.land(0, Verdict::Passing, now) {
            Landed::Again(mark) => {
                assert_eq!((mark.attempt, mark.faults), (attempt + 1, attempt));
                assert_eq!(mark.not_before - now, 5_000 << (attempt - 1));
                now = mark.not_before;
            }
            landed => assert_eq!((attempt, landed), (3, Landed::Over(false))),
        }
    }
    assert_eq!(flight.land(0, Verdict::Succeeded, now), Landed::Unknown, "what is over stays over");
}

#[test]
fn a_line_that_was_not_published_or_is_silent_is_published_under_the_same_number() {
    let mut flight = Flight::new(1);
    assert_eq!(flight.launch(0), Some(Launch { line: 0, attempt: 1 }));
    flight.returned(0, 1000);
    assert_eq!((flight.launch(999), flight.launch(1000)), (None, Some(Launch { line: 0, attempt: 1 })));
    assert_eq!(flight.launch(1000 + SILENCE - 1), None);
    assert_eq!(flight.launch(1000 + SILENCE), Some(Launch { line: 0, attempt: 1 }));
    assert_eq!(flight.aloft().count(), 1);
}

#[test]
fn what_was_known_before_is_not_done_again() {
    let mut flight = Flight::new(4);
    flight.recall_over(0);
    flight.recall_over(0);
    flight.recall_mark(1, Mark { attempt: 3, faults: 1, not_before: 50 });
    flight.recall_mark(2, Mark { attempt: 2, faults: 0, not_before: 0 });
    assert_eq!(
        (flight.next_attempt(0), flight.next_attempt(2), flight.next_attempt(3)),
        (None, Some(2), Some(1))
    );
    flight.recall_aloft(2, 0);
    assert_eq!(flight.launch(0), Some(Launch { line: 3, attempt: 1 }));
    assert_eq!(flight.launch(0), None);
    assert_eq!(flight.launch(50), Some(Launch { line: 1, attempt: 3 }));
    for line in 1..4 {
        assert!(!flight.is_over());
        flight.land(line, Verdict::Succeeded, 60);
    }
    assert!(flight.is_over());
}

proptest! {
    /// Whatever fails and whenever it is begun anew, every line is over once, and no attempt's number is used
    /// for two.
    #[test]
    fn every_line_is_over_exactly_once(
        lines in 1..80_u32,
        verdicts in proptest::collection::vec(0..3_u8, 1..200),
        crashes in proptest::collection::btree_set(0..200_usize, 0..4),
    ) {
        let mut flight = Flight::new(lines);
        let (mut now, mut over, mut used) = (0, BTreeSet::new(), BTreeSet::new());
        let mut marks: BTreeMap<u32, Mark> = BTreeMap::new();
        let mut verdicts = verdicts.into_iter().map(|kind| match kind {
            0 => Verdict::Passing,
            1 => Verdict::Failed,
            _ => Verdict::Succeeded,
        });
        let mut step = 0;
        while !flight.is_over() {
            step += 1;
            now += 60_000;
            let launches: Vec<Launch> = std::iter::from_fn(|| flight.launch(now)).collect();
            for launch in &launches {
                prop_assert!(used.insert((launch.line, launch.attempt)) || crashes.iter().any(|c| *c < step));
            }
            if crashes.contains(&step) {
                flight = Flight::new(lines);
                over.iter().for_each(|line| flight.recall_over(*line));
                marks.iter().for_each(|(line, mark)| flight.recall_mark(*line, *mark));
                continue;
            }
            for launch in launches {
                match flight.land(launch.line, verdicts.next().unwrap_or(Verdict::Succeeded), now) {
                    Landed::Over(_) => prop_assert!(over.insert(launch.line), "{} twice", launch.line),
                    Landed::Again(mark) => {
                        prop_assert_eq!(mark.attempt, launch.attempt + 1);
                        marks.insert(launch.line, mark);
                    }
                    Landed::Unknown => prop_assert!(false),
                }
            }
            prop_assert!(step < 10_000);
        }
        prop_assert_eq!(over.len(), lines as usize);
    }
}
