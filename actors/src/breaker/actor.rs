//! The worker: outcomes in, gate out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opossum_core::breaker::{BackendBreaker, BackendStatus, Entry, Refused, Report, Transitions};
use opossum_core::moment::Moment;

use super::attempt::{Attempt, is_plain};
use super::board::{Board, Published};
use super::messages::{AttemptFinished, CatchUp, Command, Enter, Operate, Reconfigure, Restore};
use crate::clock::moment;
use crate::guardian::{Cx, Handle, Reply, Worker};
use crate::telemetry;

/// How often counted successes are folded in and the status is renewed without any other news.
const TICK: Duration = Duration::from_secs(1);
/// Pause between two batches of outcomes: short, because each may be the one that opens.
const PAUSE: Duration = Duration::from_millis(1);
/// Outcomes in one batch.
const BATCH: usize = 256;

pub(super) struct BreakerWorker {
    breaker: BackendBreaker,
    board: Arc<Board>,
    revision: u64,
    overflowed: u64,
    buffer: Vec<AttemptFinished>,
}

impl BreakerWorker {
    pub(super) fn new(board: Arc<Board>) -> Self {
        let at = moment();
        let epoch = board.epoch.fetch_add(1, Ordering::Relaxed);
        let mut breaker = BackendBreaker::new(**board.config.load(), epoch, at.mono);
        if epoch > 0 {
            breaker.restore(&board.status(at), at);
        }
        let overflowed = board.finished.overflowed();
        let mut worker = Self { breaker, board, revision: 0, overflowed, buffer: Vec::new() };
        worker.show(at);
        worker
    }

    /// Takes in everything that has ended so far, in order.
    fn catch_up(&mut self, at: Moment) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while self.board.finished.take(BATCH, &mut buffer) > 0 {
            self.fold(&mut buffer, at);
        }
        self.buffer = buffer;
    }

    fn fold(&mut self, finished: &mut Vec<AttemptFinished>, at: Moment) {
        for attempt in finished.drain(..) {
            // Before the failure, so that "in a row" keeps its meaning.
            self.fold_successes(at);
            let changes = self.record(&attempt, at);
            self.tell(&changes);
        }
        self.publish(at);
    }

    fn record(&mut self, attempt: &AttemptFinished, at: Moment) -> Transitions {
        let AttemptFinished { model, request, last, lease, outcome } = attempt;
        if is_plain(*outcome) {
            self.board.add_counter(model);
        }
        let report =
            Report { model, lease: *lease, outcome: *outcome, request: Some(*request), last_backend: *last };
        self.breaker.record(report, at, rand::random())
    }

    fn fold_successes(&mut self, at: Moment) {
        let Self { board, breaker, .. } = self;
        board.take_successes(|model, n| breaker.record_successes(model, n, at.mono));
    }

    fn tell(&self, changes: &Transitions) {
        for change in changes {
            telemetry::breaker_changed(&*self.board.telemetry, &self.board.service, change);
        }
    }

    /// Publishes when there is news.
    fn publish(&mut self, at: Moment) {
        if self.breaker.revision() != self.revision {
            self.show(at);
        }
    }

    fn show(&mut self, at: Moment) {
        self.revision = self.breaker.revision();
        self.board.gate.store(Arc::new(self.breaker.snapshot()));
        self.show_status(at);
    }

    fn show_status(&self, at: Moment) {
        self.board.published.store(Arc::new(Published { status: self.breaker.status(at), at }));
    }

    fn tick(&mut self) {
        let at = moment();
        self.fold_successes(at);
        self.publish(at);
        self.show_status(at);
        let overflowed = self.board.finished.overflowed();
        if overflowed > self.overflowed {
            telemetry::outbox_overflowed(&*self.board.telemetry, "breaker", overflowed - self.overflowed);
            self.overflowed = overflowed;
        }
    }
}

impl Worker for BreakerWorker {
    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(TICK, |worker, _| worker.tick());
        cx.drain(Arc::clone(&self.board.finished), BATCH, PAUSE, |worker, finished, _| {
            worker.fold(finished, moment());
        });
    }
}

impl Handle<Enter> for BreakerWorker {
    fn handle(
        &mut self,
        Enter { entrant, roll }: Enter,
        _: &mut Cx<'_, Self>,
    ) -> Reply<Result<Attempt, Refused>> {
        let at = moment();
        // A trial that has just ended badly must not be followed by another at once.
        self.catch_up(at);
        let entered = match self.breaker.enter(&entrant.model, at, roll) {
            Err(refused) => Err(refused),
            Ok(Entry::Normal) => Ok(Attempt::new(entrant, None)),
            Ok(Entry::Trial { lease, transitions }) => {
                self.tell(&transitions);
                Ok(Attempt::new(entrant, Some(lease)))
            }
        };
        self.publish(at);
        entered.into()
    }
}

impl Handle<CatchUp> for BreakerWorker {
    fn handle(&mut self, _: CatchUp, _: &mut Cx<'_, Self>) -> Reply<()> {
        let at = moment();
        self.catch_up(at);
        self.publish(at);
        ().into()
    }
}

impl Handle<Operate> for BreakerWorker {
    fn handle(&mut self, Operate { command, model }: Operate, _: &mut Cx<'_, Self>) -> Reply<BackendStatus> {
        let at = moment();
        self.catch_up(at);
        self.fold_successes(at);
        let (model, now) = (model.as_ref(), at.mono);
        let changes = match command {
            Command::Open => self.breaker.force_open(model, now),
            Command::Close => self.breaker.force_close(model, now),
            Command::Reset => self.breaker.reset(model, now),
        };
        self.tell(&changes);
        self.publish(at);
        self.breaker.status(at).into()
    }
}

impl Handle<Reconfigure> for BreakerWorker {
    fn handle(&mut self, Reconfigure(config): Reconfigure, _: &mut Cx<'_, Self>) -> Reply<()> {
        self.board.config.store(Arc::new(config));
        self.breaker.reconfigure(config);
        self.publish(moment());
        ().into()
    }
}

impl Handle<Restore> for BreakerWorker {
    fn handle(&mut self, Restore(status): Restore, _: &mut Cx<'_, Self>) -> Reply<()> {
        let at = moment();
        self.breaker.restore(&status, at);
        self.publish(at);
        ().into()
    }
}
