//! All breakers of one backend, and their owner's view.

use std::collections::HashMap;
use std::time::Instant;

use super::config::BreakerConfig;
use super::face::{Admission, Face, Trip};
use super::gate::BackendGate;
use super::machine::{Breaker, Hold, Signal, Verdict};
use super::status::{BackendStatus, BreakerStatus};
use super::window::Window;
use super::words::{Entry, LeaseId, Outcome, Refused, Report, Scope, StateName, Transition, Transitions};
use crate::class::{BreakerEffect, FailureClass};
use crate::ids::ModelName;
use crate::moment::Moment;

/// Models remembered at most. A caller can name any model of a backend that is asked for what it has, so
/// the number must be bounded; the least recently used one is forgotten first.
const MAX_MODELS: usize = 1024;

/// The breakers of one backend: of its transport and of each of its models.
///
/// It has one owner, who publishes [`BackendBreaker::snapshot`] whenever [`BackendBreaker::revision`] has
/// changed.
#[derive(Debug)]
pub struct BackendBreaker {
    config: BreakerConfig,
    transport: Breaker,
    models: HashMap<ModelName, Breaker>,
    next_lease: u64,
    revision: u64,
}

impl BackendBreaker {
    /// Closed breakers. `epoch` sets the permits of this instance apart from those of an earlier one whose
    /// state was lost: a report on an old permit must not pass for a new one.
    pub fn new(config: BreakerConfig, epoch: u32, now: Instant) -> Self {
        let config = config.bounded();
        Self {
            config,
            transport: Breaker::new(&config, now),
            models: HashMap::new(),
            next_lease: u64::from(epoch) << 32,
            revision: 0,
        }
    }

    /// The numbers it works by, after [`BreakerConfig::bounded`].
    pub fn config(&self) -> &BreakerConfig {
        &self.config
    }

    /// Takes new numbers. States and counts stay, except that a window of another length starts anew, and
    /// that what failures opened closes where they no longer may.
    pub fn reconfigure(&mut self, config: BreakerConfig) {
        let window = self.config.window;
        self.config = config.bounded();
        if self.config.window != window {
            for breaker in self.models.values_mut().chain([&mut self.transport]) {
                breaker.window = Window::new(self.config.window);
            }
        }
        if !self.config.enabled {
            for breaker in self.models.values_mut().chain([&mut self.transport]) {
                if !matches!(breaker.face.trip, Trip::Closed { .. }) {
                    breaker.close(None);
                }
            }
        }
        self.revision += 1;
    }

    /// Asks to go in. `roll` is uniform in [0, 1); a caller who has nobody else to ask passes 0, which every
    /// ramp admits, because rising slowly is no reason for an error.
    ///
    /// # Errors
    /// A refusal, with the reason that lasts longest.
    pub fn enter(&mut self, model: &ModelName, at: Moment, roll: f64) -> Result<Entry, Refused> {
        let transport = self.transport.admit(&self.config, at, roll);
        let arm = self
            .models
            .get(model)
            .map_or(Ok(Admission::Pass), |breaker| breaker.admit(&self.config, at, roll));
        let (transport, arm) = both(transport, arm)?;
        if (transport, arm) == (Admission::Pass, Admission::Pass) {
            return Ok(Entry::Normal);
        }
        let before = self.states(model, at.mono);
        let id = self.next_lease;
        self.next_lease += 1;
        if transport == Admission::Trial {
            self.transport.grant(id, &self.config, at.mono);
        }
        if arm == Admission::Trial
            && let Some(breaker) = self.models.get_mut(model)
        {
            breaker.grant(id, &self.config, at.mono);
        }
        self.revision += 1;
        Ok(Entry::Trial { lease: LeaseId(id), transitions: self.changes(model, before, at.mono) })
    }

    /// Takes in how an attempt ended. `roll` is uniform in [0, 1): the jitter of what it opens.
    pub fn record(&mut self, report: Report<'_>, at: Moment, roll: f64) -> Transitions {
        let Report { model, lease, outcome, .. } = report;
        let lease = lease.map(|LeaseId(id)| id);
        let before = self.states(model, at.mono);
        let face = self.transport.face;
        self.transport.apply(transport_signal(outcome), lease, &self.config, at, roll);
        let mut changed = face != self.transport.face;

        let signal = Signal {
            last_backend: report.last_backend,
            once_for: report.request.filter(|_| is_server_error(outcome)),
            ..model_signal(outcome)
        };
        let quiet = signal.verdict == Verdict::Neutral && signal.hold == Hold::None;
        if !quiet || self.models.contains_key(model) {
            let config = self.config;
            let breaker = self.model_mut(model, at.mono);
            let face = breaker.face;
            breaker.apply(signal, lease, &config, at, roll);
            changed |= face != breaker.face;
        }
        self.revision += u64::from(changed);
        self.changes(model, before, at.mono)
    }

    /// Takes in `n` normal, quick successes that were counted on the way and come in one number. The owner
    /// folds them in before it records a failure, so that "in a row" keeps its meaning.
    pub fn record_successes(&mut self, model: &ModelName, n: u32, now: Instant) {
        self.transport.succeed(n, now);
        self.model_mut(model, now).succeed(n, now);
    }

    /// What the request path reads.
    pub fn snapshot(&self) -> BackendGate {
        let models = self
            .models
            .iter()
            .filter(|(_, breaker)| breaker.face != Face::NEW)
            .map(|(model, breaker)| (model.clone(), breaker.face))
            .collect();
        BackendGate::new(self.config, self.transport.face, models)
    }

    /// Grows whenever a snapshot taken earlier is out of date.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Holds a model (or with `None` the whole backend) open until it is closed or reset.
    pub fn force_open(&mut self, model: Option<&ModelName>, now: Instant) -> Transitions {
        self.operate(model, now, |breaker| breaker.face.forced_open = true)
    }

    /// Closes a model (or with `None` the whole backend with all its models) without a ramp, whatever opened
    /// or disabled it. A wait or a spent allowance stays: it is not ours to forgive.
    pub fn force_close(&mut self, model: Option<&ModelName>, now: Instant) -> Transitions {
        self.operate(model, now, |breaker| {
            breaker.close(None);
            breaker.face.forced_open = false;
            breaker.face.disabled = None;
        })
    }

    /// Makes a model (or with `None` the whole backend with all its models) as new: waits, allowances and
    /// counts are forgotten too.
    pub fn reset(&mut self, model: Option<&ModelName>, now: Instant) -> Transitions {
        let config = self.config;
        self.operate(model, now, |breaker| breaker.renew(&config, now))
    }

    /// What operators see. Times are what is left now.
    pub fn status(&self, at: Moment) -> BackendStatus {
        let status = |breaker: &Breaker| BreakerStatus::of(breaker, &self.config, at);
        BackendStatus {
            enabled: self.config.enabled,
            backend: status(&self.transport),
            models: self.models.iter().map(|(model, breaker)| (model.clone(), status(breaker))).collect(),
        }
    }

    /// Puts back the states of a saved status: what was open, cooling, exhausted or disabled is so again for
    /// the time that was left. Counts start anew.
    pub fn restore(&mut self, status: &BackendStatus, at: Moment) {
        let config = self.config;
        status.backend.put_back(&mut self.transport, &config, at);
        for (model, saved) in status.models.iter().take(MAX_MODELS) {
            saved.put_back(self.model_mut(model, at.mono), &config, at);
        }
        self.revision += 1;
    }

    fn operate(
        &mut self,
        model: Option<&ModelName>,
        now: Instant,
        mut act: impl FnMut(&mut Breaker),
    ) -> Transitions {
        self.revision += 1;
        let Some(model) = model else {
            let before = self.transport.face.state(&self.config, now);
            act(&mut self.transport);
            // An opened transport shuts every model already.
            if !self.transport.face.forced_open {
                self.models.values_mut().for_each(act);
            }
            let after = self.transport.face.state(&self.config, now);
            return changed(Scope::Backend, before, after).into_iter().collect();
        };
        let before = self.states(model, now);
        act(self.model_mut(model, now));
        self.changes(model, before, now)
    }

    fn model_mut(&mut self, model: &ModelName, now: Instant) -> &mut Breaker {
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(model) {
            let oldest = self.models.iter().min_by_key(|(_, breaker)| breaker.last_used);
            if let Some(oldest) = oldest.map(|(model, _)| model.clone()) {
                self.models.remove(&oldest);
            }
        }
        self.models.entry(model.clone()).or_insert_with(|| Breaker::new(&self.config, now))
    }

    fn states(&self, model: &ModelName, now: Instant) -> (StateName, StateName) {
        let arm = self.models.get(model).map_or(StateName::Closed, |b| b.face.state(&self.config, now));
        (self.transport.face.state(&self.config, now), arm)
    }

    fn changes(&self, model: &ModelName, before: (StateName, StateName), now: Instant) -> Transitions {
        let after = self.states(model, now);
        let backend = changed(Scope::Backend, before.0, after.0);
        let arm = (before.1 != after.1).then(|| Scope::Model(model.clone()));
        let arm = arm.and_then(|scope| changed(scope, before.1, after.1));
        backend.into_iter().chain(arm).collect()
    }
}

fn changed(scope: Scope, from: StateName, to: StateName) -> Option<Transition> {
    (from != to).then_some(Transition { scope, from, to })
}

/// Both must admit; of two refusals the longer one counts.
pub(super) fn both(
    one: Result<Admission, Refused>,
    other: Result<Admission, Refused>,
) -> Result<(Admission, Admission), Refused> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(one), Err(other)) => Err(if other.retry_in > one.retry_in { other } else { one }),
        (Err(refused), Ok(_)) | (Ok(_), Err(refused)) => Err(refused),
    }
}

fn is_server_error(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed { class: FailureClass::ServerError | FailureClass::BadResponse, .. })
}

const QUIET: Signal = Signal {
    verdict: Verdict::Neutral,
    hold: Hold::None,
    lifts_holds: false,
    once_for: None,
    last_backend: false,
};

/// What an outcome says of the transport and the credential.
fn transport_signal(outcome: Outcome) -> Signal {
    let Outcome::Failed { class, .. } = outcome else {
        return Signal { verdict: Verdict::Good { slow: false }, lifts_holds: true, ..QUIET };
    };
    let verdict = match class {
        FailureClass::Transport => Verdict::Bad,
        FailureClass::FirstTokenTimeout => Verdict::Unproven,
        FailureClass::Stalled
        | FailureClass::Truncated
        | FailureClass::ServerError
        | FailureClass::BadResponse
        | FailureClass::RateLimited
        | FailureClass::QuotaExhausted
        | FailureClass::BadCredential
        | FailureClass::ModelMissing
        | FailureClass::Refused => Verdict::Good { slow: false },
        FailureClass::NotLoaded
        | FailureClass::Template
        | FailureClass::CallerError
        | FailureClass::ContextLength
        | FailureClass::Cancelled
        | FailureClass::Local => Verdict::Neutral,
    };
    // Only who was let in behind the credential's check has seen it pass.
    let lifts_holds = matches!(
        class,
        FailureClass::Stalled
            | FailureClass::Truncated
            | FailureClass::RateLimited
            | FailureClass::QuotaExhausted
            | FailureClass::ModelMissing
            | FailureClass::Refused
    );
    let hold = if class.breaker() == BreakerEffect::DisableBackend { Hold::Disable } else { Hold::None };
    Signal { verdict, hold, lifts_holds, ..QUIET }
}

/// What an outcome says of the model.
fn model_signal(outcome: Outcome) -> Signal {
    let (class, retry_after) = match outcome {
        Outcome::Ok { slow } => {
            return Signal { verdict: Verdict::Good { slow }, lifts_holds: true, ..QUIET };
        }
        Outcome::Failed { class, retry_after } => (class, retry_after),
    };
    match class.breaker() {
        BreakerEffect::TripBackend => Signal { verdict: Verdict::Unproven, ..QUIET },
        BreakerEffect::Trip => Signal { verdict: Verdict::Bad, ..QUIET },
        BreakerEffect::Cool => Signal { hold: Hold::Cool(retry_after), ..QUIET },
        BreakerEffect::Exhaust => Signal { hold: Hold::Exhaust(retry_after), ..QUIET },
        BreakerEffect::DisableModel => Signal { hold: Hold::Disable, ..QUIET },
        BreakerEffect::DisableBackend | BreakerEffect::None => QUIET,
    }
}
