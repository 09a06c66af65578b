//! What an upstream was asked, and what it is to do.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dialect::Operation;
use crate::script::Script;
use crate::wire::{Headers, header};

/// One request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it had arrived, body and all.
    pub at: Instant,
    /// The number of its connection, from 0.
    pub connection: usize,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Names (in lower case) and values of the head, in order.
    pub headers: Vec<(String, String)>,
    /// The body; null where it was none or no JSON.
    pub body: Value,
    /// The model that was asked for.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The credential that came along: bearer token, `x-goog-api-key`, `api-key` or `key` in the query.
    pub key: Option<String>,
    /// How long after its arrival the caller left, if it left before the end of the answer.
    pub aborted_after: Option<Duration>,
    /// How long after its arrival the script was over, for whatever reason.
    pub ended: Option<Duration>,
}

impl Seen {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// A request read from the wire.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Headers,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn key(&self) -> Option<String> {
        let bearer = header(&self.headers, "authorization").and_then(|v| v.strip_prefix("Bearer "));
        let in_query = || {
            let query = self.path.split_once('?')?.1;
            query.split('&').find_map(|pair| pair.strip_prefix("key="))
        };
        bearer
            .or_else(|| header(&self.headers, "x-goog-api-key"))
            .or_else(|| header(&self.headers, "api-key"))
            .or_else(in_query)
            .map(str::to_owned)
    }

    pub(crate) fn wants_close(&self) -> bool {
        header(&self.headers, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

/// Which script answers the next request.
pub(crate) struct Plan {
    pub(crate) queue: VecDeque<Script>,
    cycle: Vec<Script>,
    turn: usize,
}

impl Plan {
    pub(crate) fn new(default: Script) -> Self {
        Self { queue: VecDeque::new(), cycle: vec![default], turn: 0 }
    }

    pub(crate) fn set_default(&mut self, cycle: Vec<Script>) {
        self.cycle = cycle;
        self.turn = 0;
    }

    fn next(&mut self) -> Script {
        if let Some(script) = self.queue.pop_front() {
            return script;
        }
        let script = self.cycle[self.turn % self.cycle.len()].clone();
        self.turn += 1;
        script
    }
}

/// All that changes while an upstream runs.
pub(crate) struct State {
    pub(crate) plan: Plan,
    pub(crate) by_model: HashMap<String, Script>,
    pub(crate) probe: Option<Script>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) probes: Vec<Seen>,
}

impl State {
    pub(crate) fn new(plan: Plan, probe: Option<Script>) -> Self {
        Self { plan, by_model: HashMap::new(), probe, seen: Vec::new(), probes: Vec::new() }
    }

    /// The script for a request; `None` for a probe that is to be answered well.
    pub(crate) fn script(&mut self, operation: Operation, model: &str) -> Option<Script> {
        match operation {
            Operation::Probe => self.probe.clone(),
            Operation::Unknown => Some(Script::status(404)),
            Operation::Chat | Operation::Completion | Operation::Embedding => {
                Some(self.by_model.get(model).cloned().unwrap_or_else(|| self.plan.next()))
            }
        }
    }

    /// Where requests of this kind are recorded.
    pub(crate) fn log(&mut self, operation: Operation) -> &mut Vec<Seen> {
        if operation == Operation::Probe { &mut self.probes } else { &mut self.seen }
    }
}
