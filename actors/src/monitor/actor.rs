//! The worker: when to probe, and for whom.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::Shared;

use super::board::Board;
use super::messages::Refresh;
use super::round::probe_all;
use crate::guardian::{Cx, Handle, Reply, Worker};

/// How far an interval may be off, as a share of it: so that many instances do not probe together.
const JITTER: f64 = 0.1;

type Round = Shared<Pin<Box<dyn Future<Output = ()>>>>;

pub(super) struct MonitorWorker {
    board: Arc<Board>,
    /// The round under way, for all who want one meanwhile.
    round: Option<Round>,
}

impl MonitorWorker {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, round: None }
    }

    /// Joins the round under way, or begins one.
    fn round(&mut self, cx: &mut Cx<'_, Self>) -> Round {
        // One that has ended already, with word of that still on its way here, is no news.
        if let Some(round) = self.round.as_ref().filter(|round| round.peek().is_none()) {
            return round.clone();
        }
        let round: Pin<Box<dyn Future<Output = ()>>> = Box::pin(probe_all(Arc::clone(&self.board)));
        let round = round.shared();
        self.round = Some(round.clone());
        // Driven here, so that it goes on when those who asked for it have left.
        cx.spawn(round.clone(), |worker, (), _| {
            worker.round.take_if(|round| round.peek().is_some());
        });
        round
    }

    fn rounds(&mut self, cx: &mut Cx<'_, Self>) {
        // Its end is of no interest here; it publishes by itself.
        drop(self.round(cx));
        let share = 1.0 + JITTER * (2.0 * rand::random::<f64>() - 1.0);
        cx.after(self.board.interval.mul_f64(share), Self::rounds);
    }
}

impl Worker for MonitorWorker {
    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        self.rounds(cx);
    }
}

impl Handle<Refresh> for MonitorWorker {
    fn handle(&mut self, _: Refresh, cx: &mut Cx<'_, Self>) -> Reply<()> {
        Reply::later(self.round(cx))
    }
}
