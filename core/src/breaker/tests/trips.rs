//! What opens, and what does not.

use super::*;

#[test]
fn five_failures_in_a_row_open_and_a_success_between_them_does_not() {
    let mut bench = Bench::new(BreakerConfig::default());
    for _ in 0..4 {
        assert!(bench.fail(Class::ServerError).is_empty());
    }
    bench.report(OK, None, None);
    for _ in 0..4 {
        assert!(bench.fail(Class::FirstTokenTimeout).is_empty());
    }
    let transitions = bench.fail(Class::Stalled);
    let expected =
        Transition { scope: Scope::Model("m".into()), from: StateName::Closed, to: StateName::Open };
    assert_eq!(transitions.as_slice(), [expected]);
    assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Open, retry_in: secs(60) });
    assert_eq!(bench.transport(), StateName::Closed, "the model's failures are not the backend's");
}

#[test]
fn half_of_ten_calls_in_the_window_open() {
    let mut bench = Bench::new(BreakerConfig::default());
    for _ in 0..4 {
        bench.fail(Class::ServerError);
        bench.report(OK, None, None);
    }
    bench.report(OK, None, None);
    assert_eq!(bench.state(), StateName::Closed);
    bench.fail(Class::ServerError);
    assert_eq!(bench.state(), StateName::Open, "5 of 10");

    let mut slow = Bench::new(BreakerConfig::default());
    for _ in 0..20 {
        slow.fail(Class::ServerError);
        slow.report(OK, None, None);
        slow.pass(secs(2));
    }
    assert_eq!(slow.state(), StateName::Closed, "never ten calls within ten seconds");
}

#[test]
fn a_background_of_errors_never_opens() {
    let mut bench = Bench::new(BreakerConfig::default());
    let model = bench.model.clone();
    for _ in 0..1000 {
        bench.breaker.record_successes(&model, 99, bench.at.mono);
        assert!(bench.fail(Class::ServerError).is_empty());
        bench.pass(Duration::from_millis(100));
    }
}

#[test]
fn transport_failures_open_the_backend_for_every_model() {
    let mut bench = Bench::new(BreakerConfig::default());
    for model in ["a", "b", "c", "d", "e"] {
        bench.model = model.into();
        bench.fail(Class::Transport);
    }
    bench.model = "other".into();
    assert_eq!(bench.refused().reason, RefusedWhy::Open);
    assert_eq!(bench.transport(), StateName::Open);
    assert!(bench.breaker.status(bench.at).models.values().all(|m| m.state == StateName::Closed));
}

#[test]
fn one_request_counts_its_server_errors_once() {
    let mut bench = Bench::new(BreakerConfig::default());
    for _ in 0..50 {
        bench.report(failed(Class::ServerError), None, Some(7));
    }
    assert_eq!(bench.state(), StateName::Closed);
    for request in 0..4 {
        bench.report(failed(Class::BadResponse), None, Some(request));
    }
    assert_eq!(bench.state(), StateName::Open);
}

#[test]
fn a_hang_counts_every_time() {
    let mut bench = Bench::new(BreakerConfig::default());
    for _ in 0..5 {
        bench.report(failed(Class::FirstTokenTimeout), None, Some(7));
    }
    assert_eq!(bench.state(), StateName::Open);
}

#[test]
fn jitter_lengthens_an_interval_by_half_at_most() {
    for (roll, expected) in [(0.0, 60), (0.5, 75), (1.0, 90)] {
        let mut bench = Bench::new(BreakerConfig::default());
        for _ in 0..5 {
            let report = Report::new(&bench.model, failed(Class::ServerError));
            bench.breaker.record(report, bench.at, roll);
        }
        assert_eq!(bench.refused().retry_in, secs(expected));
    }
}

#[test]
fn the_wall_clock_moves_no_breaker() {
    let mut bench = opened();
    for jump in ["2026-01-15T11:00:00Z", "2026-01-15T13:00:00Z"] {
        bench.wall(jump);
        assert_eq!(bench.refused(), Refused { reason: RefusedWhy::Open, retry_in: secs(60) });
    }
}

#[test]
fn slowness_opens_but_never_the_last_backend() {
    for (last_backend, expected) in [(false, StateName::Open), (true, StateName::Closed)] {
        let mut bench = Bench::new(BreakerConfig::default());
        for i in 0..10 {
            let outcome = Outcome::Ok { slow: i >= 2 };
            let report = Report { last_backend, ..Report::new(&bench.model, outcome) };
            bench.breaker.record(report, bench.at, 0.0);
        }
        assert_eq!(bench.state(), expected);
    }
}

#[test]
fn a_breaker_that_is_off_never_opens_but_listens_to_the_upstream() {
    let mut bench = Bench::new(BreakerConfig { enabled: false, ..BreakerConfig::default() });
    for class in [Class::Transport, Class::ServerError, Class::Stalled] {
        for _ in 0..100 {
            bench.fail(class);
        }
    }
    assert_eq!(bench.enter(), Ok(Entry::Normal));
    bench.report(limited(Class::RateLimited, secs(9)), None, None);
    assert_eq!(bench.refused().reason, RefusedWhy::Cooling);
}

#[test]
fn silence_after_the_connection_is_the_models_fault_and_not_the_transports() {
    let mut bench = Bench::new(BreakerConfig::default());
    for model in ["a", "b", "c", "d", "e", "f"] {
        bench.model = model.into();
        bench.fail(Class::FirstTokenTimeout);
    }
    assert_eq!(bench.transport(), StateName::Closed);
}
