//! The request path's side of a BreakerActor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opossum_core::breaker::{BackendStatus, BreakerConfig, GateDecision, Refused, RefusedWhy, StateName};
use opossum_core::ids::{ModelName, ServiceName};
use opossum_core::moment::Moment;

use super::actor::BreakerWorker;
use super::attempt::{Attempt, Entrant};
use super::board::Board;
use super::messages::{CatchUp, Command, Enter, Operate, Reconfigure, Restore};
use crate::clock::moment;
use crate::guardian::{ActorError, ActorRef};
use crate::registry::ActorThreads;
use crate::telemetry::Telemetry;

/// How long a request waits to be granted a trial before it goes elsewhere.
const ASK: Duration = Duration::from_millis(250);
/// How long a failed attempt waits to be counted before it is left to be counted later.
const SETTLE: Duration = Duration::from_millis(20);
/// How long an operator's command waits.
const COMMAND: Duration = Duration::from_secs(5);
/// When to come again after a trial that could not be asked for.
const NO_ACTOR: Refused = Refused { reason: RefusedWhy::TrialInFlight, retry_in: Duration::from_secs(1) };

/// The breakers of one backend. Cheap to clone; usable from any thread and runtime.
#[derive(Clone)]
pub struct BreakerHandle {
    board: Arc<Board>,
    actor: ActorRef<BreakerWorker>,
}

impl BreakerHandle {
    /// Starts the actor of `service`, named `breaker:{service}`.
    pub(crate) fn start(
        threads: &ActorThreads,
        service: ServiceName,
        config: BreakerConfig,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let name = format!("breaker:{service}");
        let board = Arc::new(Board::new(service, config, telemetry, moment()));
        let shared = Arc::clone(&board);
        let actor = threads.spawn(name, move || BreakerWorker::new(Arc::clone(&shared)));
        Self { board, actor }
    }

    /// The backend's name.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.board.service
    }

    /// What the gate says of `model`, without going in. `roll` is uniform in [0, 1); 0 is admitted by every
    /// ramp.
    #[must_use]
    pub fn check(&self, model: &ModelName, at: Moment, roll: f64) -> GateDecision {
        self.board.gate.load().check(model, at, roll)
    }

    /// Goes in for a request that has nobody else to ask: a ramp lets it through, and its slowness alone
    /// never opens. `request` is the request's fingerprint. Decided on the published gate at once, unless a
    /// trial is due, which is asked for and waited for at most 250 ms.
    ///
    /// # Errors
    /// A refusal, with its reason and when asking again may succeed.
    pub async fn enter(&self, model: &ModelName, request: u64) -> Result<Attempt, Refused> {
        self.go_in(model, request, true).await
    }

    /// Goes in for a request that can still go elsewhere: while the backend ramps up after closing, only
    /// the share that it admits gets in. Else as [`BreakerHandle::enter`].
    ///
    /// # Errors
    /// As [`BreakerHandle::enter`].
    pub async fn enter_or_other(&self, model: &ModelName, request: u64) -> Result<Attempt, Refused> {
        self.go_in(model, request, false).await
    }

    async fn go_in(&self, model: &ModelName, request: u64, last: bool) -> Result<Attempt, Refused> {
        let roll = if last { 0.0 } else { rand::random() };
        let decision = self.check(model, moment(), roll);
        if let GateDecision::Refused(refused) = decision
            && !self.may_be_over(refused)
        {
            return Err(refused);
        }
        let entrant = Entrant { board: Arc::clone(&self.board), model: model.clone(), request, last };
        if decision == GateDecision::Pass {
            return Ok(Attempt::new(entrant, None));
        }
        // Without the actor there is no trial; the backend stays as shut as its gate says.
        self.actor.ask(Enter { entrant, roll }, ASK).await.unwrap_or(Err(NO_ACTOR))
    }

    /// Whether the trial that is in the way may have ended: its outcome may be among those on their way to the
    /// actor, which takes them in before it decides. The caller of a good trial often asks again at once.
    fn may_be_over(&self, refused: Refused) -> bool {
        refused.reason == RefusedWhy::TrialInFlight && !self.board.finished.is_empty()
    }

    /// Waits until every attempt that has ended so far is counted and the gate shows it, at most 20 ms.
    ///
    /// For after a failure: the request that comes next, the same caller's included, then meets a gate that
    /// knows of it, and [`BreakerHandle::check`] says for how long it refuses.
    pub async fn settled(&self) {
        if let Err(error) = self.actor.ask(CatchUp, SETTLE).await {
            tracing::debug!(service = %self.service(), %error, "an attempt is counted later");
        }
    }

    /// Whether the gate lets someone in: its transport, and of the models tried so far at least one.
    #[must_use]
    pub fn is_open_to_someone(&self, at: Moment) -> bool {
        let gate = self.board.gate.load();
        let admits = |model: &ModelName| !matches!(gate.check(model, at, 0.0), GateDecision::Refused(_));
        let published = self.board.published.load();
        let mut tried = published.status.models.keys().peekable();
        if tried.peek().is_none() {
            // A model that nobody asked yet is held up by the transport alone.
            return admits(&ModelName::from(""));
        }
        tried.any(admits)
    }

    /// All states, with the waits that are left. As of the last change, or a second ago.
    #[must_use]
    pub fn status(&self) -> BackendStatus {
        self.board.status(moment())
    }

    /// The state of the backend as a whole: of its transport, or where that is closed the best of the
    /// models tried so far.
    #[must_use]
    pub fn state(&self) -> StateName {
        let published = self.board.published.load();
        let status = &published.status;
        let best = status.models.values().map(|breaker| breaker.state).min_by_key(|state| code(*state));
        match (status.backend.state, best) {
            (StateName::Closed, Some(best)) => best,
            (transport, _) => transport,
        }
    }

    /// The same as a number: 0 closed, 1 half-open, 2 open, 3 cooling or out of quota, 4 disabled.
    #[must_use]
    pub fn status_code(&self) -> i64 {
        code(self.state())
    }

    /// Holds a model (or with `None` the backend) open until it is closed or reset.
    ///
    /// # Errors
    /// When the actor cannot be reached; the command then has no effect, or with `Timeout` may have.
    pub async fn open(&self, model: Option<ModelName>) -> Result<BackendStatus, ActorError> {
        self.operate(Command::Open, model).await
    }

    /// Closes a model (or with `None` the backend and its models) at once. Waits that the upstream asked for
    /// stay.
    ///
    /// # Errors
    /// As [`BreakerHandle::open`].
    pub async fn close(&self, model: Option<ModelName>) -> Result<BackendStatus, ActorError> {
        self.operate(Command::Close, model).await
    }

    /// Makes a model (or with `None` the backend and its models) as new.
    ///
    /// # Errors
    /// As [`BreakerHandle::open`].
    pub async fn reset(&self, model: Option<ModelName>) -> Result<BackendStatus, ActorError> {
        self.operate(Command::Reset, model).await
    }

    /// Takes new numbers; states stay.
    ///
    /// # Errors
    /// As [`BreakerHandle::open`].
    pub async fn reconfigure(&self, config: BreakerConfig) -> Result<(), ActorError> {
        self.actor.ask(Reconfigure(config), COMMAND).await
    }

    /// Puts saved states back for the time that was left of them.
    ///
    /// # Errors
    /// As [`BreakerHandle::open`].
    pub async fn restore(&self, status: BackendStatus) -> Result<(), ActorError> {
        self.actor.ask(Restore(status), COMMAND).await
    }

    async fn operate(&self, command: Command, model: Option<ModelName>) -> Result<BackendStatus, ActorError> {
        self.actor.ask(Operate { command, model }, COMMAND).await
    }
}

fn code(state: StateName) -> i64 {
    match state {
        StateName::Closed | StateName::Ramping => 0,
        StateName::HalfOpen => 1,
        StateName::Open => 2,
        StateName::Cooling | StateName::Exhausted => 3,
        StateName::Disabled => 4,
    }
}

impl fmt::Debug for BreakerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BreakerHandle").field(self.service()).finish()
    }
}

#[cfg(test)]
impl BreakerHandle {
    pub(super) fn board(&self) -> &Board {
        &self.board
    }
}
