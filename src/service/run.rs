//! The attempts of one request: candidate after candidate, then the same ones again, under one deadline.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opossum_actors::Attempt;
use opossum_backends::{BackendError, Call, EventStream};
use opossum_core::answer::{Answer, StreamEvent};
use opossum_core::breaker::{GateDecision, Outcome, Refused, RefusedWhy};
use opossum_core::class::{BreakerEffect, FailureClass, Next};
use opossum_core::ids::ServiceName;
use opossum_core::retry::{Retry, attempt_budget, backoff};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use super::ask::Ask;
use super::catalogue::{Arm, Candidate, Eligible};
use super::context::RequestContext;
use super::error::PipelineError;
use super::order::now;
use super::outcome::AttemptRecord;
use super::usage::UsageRow;
use super::{Inner, fingerprint};

/// No delay before a repetition is longer than this.
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Backends are always allowed this much, or their budget for a first token where that is less.
const FAIR_SILENCE: Duration = Duration::from_secs(2);
/// What a caller is told when nothing says when to come again.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// What the attempts led to.
pub(super) struct Committed<O> {
    /// The candidate that answered.
    pub candidate: Candidate,
    /// Its answer, or the beginning of it.
    pub opened: O,
    /// The attempt, still open for a stream.
    pub record: AttemptRecord,
    /// Calls made.
    pub attempts: u32,
    /// Whether a candidate that was wanted more could not answer.
    pub degraded: bool,
}

/// An answer, or the beginning of one: with the first content in hand, nothing can be undone any more.
pub(super) enum Opened {
    Whole(Box<Answer>),
    Stream { first: Vec<StreamEvent>, rest: EventStream },
}

/// The attempts of one request.
pub(super) struct Run<'r, A> {
    pub inner: &'r Inner,
    pub context: &'r RequestContext,
    pub request: &'r Arc<A>,
    /// Best first.
    pub order: Eligible<'r>,
    /// Counts the calls.
    row: &'r mut UsageRow,
    state: State,
}

/// What has happened so far.
#[derive(Default)]
struct State {
    /// The last failure that was not a limit.
    fault: Option<FailureClass>,
    /// Earliest time at which a refusing candidate may be asked again.
    earliest: Option<Duration>,
    /// Whether every candidate so far was at a limit.
    not_only_limits: bool,
    /// Best capability among candidates that could not answer.
    missed: f32,
    /// Whether a candidate that is no last resort could not answer.
    missed_regular: bool,
    /// Services that cannot be reached at all: their other models need not be tried.
    out: SmallVec<[ServiceName; 4]>,
    /// Services that were called.
    tried: SmallVec<[ServiceName; 4]>,
    /// Places of candidates that turned this request away only because they come back slowly.
    spared: SmallVec<[usize; 4]>,
    /// Whether such candidates are not to be spared any longer.
    insists: bool,
}

/// Why one candidate did not answer.
enum Missed {
    Refused(Refused),
    Failed(BackendError),
}

impl<'r, A: Ask> Run<'r, A> {
    pub(super) fn new(
        inner: &'r Inner,
        context: &'r RequestContext,
        request: &'r Arc<A>,
        order: Eligible<'r>,
        row: &'r mut UsageRow,
    ) -> Self {
        Self { inner, context, request, order, row, state: State::default() }
    }

    /// Tries until a candidate answers, all have failed for good, or the time is up.
    pub(super) async fn into_answer(mut self) -> Result<Committed<A::Opened>, PipelineError> {
        let mut again: Vec<(usize, u32)> = Vec::new();
        let everyone: SmallVec<[usize; 8]> = (0..self.order.len()).collect();
        if let Some(committed) = self.ask_each(&everyone, &mut again).await? {
            return Ok(committed);
        }
        // A backend that comes back slowly is spared for as long as another can answer. None could.
        self.state.insists = true;
        let spared = std::mem::take(&mut self.state.spared);
        if let Some(committed) = self.ask_each(&spared, &mut again).await? {
            return Ok(committed);
        }
        self.repeat(again).await
    }

    /// Each of these places once, until one answers; those that may be asked again are added to `again`.
    async fn ask_each(
        &mut self,
        places: &[usize],
        again: &mut Vec<(usize, u32)>,
    ) -> Result<Option<Committed<A::Opened>>, PipelineError> {
        for (asked, &position) in places.iter().enumerate() {
            if self.is_out(position) || !self.may_fail_over(position) {
                continue;
            }
            // Those who would refuse need no share of the time.
            let open = places[asked + 1..].iter().filter(|p| !self.is_out(**p) && !self.is_shut(**p)).count();
            let left = open + self.state.spared.len();
            match self.try_one(position, left).await? {
                Ok(committed) => return Ok(Some(committed)),
                Err(Some(Next::OtherThenSame)) => again.push((position, 0)),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// The second part: those that may be asked again, best first, each after a delay.
    async fn repeat(mut self, mut again: Vec<(usize, u32)>) -> Result<Committed<A::Opened>, PipelineError> {
        while !again.is_empty() {
            let (position, repeats) = again.remove(0);
            let service = &self.order[position].arm.service;
            if repeats >= service.max_retries {
                continue;
            }
            let delay = backoff(repeats, service.retry_delay, LONGEST_DELAY, rand::random());
            if Instant::now() + delay >= self.context.deadline {
                break;
            }
            if !self.inner.may_retry(Retry::Repeat) {
                continue;
            }
            tokio::time::sleep(delay).await;
            match self.try_one(position, again.len()).await? {
                Ok(committed) => return Ok(committed),
                Err(Some(Next::OtherThenSame)) => again.push((position, repeats + 1)),
                Err(_) => {}
            }
        }
        Err(self.verdict())
    }

    /// Whether its service was found unreachable by this request.
    fn is_out(&self, position: usize) -> bool {
        self.state.out.contains(&self.order[position].arm.service.name)
    }

    /// Whether its gate lets nobody in, whatever the roll.
    fn is_shut(&self, position: usize) -> bool {
        gate_wait(self.order[position]).is_some()
    }

    fn may_fail_over(&self, position: usize) -> bool {
        let service = &self.order[position].arm.service;
        let retry = match self.row.attempts {
            0 => return true,
            // It will not be called, only asked when to come again: that costs no budget.
            _ if self.is_shut(position) => return true,
            _ if service.last_resort => Retry::LastResort,
            _ if !self.state.tried.contains(&service.name) => Retry::FirstFailover,
            _ => Retry::LaterFailover,
        };
        self.inner.may_retry(retry)
    }

    /// One candidate, once. The outer error ends the request; the inner one says what may be done next.
    async fn try_one(
        &mut self,
        position: usize,
        left: usize,
    ) -> Result<Result<Committed<A::Opened>, Option<Next>>, PipelineError> {
        let candidate = self.order[position].clone();
        match self.call(&candidate, left).await {
            Ok((opened, record)) => {
                let degraded = self.is_degraded(&candidate);
                Ok(Ok(Committed { candidate, opened, record, attempts: self.row.attempts, degraded }))
            }
            Err(Missed::Refused(refused)) => {
                if refused.reason == RefusedWhy::Ramping {
                    self.state.spared.push(position);
                }
                self.note_missed(&candidate, refused.reason.is_limit(), Some(refused.retry_in));
                Ok(Err(None))
            }
            Err(Missed::Failed(error)) => self.after_failure(&candidate, &error, left).map(Err),
        }
    }

    fn after_failure(
        &mut self,
        candidate: &Candidate,
        error: &BackendError,
        left: usize,
    ) -> Result<Option<Next>, PipelineError> {
        let limit = matches!(error.class, FailureClass::RateLimited | FailureClass::QuotaExhausted);
        // The gate knows better than the upstream: it caps what was asked for, and knows when a quota renews.
        self.note_missed(candidate, limit, gate_wait(candidate).or(error.retry_after));
        // That the last resort is not there either says less than how the others failed.
        let says_less = error.class == FailureClass::NotLoaded && self.state.fault.is_some();
        if !limit && !says_less {
            self.state.fault = Some(error.class);
        }
        if matches!(error.class, FailureClass::Transport | FailureClass::BadCredential) {
            self.state.out.push(candidate.arm.service.name.clone());
        }
        if Instant::now() >= self.context.deadline {
            return Err(PipelineError::DeadlineExceeded);
        }
        match error.class.next() {
            Next::Stop => Err(match error.param {
                Some(param) => PipelineError::Unsupported { param, reason: error.told.clone() },
                None => PipelineError::from_class(error.class, COME_AGAIN),
            }),
            next => {
                if left > 0 {
                    self.inner.metrics.failed_over(&candidate.arm.id, error.class);
                }
                Ok(Some(next))
            }
        }
    }

    async fn call(
        &mut self,
        candidate: &Candidate,
        left: usize,
    ) -> Result<(A::Opened, AttemptRecord), Missed> {
        let arm = &candidate.arm;
        let attempt = self.enter(candidate, left).await.map_err(Missed::Refused)?;
        self.row.attempts += 1;
        self.state.tried.push(arm.service.name.clone());
        let record = AttemptRecord::begin(self.inner, arm, attempt);
        let remaining = self.context.deadline.saturating_duration_since(Instant::now());
        let budget = attempt_budget(remaining, left, self.silence_limit(candidate, left));
        let call = Call {
            request: Arc::clone(self.request),
            model: arm.id.model.clone(),
            defaults: Arc::clone(&candidate.defaults),
            request_id: Arc::clone(&self.context.request_id),
            traceparent: self.context.traceparent.clone(),
        };
        let opening = A::open(&*arm.service.backend, call);
        let silence = timeout(budget, opening).await;
        let unfair = silence.is_err() && budget < fair_silence(arm);
        match silence.unwrap_or_else(|_| Err(too_slow(budget))) {
            Ok(opened) => {
                arm.warm.store(true, Ordering::Relaxed);
                Ok((opened, record))
            }
            Err(error) => {
                tracing::warn!(
                    request_id = %self.context.request_id, arm = %arm.id, class = error.class.label(),
                    status = error.status, detail = %error.detail, "attempt failed"
                );
                let failed = Outcome::Failed { class: error.class, retry_after: error.retry_after };
                record.finish(if unfair { Outcome::CANCELLED } else { failed });
                if error.class.breaker() != BreakerEffect::None {
                    arm.service.breaker.settled().await;
                }
                Err(Missed::Failed(error))
            }
        }
    }

    /// While others are left, a backend that just came back takes only the share it admits.
    async fn enter(&self, candidate: &Candidate, left: usize) -> Result<Attempt, Refused> {
        let (breaker, model) = (&candidate.arm.service.breaker, &candidate.arm.id.model);
        let request = fingerprint(&self.context.request_id);
        if left == 0 || self.state.insists {
            breaker.enter(model, request).await
        } else {
            breaker.enter_or_other(model, request).await
        }
    }

    /// The longest silence before the first content. A whole answer is silent until it is complete, so it
    /// gets more; and the last candidate gets all there is.
    fn silence_limit(&self, candidate: &Candidate, left: usize) -> Duration {
        let service = &candidate.arm.service;
        match (self.request.is_stream(), left) {
            (true, 0) => service.cold_load.unwrap_or(service.first_token).max(service.first_token),
            (true, _) => service.first_token,
            (false, 0) => self.inner.timeouts.total,
            (false, _) => whole_budget(service.first_token, self.request.pieces()),
        }
    }

    fn note_missed(&mut self, candidate: &Candidate, limit: bool, retry_in: Option<Duration>) {
        let state = &mut self.state;
        state.not_only_limits |= !limit;
        if let Some(wait) = retry_in {
            state.earliest = Some(state.earliest.map_or(wait, |earliest| earliest.min(wait)));
        }
        state.missed = state.missed.max(candidate.arm.capability);
        state.missed_regular |= !candidate.arm.service.last_resort && !candidate.stand_in;
    }

    fn is_degraded(&self, candidate: &Candidate) -> bool {
        let poorer = candidate.arm.capability < self.state.missed;
        poorer || candidate.stand_in || (candidate.arm.service.last_resort && self.state.missed_regular)
    }

    /// What the caller is told when nothing is left to try.
    fn verdict(&self) -> PipelineError {
        let state = &self.state;
        let retry_after = state.earliest.unwrap_or(COME_AGAIN).max(COME_AGAIN);
        match state.fault {
            Some(class) => PipelineError::from_class(class, retry_after),
            None if !state.not_only_limits => PipelineError::UpstreamRateLimited { retry_after },
            None => PipelineError::BackendsUnavailable { retry_after },
        }
    }
}

/// A silence shorter than this is the caller's impatience, not the backend's fault: the breaker does not
/// hear of it, or one caller with a tiny deadline could open it for all. A model that may have to be loaded
/// first is given the time for that.
fn fair_silence(arm: &Arm) -> Duration {
    match arm.service.cold_load.filter(|_| !arm.warm.load(Ordering::Relaxed)) {
        Some(cold_load) => cold_load,
        None => FAIR_SILENCE.min(arm.service.first_token),
    }
}

/// How long a whole answer may take while others could give it: the time for a first token and for the tokens
/// (or vectors) asked for at a modest rate, at most three times the former. Silence until then says nothing; a
/// backend that hangs and one that writes a long answer look alike.
fn whole_budget(first_token: Duration, pieces: Option<u32>) -> Duration {
    let writing = Duration::from_millis(100) * pieces.unwrap_or(u32::MAX).min(600);
    (first_token + writing).min(first_token * 3)
}

/// How long the candidate's gate stays shut.
fn gate_wait(candidate: &Candidate) -> Option<Duration> {
    match candidate.arm.service.breaker.check(&candidate.arm.id.model, now(), 0.0) {
        GateDecision::Refused(refused) => Some(refused.retry_in),
        GateDecision::Pass | GateDecision::AskActor => None,
    }
}

fn too_slow(waited: Duration) -> BackendError {
    BackendError::new(FailureClass::FirstTokenTimeout, format!("no content within {} ms", waited.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_answer_is_given_up_sooner_than_a_long_one() {
        let first = Duration::from_secs(20);
        assert_eq!(whole_budget(first, Some(64)), Duration::from_millis(26_400));
        assert_eq!(whole_budget(first, None), Duration::from_secs(60));
        assert_eq!(whole_budget(first, Some(u32::MAX)), Duration::from_secs(60));
        assert_eq!(whole_budget(Duration::from_millis(400), None), Duration::from_millis(1200));
    }
}
