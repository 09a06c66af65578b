//! The worker: attempts in, policy out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opossum_core::router::{ArmSpec, AttemptSeen, Router};

use super::board::Board;
use super::messages::{Forget, Restore, TakeArms, TakeFrozen};
use crate::clock::moment;
use crate::guardian::{Cx, Handle, Reply, Worker};
use crate::telemetry;

/// Pause between two batches of attempts, and so between two publications.
const PAUSE: Duration = Duration::from_millis(50);
/// Attempts in one batch.
const BATCH: usize = 4096;
/// How often idle time is counted: the router fades by whole seconds.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct RouterWorker {
    router: Router,
    board: Arc<Board>,
    /// The arms that the router has now.
    arms: Arc<Vec<ArmSpec>>,
    overflowed: u64,
}

impl RouterWorker {
    pub(super) fn new(board: Arc<Board>) -> Self {
        let arms = board.arms.load_full();
        let now = moment().mono;
        let mut router = Router::new(board.config, Vec::clone(&arms), now);
        router.restore(&board.state.load());
        router.freeze(board.frozen.load(Ordering::Relaxed), now);
        let overflowed = board.seen.overflowed();
        board.publish(&router);
        Self { router, board, arms, overflowed }
    }

    fn fold(&mut self, seen: &mut Vec<AttemptSeen>) {
        let mut news = false;
        for attempt in seen.drain(..) {
            news |= self.router.observe(&attempt);
        }
        if news {
            self.board.publish(&self.router);
        }
    }

    fn take_arms(&mut self) {
        let wanted = self.board.arms.load_full();
        if !Arc::ptr_eq(&wanted, &self.arms) {
            self.router.set_arms(Vec::clone(&wanted));
            self.arms = wanted;
            self.board.publish(&self.router);
        }
    }

    fn take_frozen(&mut self) {
        self.router.freeze(self.board.frozen.load(Ordering::Relaxed), moment().mono);
    }

    fn tick(&mut self) {
        // Whatever a handle wished for while the mailbox was full or the worker away.
        self.take_arms();
        if self.router.is_frozen() != self.board.frozen.load(Ordering::Relaxed) {
            self.take_frozen();
        }
        if self.router.age(moment().mono) {
            self.board.publish(&self.router);
        }
        let overflowed = self.board.seen.overflowed();
        if overflowed > self.overflowed {
            telemetry::outbox_overflowed(&*self.board.telemetry, "router", overflowed - self.overflowed);
            self.overflowed = overflowed;
        }
    }
}

impl Worker for RouterWorker {
    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(TICK, |worker, _| worker.tick());
        cx.drain(Arc::clone(&self.board.seen), BATCH, PAUSE, |worker, seen, _| worker.fold(seen));
    }
}

impl Handle<TakeArms> for RouterWorker {
    fn handle(&mut self, _: TakeArms, _: &mut Cx<'_, Self>) -> Reply<()> {
        self.take_arms();
        ().into()
    }
}

impl Handle<TakeFrozen> for RouterWorker {
    fn handle(&mut self, _: TakeFrozen, _: &mut Cx<'_, Self>) -> Reply<()> {
        self.take_frozen();
        ().into()
    }
}

impl Handle<Forget> for RouterWorker {
    fn handle(&mut self, _: Forget, _: &mut Cx<'_, Self>) -> Reply<()> {
        self.router.reset();
        self.board.publish(&self.router);
        ().into()
    }
}

impl Handle<Restore> for RouterWorker {
    fn handle(&mut self, Restore(state): Restore, _: &mut Cx<'_, Self>) -> Reply<usize> {
        let unsound = self.router.restore(&state);
        self.board.publish(&self.router);
        unsound.into()
    }
}
