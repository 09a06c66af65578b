//! Ten thousand short lives of a backend's breakers, each from its own seed: callers come, leave, hang and
//! report outcomes of every class in any order, time passes unevenly. Whatever happens, the invariants of
//! admission hold. A failure names its seed; `OPOSSUM_SEED` replays that one alone.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use jiff::Timestamp;
use opossum_core::breaker::{
    BackendBreaker, BreakerConfig, Entry, GateDecision, LeaseId, Outcome, QuotaRenewal, RefusedWhy, Report,
    StateName,
};
use opossum_core::class::{BreakerEffect, FailureClass};
use opossum_core::ids::ModelName;
use opossum_core::moment::Moment;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SEEDS: u64 = 10_000;
const STEPS: usize = 120;

struct Caller {
    model: usize,
    lease: Option<(LeaseId, Instant)>,
}

struct World {
    seed: u64,
    rng: StdRng,
    breaker: BackendBreaker,
    at: Moment,
    models: Vec<ModelName>,
    callers: Vec<Caller>,
    /// The latest time up to which a limit holds, by model.
    cooled: Vec<Option<Instant>>,
    /// Whether anything but a caller's own fault was ever reported.
    faulted: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let wall = Timestamp::from_second(rng.random_range(1_700_000_000..1_900_000_000)).unwrap();
        let at = Moment::new(Instant::now(), wall);
        let quota = if rng.random() { QuotaRenewal::PacificMidnight } else { QuotaRenewal::AfterWait };
        let models: Vec<ModelName> =
            (0..rng.random_range(1..4)).map(|i| format!("m{i}").as_str().into()).collect();
        Self {
            seed,
            breaker: BackendBreaker::new(BreakerConfig { quota, ..BreakerConfig::default() }, 0, at.mono),
            at,
            callers: Vec::new(),
            cooled: vec![None; models.len()],
            models,
            faulted: false,
            rng,
        }
    }

    fn run(&mut self) {
        // Some lives are calm, some are an outage.
        let trouble: f64 = self.rng.random();
        for _ in 0..STEPS {
            match self.rng.random_range(0..10) {
                0..5 => self.enter(),
                5..9 => self.finish(trouble),
                _ => self.pass(),
            }
        }
        self.heal();
    }

    fn pass(&mut self) {
        // From a tenth of a second to nearly an hour, short times more often.
        let time = Duration::from_secs_f64(10.0_f64.powf(self.rng.random_range(-1.0..3.5)));
        self.at = Moment::new(self.at.mono + time, self.at.wall + time);
    }

    fn enter(&mut self) {
        let model = self.rng.random_range(0..self.models.len());
        let name = self.models[model].clone();
        let roll: f64 = self.rng.random();
        let gate = self.breaker.snapshot().check(&name, self.at, roll);
        let live_before = self.live_trials(model);
        match self.breaker.enter(&name, self.at, roll) {
            Ok(Entry::Normal) => {
                assert_eq!(gate, GateDecision::Pass, "seed {}", self.seed);
                self.callers.push(Caller { model, lease: None });
            }
            Ok(Entry::Trial { lease, .. }) => {
                assert_eq!(gate, GateDecision::AskActor, "seed {}", self.seed);
                assert_eq!(live_before, 0, "seed {}: a second trial in flight", self.seed);
                self.callers
                    .push(Caller { model, lease: Some((lease, self.at.mono + Duration::from_secs(20))) });
            }
            Err(refused) => {
                assert_eq!(gate, GateDecision::Refused(refused), "seed {}", self.seed);
                let in_reach =
                    !refused.retry_in.is_zero() && refused.retry_in <= Duration::from_secs(26 * 3600);
                assert!(in_reach, "seed {}: {refused:?}", self.seed);
                assert!(self.faulted, "seed {}: refused for callers' faults alone", self.seed);
            }
        }
        if let Some(until) = self.cooled[model].filter(|until| *until > self.at.mono) {
            // Whatever shorter wait was named later, nobody enters before the longest one is over.
            assert!(matches!(gate, GateDecision::Refused(_)), "seed {}: entered {until:?} early", self.seed);
        }
    }

    /// Trials of this model whose lease has not run out.
    fn live_trials(&self, model: usize) -> usize {
        let live = |caller: &&Caller| {
            caller.model == model && caller.lease.is_some_and(|(_, expires)| expires > self.at.mono)
        };
        // A trial of the transport by way of another model does not bar this one's own, so only trials
        // of the same model must be alone.
        self.callers.iter().filter(live).count()
    }

    fn finish(&mut self, trouble: f64) {
        if self.callers.is_empty() {
            return;
        }
        let caller = self.callers.swap_remove(self.rng.random_range(0..self.callers.len()));
        let outcome = self.outcome(trouble);
        let before = self.breaker.status(self.at);
        self.report(&caller, outcome);
        self.note(&caller, outcome);
        if let Outcome::Failed { class, .. } = outcome
            && class.breaker() == BreakerEffect::None
        {
            let after = self.breaker.status(self.at);
            let opened = |state: StateName| state == StateName::Open;
            for (model, status) in &after.models {
                let was = before.models.get(model).is_some_and(|status| opened(status.state));
                assert!(was || !opened(status.state), "seed {}: {class:?} opened", self.seed);
            }
        }
    }

    fn outcome(&mut self, trouble: f64) -> Outcome {
        if self.rng.random::<f64>() >= trouble {
            return Outcome::Ok { slow: self.rng.random_bool(0.1) };
        }
        let class = FailureClass::ALL[self.rng.random_range(0..FailureClass::ALL.len())];
        let retry_after =
            self.rng.random_bool(0.5).then(|| Duration::from_secs(self.rng.random_range(0..2000)));
        Outcome::Failed { class, retry_after }
    }

    fn report(&mut self, caller: &Caller, outcome: Outcome) {
        let model = self.models[caller.model].clone();
        let request = self.rng.random_bool(0.5).then(|| self.rng.random_range(0..20));
        let report = Report {
            lease: caller.lease.map(|(lease, _)| lease),
            request,
            last_backend: self.rng.random(),
            ..Report::new(&model, outcome)
        };
        let roll = self.rng.random();
        for transition in self.breaker.record(report, self.at, roll) {
            assert_ne!(transition.from, transition.to, "seed {}", self.seed);
        }
    }

    fn note(&mut self, caller: &Caller, outcome: Outcome) {
        let Outcome::Failed { class, retry_after } = outcome else {
            // A run of slow answers is a fault of the backend's too.
            self.faulted |= outcome == Outcome::Ok { slow: true };
            return;
        };
        self.faulted |= class.breaker() != BreakerEffect::None;
        if class == FailureClass::RateLimited {
            let wait = retry_after.filter(|wait| !wait.is_zero()).unwrap_or(Duration::from_secs(1));
            let until = self.at.mono + wait.min(Duration::from_secs(600));
            self.cooled[caller.model] = self.cooled[caller.model].max(Some(until));
        }
    }

    /// From any state, when everybody has left and everything works again, every model is in use again
    /// after what the waits add up to: no permit has leaked and no state is a trap.
    fn heal(&mut self) {
        for caller in std::mem::take(&mut self.callers) {
            self.report(&caller, Outcome::CANCELLED);
        }
        for model in 0..self.models.len() {
            let name = self.models[model].clone();
            let mut asked = 0;
            loop {
                asked += 1;
                assert!(
                    asked < 100,
                    "seed {}: {name} never heals: {:?}",
                    self.seed,
                    self.breaker.status(self.at)
                );
                let caller = match self.breaker.enter(&name, self.at, 0.999) {
                    Ok(Entry::Normal) => break,
                    Ok(Entry::Trial { lease, .. }) => Caller { model, lease: Some((lease, self.at.mono)) },
                    Err(refused) => {
                        assert_ne!(refused.reason, RefusedWhy::TrialInFlight, "seed {}: a leak", self.seed);
                        // Ahead by what was named: that must be enough for the reason to be gone.
                        let time = refused.retry_in + Duration::from_millis(1);
                        self.at = Moment::new(self.at.mono + time, self.at.wall + time);
                        continue;
                    }
                };
                self.report(&caller, Outcome::Ok { slow: false });
            }
        }
    }
}

#[test]
fn the_invariants_of_admission_hold_from_every_seed() {
    if let Ok(seed) = std::env::var("OPOSSUM_SEED") {
        World::new(seed.parse().unwrap()).run();
        return;
    }
    for seed in 0..SEEDS {
        if std::panic::catch_unwind(|| World::new(seed).run()).is_err() {
            panic!("replay with OPOSSUM_SEED={seed}");
        }
    }
}

#[test]
fn a_million_faults_of_callers_open_nothing() {
    let at = Moment::new(Instant::now(), Timestamp::UNIX_EPOCH);
    let mut breaker = BackendBreaker::new(BreakerConfig::default(), 0, at.mono);
    let model = ModelName::from("m");
    let faults = [
        FailureClass::CallerError,
        FailureClass::ContextLength,
        FailureClass::Refused,
        FailureClass::Cancelled,
        FailureClass::Local,
    ];
    for i in 0..1_000_000 {
        let outcome = Outcome::Failed { class: faults[i % faults.len()], retry_after: None };
        assert!(breaker.record(Report::new(&model, outcome), at, 0.5).is_empty());
    }
    assert_eq!(breaker.enter(&model, at, 0.999), Ok(Entry::Normal));
}

#[test]
fn every_open_interval_lies_between_its_base_and_half_as_much_again() {
    let mut rng = StdRng::seed_from_u64(1);
    let model = ModelName::from("m");
    for _ in 0..1000 {
        let mut at = Moment::new(Instant::now(), Timestamp::UNIX_EPOCH);
        let mut breaker = BackendBreaker::new(BreakerConfig::default(), 0, at.mono);
        let fail = Outcome::Failed { class: FailureClass::Stalled, retry_after: None };
        for _ in 0..5 {
            breaker.record(Report::new(&model, fail), at, rng.random());
        }
        for base in [60, 120, 240, 300, 300] {
            let wait = breaker.enter(&model, at, rng.random()).unwrap_err().retry_in;
            let base = Duration::from_secs(base);
            assert!((base..=base.mul_f64(1.5)).contains(&wait), "{base:?} {wait:?}");
            at = Moment::new(at.mono + wait, at.wall + wait);
            let Ok(Entry::Trial { lease, .. }) = breaker.enter(&model, at, rng.random()) else {
                panic!("no trial after {wait:?}");
            };
            breaker.record(Report { lease: Some(lease), ..Report::new(&model, fail) }, at, rng.random());
        }
    }
}
