//! The request path's side of the RouterActor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opossum_core::router::{
    ArmSpec, ArmWeight, AttemptSeen, ChooseContext, Decision, Policy, RouterConfig, RouterState,
};

use super::actor::RouterWorker;
use super::board::Board;
use super::messages::{Forget, Restore, TakeArms, TakeFrozen};
use crate::guardian::{ActorError, ActorRef};
use crate::registry::ActorThreads;
use crate::telemetry::Telemetry;

/// How long an operator's command waits.
const COMMAND: Duration = Duration::from_secs(5);

/// A decision together with the policy that its arms refer to.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Its decision.
    pub decision: Decision,
}

/// The router. Cheap to clone; usable from any thread and runtime.
#[derive(Clone)]
pub struct RouterHandle {
    board: Arc<Board>,
    actor: ActorRef<RouterWorker>,
}

impl RouterHandle {
    /// Starts the actor, named `router`.
    pub(crate) fn start(
        threads: &ActorThreads,
        config: RouterConfig,
        arms: Vec<ArmSpec>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let board = Arc::new(Board::new(config, arms, telemetry));
        let shared = Arc::clone(&board);
        let actor = threads.spawn("router", move || RouterWorker::new(Arc::clone(&shared)));
        Self { board, actor }
    }

    /// The policy of the moment.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.board.policy.load_full()
    }

    /// Orders the candidates of a request by the policy of the moment. No message, no wait.
    #[must_use]
    pub fn choose(&self, context: &ChooseContext<'_>) -> Choice {
        let policy = self.policy();
        let decision = policy.choose(context, rand::random());
        Choice { policy, decision }
    }

    /// Tells how an attempt ended. Never blocks; the policy knows of it within about 50 ms.
    pub fn report(&self, seen: AttemptSeen) {
        self.board.seen.push(seen);
    }

    /// Takes another set of arms; what was learned of those that stay is kept. It takes effect with the
    /// actor's next turn, after a second at the latest.
    pub fn set_arms(&self, arms: Vec<ArmSpec>) {
        self.board.arms.store(Arc::new(arms));
        // A refused message is made up for by the next tick.
        let _ = self.actor.tell(TakeArms);
    }

    /// What was learned, as last published, in the order of the arms.
    #[must_use]
    pub fn weights(&self) -> Vec<ArmWeight> {
        Vec::clone(&self.board.weights.load())
    }

    /// Everything learned, as last published, for saving.
    #[must_use]
    pub fn state(&self) -> Arc<RouterState> {
        self.board.state.load_full()
    }

    /// Stops (or resumes) learning and fading. It takes effect with the actor's next turn, after a second at
    /// the latest.
    pub fn freeze(&self, frozen: bool) {
        self.board.frozen.store(frozen, Ordering::Relaxed);
        // As for the arms.
        let _ = self.actor.tell(TakeFrozen);
    }

    /// Whether learning is stopped.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.board.frozen.load(Ordering::Relaxed)
    }

    /// Forgets everything learned.
    ///
    /// # Errors
    /// When the actor cannot be reached; with `Timeout` it may still happen.
    pub async fn reset(&self) -> Result<(), ActorError> {
        self.actor.ask(Forget, COMMAND).await
    }

    /// Puts back what was saved; how many sums were unsound and were left at their prior.
    ///
    /// # Errors
    /// As [`RouterHandle::reset`].
    pub async fn restore(&self, state: RouterState) -> Result<usize, ActorError> {
        self.actor.ask(Restore(state), COMMAND).await
    }
}

impl fmt::Debug for RouterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterHandle").field("version", &self.board.policy.load().version()).finish()
    }
}
