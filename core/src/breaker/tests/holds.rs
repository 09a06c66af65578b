//! Pauses, spent allowances, refused credentials and models.

use super::*;

#[test]
fn the_longest_wait_wins_and_none_exceeds_ten_minutes() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.report(limited(Class::RateLimited, secs(30)), None, None);
    bench.report(limited(Class::RateLimited, secs(3)), None, None);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Cooling, retry_in: secs(30) });
    bench.report(limited(Class::RateLimited, secs(86_400)), None, None);
    assert_eq!(bench.refused().retry_in, secs(600));
    bench.pass(secs(600));
    assert_eq!(bench.enter(), Ok(Entry::Normal), "after a pause everyone may come, without a trial");
    assert_eq!(bench.state(), StateName::Closed);
}

#[test]
fn a_limit_that_names_no_wait_doubles_once_a_pause_and_not_once_a_call() {
    let mut bench = Bench::new(BreakerConfig::default());
    for _ in 0..100 {
        bench.fail(Class::RateLimited);
    }
    assert!(bench.refused().retry_in <= secs(2), "{:?}", bench.refused());
    bench.pass(secs(2));
    bench.report(OK, None, None);
    bench.report(limited(Class::RateLimited, Duration::ZERO), None, None);
    assert_eq!(bench.refused().retry_in, secs(1), "a wait of nothing is none named");
    assert_eq!(bench.fail(Class::RateLimited).len(), 0);
}

#[test]
fn limits_never_open() {
    let mut bench = Bench::new(BreakerConfig::default());
    for _ in 0..100 {
        bench.fail(Class::RateLimited);
        bench.pass(secs(61));
    }
    assert_eq!(bench.breaker.status(bench.at).models["m"].trips, 0);
}

fn gemini() -> Bench {
    Bench::new(BreakerConfig { quota: QuotaRenewal::PacificMidnight, ..BreakerConfig::default() })
}

#[test]
fn a_spent_day_lasts_until_midnight_pacific_then_one_tries() {
    // 23:59 and 00:01 there, in winter, and on both nights of the clock change.
    for (now, hours, minutes) in [
        ("2026-01-16T07:59:00Z", 0, 1),
        ("2026-01-16T08:01:00Z", 23, 59),
        ("2026-03-08T08:01:00Z", 22, 59),
        ("2026-11-01T07:01:00Z", 24, 59),
    ] {
        let mut bench = gemini();
        bench.wall(now);
        // The wait of seconds that comes beside it does not count.
        bench.report(limited(Class::QuotaExhausted, secs(30)), None, None);
        let left = secs(hours * 3600 + minutes * 60);
        assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Exhausted, retry_in: left }, "{now}");
        bench.model = "other".into();
        assert_eq!(bench.enter(), Ok(Entry::Normal), "another model has its own allowance");
        bench.model = "m".into();
        bench.pass(left);
        let lease = bench.trial();
        assert_eq!(bench.refused().reason, RefusedWhy::TrialInFlight);
        bench.report(OK, Some(lease), None);
        assert_eq!(bench.enter(), Ok(Entry::Normal));
    }
}

#[test]
fn an_allowance_still_spent_at_its_renewal_costs_an_hour_and_not_a_day() {
    let mut bench = gemini();
    bench.fail(Class::QuotaExhausted);
    let wait = bench.refused().retry_in;
    bench.pass(wait);
    let lease = bench.trial();
    bench.report(failed(Class::QuotaExhausted), Some(lease), None);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Exhausted, retry_in: secs(3600) });
}

#[test]
fn credit_elsewhere_is_out_for_an_hour_or_as_told() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.fail(Class::QuotaExhausted);
    assert_eq!(bench.refused().retry_in, secs(3600));
    bench.report(limited(Class::QuotaExhausted, secs(7200)), None, None);
    assert_eq!(bench.refused().retry_in, secs(7200));
}

#[test]
fn a_refused_credential_is_tried_once_in_five_minutes() {
    let mut bench = Bench::new(BreakerConfig::default());
    let transitions = bench.fail(Class::BadCredential);
    assert_eq!(transitions[0].scope, Scope::Backend);
    bench.model = "other".into();
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Disabled, retry_in: secs(300) });
    let mut trials = 0;
    for _ in 0..3600 {
        bench.pass(secs(1));
        if let Ok(Entry::Trial { lease, .. }) = bench.enter() {
            trials += 1;
            let class = if trials % 2 == 0 { Class::BadCredential } else { Class::Cancelled };
            bench.report(failed(class), Some(lease), None);
        }
    }
    assert_eq!(trials, 12);
}

#[test]
fn a_missing_model_is_off_alone_and_comes_back_when_it_is_there() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.fail(Class::ModelMissing);
    assert_eq!(bench.refused().reason, RefusedWhy::Disabled);
    bench.model = "other".into();
    assert_eq!(bench.enter(), Ok(Entry::Normal));
    bench.model = "m".into();
    bench.pass(secs(300));
    let lease = bench.trial();
    let transitions = bench.report(OK, Some(lease), None);
    assert_eq!((transitions[0].from, transitions[0].to), (StateName::Disabled, StateName::Closed));
    assert_eq!(bench.enter(), Ok(Entry::Normal));
}

#[test]
fn only_a_trial_lifts_a_hold() {
    for class in [Class::QuotaExhausted, Class::ModelMissing] {
        let mut bench = Bench::new(BreakerConfig::default());
        bench.fail(class);
        // It began before the hold and says nothing of now.
        assert!(bench.report(OK, None, None).is_empty());
        bench.refused();
    }
}

#[test]
fn of_several_reasons_the_longest_is_named() {
    let mut bench = opened();
    bench.report(limited(Class::RateLimited, secs(90)), None, None);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Cooling, retry_in: secs(90) });
    bench.fail(Class::BadCredential);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Disabled, retry_in: secs(300) });
    bench.report(limited(Class::RateLimited, secs(500)), None, None);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Cooling, retry_in: secs(500) });
}
