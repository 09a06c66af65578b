//! Half-open: permits, leases, closing and the ramp.

use super::*;

#[test]
fn exactly_one_of_a_hundred_enters_at_half_open() {
    let mut bench = opened();
    bench.pass(secs(60));
    let gate = bench.breaker.snapshot();
    assert_eq!(gate.check(&bench.model, bench.at, 0.5), GateDecision::AskActor);
    let entered = (0..100).filter(|_| bench.enter().is_ok()).count();
    assert_eq!(entered, 1);
    assert_eq!(bench.state(), StateName::HalfOpen);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::TrialInFlight, retry_in: secs(20) });
}

#[test]
fn two_good_trials_close_and_a_ramp_follows() {
    let mut bench = opened();
    bench.pass(secs(60));
    let first = bench.trial();
    assert!(bench.report(OK, Some(first), None).is_empty());
    assert_eq!(bench.state(), StateName::HalfOpen);
    let second = bench.trial();
    let transitions = bench.report(OK, Some(second), None);
    assert_eq!(transitions[0].to, StateName::Ramping);

    let model = bench.model.clone();
    let admitted = |bench: &mut Bench| {
        (0..1000).filter(|i| bench.breaker.enter(&model, bench.at, f64::from(*i) / 1000.0).is_ok()).count()
    };
    assert_eq!(admitted(&mut bench), 100);
    bench.pass(secs(15));
    assert_eq!(admitted(&mut bench), 550);
    bench.pass(secs(15));
    assert_eq!(admitted(&mut bench), 1000);
    assert_eq!(bench.state(), StateName::Closed);
}

#[test]
fn a_caller_without_another_candidate_is_admitted_by_every_ramp() {
    let mut bench = opened();
    bench.pass(secs(60));
    for _ in 0..2 {
        let lease = bench.trial();
        bench.report(OK, Some(lease), None);
    }
    assert_eq!(bench.refused().reason, RefusedWhy::Ramping);
    assert_eq!(bench.breaker.enter(&bench.model.clone(), bench.at, 0.0), Ok(Entry::Normal));
    assert_eq!(bench.breaker.snapshot().check(&bench.model, bench.at, 0.0), GateDecision::Pass);
}

#[test]
fn failed_trials_double_the_interval_up_to_five_minutes() {
    let mut bench = opened();
    for expected in [120, 240, 300, 300] {
        let wait = bench.refused().retry_in;
        bench.pass(wait);
        let lease = bench.trial();
        bench.report(failed(Class::ServerError), Some(lease), None);
        assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Open, retry_in: secs(expected) });
    }
}

#[test]
fn a_cancelled_trial_gives_the_permit_back() {
    for class in [Class::Cancelled, Class::Local, Class::CallerError, Class::ContextLength, Class::Refused] {
        let mut bench = opened();
        bench.pass(secs(60));
        let lease = bench.trial();
        bench.report(failed(class), Some(lease), None);
        assert_eq!(bench.state(), StateName::HalfOpen, "{class:?} is neither success nor failure");
        bench.trial();
    }
}

#[test]
fn a_trial_that_hangs_loses_its_permit_but_its_result_still_counts() {
    let mut bench = opened();
    bench.pass(secs(60));
    let hung = bench.trial();
    bench.pass(secs(20));
    let next = bench.trial();
    bench.report(failed(Class::FirstTokenTimeout), Some(hung), None);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Open, retry_in: secs(120) });
    // The other trial belongs to an episode that is over.
    bench.report(OK, Some(next), None);
    assert_eq!(bench.state(), StateName::Open);
}

#[test]
fn what_began_before_the_opening_does_not_close_or_reopen() {
    let mut bench = opened();
    bench.report(OK, None, None);
    bench.fail(Class::ServerError);
    assert_eq!(bench.refused().retry_in, secs(60));
    bench.pass(secs(60));
    bench.trial();
    bench.fail(Class::ServerError);
    bench.report(OK, None, None);
    bench.report(OK, None, None);
    assert_eq!(bench.state(), StateName::HalfOpen);
}

#[test]
fn a_trial_of_both_transport_and_model_is_judged_for_each() {
    let mut bench = opened();
    for _ in 0..5 {
        bench.fail(Class::Transport);
    }
    bench.pass(secs(60));
    for _ in 0..2 {
        let lease = bench.trial();
        bench.report(failed(Class::RateLimited), Some(lease), None);
        bench.pass(secs(10));
    }
    assert_eq!(bench.transport(), StateName::Ramping, "a limit proves that the backend is there");
    assert_eq!(bench.state(), StateName::HalfOpen, "but not that the model works");
    bench.pass(secs(60));
    let lease = bench.trial();
    bench.report(failed(Class::Transport), Some(lease), None);
    assert_eq!(bench.state(), StateName::Open);
}

#[test]
fn a_permit_of_a_lost_instance_is_no_permit_here() {
    let mut bench = opened();
    bench.pass(secs(60));
    let old = bench.trial();
    bench.breaker = BackendBreaker::new(BreakerConfig::default(), 1, bench.at.mono);
    for _ in 0..5 {
        bench.fail(Class::ServerError);
    }
    bench.pass(secs(60));
    bench.trial();
    bench.report(failed(Class::ServerError), Some(old), None);
    assert_eq!(bench.state(), StateName::HalfOpen);
}

#[test]
fn a_permit_of_an_earlier_episode_lifts_nothing_later() {
    let mut bench = opened();
    bench.fail(Class::QuotaExhausted);
    bench.pass(secs(3600));
    let hung = bench.trial();
    bench.pass(secs(20));
    let lease = bench.trial();
    bench.report(failed(Class::ServerError), Some(lease), None);
    bench.pass(secs(120));
    bench.trial();
    bench.report(OK, Some(hung), None);
    assert_eq!(bench.state(), StateName::Exhausted);
}
