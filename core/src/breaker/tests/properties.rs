//! What holds for every configuration and every course of events.

use proptest::prelude::*;

use super::*;

fn caller_fault() -> impl Strategy<Value = Class> {
    prop_oneof![
        Just(Class::CallerError),
        Just(Class::ContextLength),
        Just(Class::Refused),
        Just(Class::Cancelled),
        Just(Class::Local),
    ]
}

fn any_config() -> impl Strategy<Value = BreakerConfig> {
    (any::<[u16; 3]>(), any::<[f64; 3]>(), any::<[u64; 4]>()).prop_map(|(counts, shares, waits)| {
        BreakerConfig {
            failure_threshold: counts[0].into(),
            rate_min_calls: counts[1].into(),
            probe_successes: counts[2].into(),
            rate_threshold: shares[0],
            slow_threshold: shares[1],
            ramp_start: shares[2],
            window: Duration::from_nanos(waits[0]),
            open_base: Duration::from_secs(waits[1]),
            open_max: Duration::from_millis(waits[2]),
            ramp: Duration::from_millis(waits[3]),
            probe_lease: Duration::ZERO,
            ..BreakerConfig::default()
        }
    })
}

proptest! {
    #[test]
    fn callers_faults_never_change_anything(faults in proptest::collection::vec(caller_fault(), 1..200)) {
        let mut bench = Bench::new(BreakerConfig::default());
        for class in faults {
            prop_assert!(bench.fail(class).is_empty());
        }
        prop_assert_eq!(bench.breaker.revision(), 0);
    }

    #[test]
    fn whatever_is_configured_a_refusal_names_a_time_in_reach(
        config in any_config(),
        steps in proptest::collection::vec((0..Class::ALL.len() + 1, 0u64..100_000, any::<f64>()), 1..100),
    ) {
        let mut bench = Bench::new(config);
        let model = bench.model.clone();
        for (what, wait, roll) in steps {
            let entered = bench.breaker.enter(&model, bench.at, roll);
            let gate = bench.breaker.snapshot().check(&model, bench.at, roll);
            let lease = match entered {
                Ok(Entry::Trial { lease, .. }) => Some(lease),
                Ok(Entry::Normal) => {
                    prop_assert_eq!(gate, GateDecision::Pass);
                    None
                }
                Err(refused) => {
                    prop_assert!(!refused.retry_in.is_zero() && refused.retry_in <= secs(36 * 3600));
                    prop_assert_eq!(gate, GateDecision::Refused(refused));
                    None
                }
            };
            let outcome = Class::ALL.get(what).map_or(OK, |&class| failed(class));
            let report = Report { lease, ..Report::new(&model, outcome) };
            bench.breaker.record(report, bench.at, roll);
            bench.pass(Duration::from_millis(wait));
        }
    }

    #[test]
    fn a_moment_in_any_order_is_survived(jumps in proptest::collection::vec(0u64..10_000_000, 1..100)) {
        let mut bench = Bench::new(BreakerConfig::default());
        let start = bench.at;
        for jump in jumps {
            bench.at = Moment::new(start.mono + Duration::from_millis(jump), Timestamp::MAX);
            bench.fail(Class::ServerError);
            bench.fail(Class::QuotaExhausted);
            let _ = bench.enter();
        }
    }
}
