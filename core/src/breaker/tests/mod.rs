#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::*;
use crate::class::FailureClass as Class;
use crate::ids::ModelName;
use crate::moment::Moment;

mod holds;
mod owner;
mod properties;
mod trials;
mod trips;

/// A backend's breaker with two clocks that move together.
struct Bench {
    breaker: BackendBreaker,
    at: Moment,
    model: ModelName,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Bench {
    fn new(config: BreakerConfig) -> Self {
        let at = Moment::new(Instant::now(), "2026-01-15T12:00:00Z".parse().unwrap());
        Self { breaker: BackendBreaker::new(config, 0, at.mono), at, model: "m".into() }
    }

    fn pass(&mut self, time: Duration) {
        self.at = Moment::new(self.at.mono + time, self.at.wall + time);
    }

    fn wall(&mut self, text: &str) {
        self.at.wall = text.parse().unwrap();
    }

    fn enter(&mut self) -> Result<Entry, Refused> {
        let model = self.model.clone();
        self.breaker.enter(&model, self.at, 0.5)
    }

    fn trial(&mut self) -> LeaseId {
        match self.enter() {
            Ok(Entry::Trial { lease, .. }) => lease,
            other => panic!("no trial but {other:?}"),
        }
    }

    fn refused(&mut self) -> Refused {
        self.enter().unwrap_err()
    }

    fn report(&mut self, outcome: Outcome, lease: Option<LeaseId>, request: Option<u64>) -> Transitions {
        let model = self.model.clone();
        let report = Report { lease, request, ..Report::new(&model, outcome) };
        self.breaker.record(report, self.at, 0.0)
    }

    fn fail(&mut self, class: Class) -> Transitions {
        self.report(failed(class), None, None)
    }

    fn state(&self) -> StateName {
        self.breaker.status(self.at).models[self.model.as_str()].state
    }

    fn transport(&self) -> StateName {
        self.breaker.status(self.at).backend.state
    }
}

fn failed(class: Class) -> Outcome {
    Outcome::Failed { class, retry_after: None }
}

fn limited(class: Class, wait: Duration) -> Outcome {
    Outcome::Failed { class, retry_after: Some(wait) }
}

const OK: Outcome = Outcome::Ok { slow: false };

fn opened() -> Bench {
    let mut bench = Bench::new(BreakerConfig::default());
    for _ in 0..5 {
        bench.fail(Class::ServerError);
    }
    assert_eq!(bench.state(), StateName::Open);
    bench
}
