//! What the owner does: operating, publishing, saving.

use super::*;

#[test]
fn the_operator_has_the_last_word() {
    let mut bench = Bench::new(BreakerConfig::default());
    bench.breaker.force_open(None, bench.at.mono);
    bench.pass(secs(100_000));
    assert_eq!(bench.refused().reason, RefusedWhy::Open);
    let transitions = bench.breaker.force_close(None, bench.at.mono);
    assert_eq!(transitions[0].to, StateName::Closed);
    assert_eq!(bench.enter(), Ok(Entry::Normal));

    let mut bench = opened();
    bench.report(limited(Class::RateLimited, secs(9)), None, None);
    bench.breaker.force_close(Some(&"m".into()), bench.at.mono);
    assert_eq!(bench.refused().reason, RefusedWhy::Cooling, "a wait is not ours to forgive");
    bench.breaker.reset(None, bench.at.mono);
    assert_eq!(bench.enter(), Ok(Entry::Normal));
}

#[test]
fn the_revision_tells_when_a_snapshot_is_out_of_date() {
    let mut bench = Bench::new(BreakerConfig::default());
    let revision = bench.breaker.revision();
    bench.report(OK, None, None);
    bench.fail(Class::ServerError);
    bench.fail(Class::CallerError);
    assert_eq!(bench.breaker.revision(), revision, "counting is not news");
    bench.fail(Class::RateLimited);
    assert!(bench.breaker.revision() > revision);
}

#[test]
fn a_saved_status_brings_the_waits_back() {
    let mut bench = opened();
    bench.model = "cold".into();
    bench.report(limited(Class::RateLimited, secs(90)), None, None);
    let text = serde_json::to_string(&bench.breaker.status(bench.at)).unwrap();
    let saved: BackendStatus = serde_json::from_str(&text).unwrap();

    let mut other = Bench::new(BreakerConfig::default());
    other.breaker.restore(&saved, other.at);
    assert_eq!(other.refused(), Refused { reason: RefusedWhy::Open, retry_in: secs(60) });
    other.model = "cold".into();
    assert_eq!(other.refused(), Refused { reason: RefusedWhy::Cooling, retry_in: secs(90) });
}

#[test]
fn the_number_of_models_is_bounded() {
    let mut bench = Bench::new(BreakerConfig::default());
    for i in 0..3000 {
        bench.model = ModelName::new(format!("m{i}"));
        bench.fail(Class::ServerError);
        bench.pass(Duration::from_millis(1));
    }
    assert_eq!(bench.breaker.status(bench.at).models.len(), 1024);
}

#[test]
fn new_numbers_take_effect_without_losing_a_state() {
    let mut bench = opened();
    bench.breaker.reconfigure(BreakerConfig { window: secs(20), ..BreakerConfig::default() });
    assert_eq!(bench.state(), StateName::Open);
    bench.breaker.reconfigure(BreakerConfig { enabled: false, ..BreakerConfig::default() });
    assert_eq!(bench.enter(), Ok(Entry::Normal));
    bench.breaker.reconfigure(BreakerConfig { failure_threshold: 1, ..BreakerConfig::default() });
    bench.fail(Class::Stalled);
    assert_eq!(bench.state(), StateName::Open);
}
