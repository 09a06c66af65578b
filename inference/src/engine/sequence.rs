//! One sequence: its prompt, its cache, its listener.

use std::collections::VecDeque;

use super::worker::guarded;
use super::{FinishReason, Job, Readiness, TokenEvent, TokenSink, TokenUsage};
use crate::model::{LoadedModel, Session};
use crate::sampler::{Choice, Piece, Sampler, TextStream};
use crate::{GenerationParams, InferenceError, TokenLogprob, TopLogprob};

/// Most prompt tokens computed in one step, so that a long prompt does not stall other sequences.
const PREFILL_CHUNK: usize = 128;

/// A generation under way.
pub(super) struct Sequence {
    listener: Listener,
    cache: Session,
    phase: Phase,
    sampler: Sampler,
    text: TextStream,
    wants_logprobs: bool,
    usage: TokenUsage,
    /// Most tokens to generate.
    limit: usize,
}

/// What is to be computed next.
enum Phase {
    /// The prompt from token `done` on.
    Prefill { tokens: Vec<u32>, done: usize },
    /// The token behind this one.
    Decode { last: u32 },
    /// Nothing.
    Over,
}

/// What a visit came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// Something was computed; there is more to do.
    Advanced,
    /// The listener is not ready.
    Parked,
    /// The sequence is over or its listener left: drop it.
    Gone,
}

/// Tokens one step computed.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Work {
    pub(super) prefilled: usize,
    pub(super) generated: usize,
}

impl Sequence {
    /// Starts a job: everything that can be refused is refused here, before anything is computed.
    ///
    /// # Errors
    /// What [`LoadedModel::encode`] and parameter checks answer, with the listener to tell.
    pub(super) fn start(
        job: Job,
        model: &LoadedModel,
        seed: u64,
        nonce: u64,
    ) -> Result<Self, (Listener, InferenceError)> {
        let Job { prompt, params, sink } = job;
        let mut listener = Listener::new(sink);
        let checked = params
            .validate()
            .and_then(|()| check_bias(&params, model.info().vocab))
            .and_then(|()| model.encode(&prompt, nonce));
        let (tokens, cache) = match checked.and_then(|tokens| Ok((tokens, model.new_session()?))) {
            Ok(ready) => ready,
            Err(error) => return Err((listener, error)),
        };
        let prompt_tokens = tokens.len();
        listener.queue(TokenEvent::Started { prompt_tokens });
        let room = model.info().context_length - prompt_tokens;
        Ok(Self {
            listener,
            cache,
            phase: Phase::Prefill { tokens, done: 0 },
            text: TextStream::new(params.stop.clone()),
            wants_logprobs: params.logprobs.is_some(),
            usage: TokenUsage { prompt_tokens, completion_tokens: 0 },
            limit: params.max_tokens.map_or(room, |most| most.min(room)),
            sampler: Sampler::new(params, seed),
        })
    }

    /// Delivers what is due; answers whether there is something to compute and someone to listen.
    pub(super) fn deliver(&mut self) -> Visit {
        match self.listener.deliver() {
            Readiness::Closed => Visit::Gone,
            Readiness::Full => Visit::Parked,
            Readiness::Ready if matches!(self.phase, Phase::Over) => Visit::Gone,
            Readiness::Ready => Visit::Advanced,
        }
    }

    /// Computes one chunk of the prompt or one token.
    pub(super) fn compute(&mut self, model: &LoadedModel) -> Result<Work, InferenceError> {
        let mut work = Work::default();
        let mut logits = match &mut self.phase {
            Phase::Prefill { tokens, done } => {
                let end = tokens.len().min(*done + PREFILL_CHUNK);
                let logits = model.step(&tokens[*done..end], &mut self.cache)?;
                work.prefilled = end - *done;
                *done = end;
                if end < tokens.len() {
                    return Ok(work);
                }
                logits
            }
            Phase::Decode { last } => model.step(&[*last], &mut self.cache)?,
            Phase::Over => return Ok(work),
        };
        let choice = self.sampler.choose(&mut logits)?;
        work.generated = 1;
        self.accept(choice, model);
        Ok(work)
    }

    /// Ends the sequence with an error, whether or not the listener is ready.
    pub(super) fn fail(self, error: InferenceError) {
        self.listener.fail(error);
    }

    fn accept(&mut self, choice: Choice, model: &LoadedModel) {
        let tokenizer = model.tokenizer();
        self.usage.completion_tokens += 1;
        self.phase = Phase::Decode { last: choice.id };
        if tokenizer.is_end_of_generation(choice.id) {
            return self.finish(FinishReason::Stop);
        }
        let id = choice.id;
        let logprob = choice.logprobs.map(|(chosen, top)| {
            let entry = |(id, logprob)| TopLogprob { id, bytes: tokenizer.bytes(id).to_vec(), logprob };
            TokenLogprob { chosen: entry((id, chosen)), top: top.into_iter().map(entry).collect() }
        });
        let piece = self.text.push(tokenizer.bytes(id), logprob);
        let stopped = piece.stopped;
        self.show(piece);
        if stopped {
            self.end(FinishReason::Stop);
        } else if self.usage.completion_tokens >= self.limit {
            self.finish(FinishReason::Length);
        }
    }

    /// Lets out what was held back, then ends.
    fn finish(&mut self, reason: FinishReason) {
        let rest = self.text.finish();
        let reason = if rest.stopped { FinishReason::Stop } else { reason };
        self.show(rest);
        self.end(reason);
    }

    fn end(&mut self, finish: FinishReason) {
        self.phase = Phase::Over;
        self.listener.queue(TokenEvent::Done { finish, usage: self.usage });
    }

    fn show(&mut self, piece: Piece) {
        let Piece { text, tokens, logprobs, .. } = piece;
        if !text.is_empty() || (self.wants_logprobs && !logprobs.is_empty()) {
            self.listener.queue(TokenEvent::Text { text, tokens, logprobs });
        }
    }
}

fn check_bias(params: &GenerationParams, vocab: usize) -> Result<(), InferenceError> {
    match params.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
        Some((id, _)) => Err(InferenceError::BadParameter {
            name: "logit_bias",
            reason: format!("{id} is no token of this model"),
        }),
        None => Ok(()),
    }
}

/// A sink and what it has not been given yet. A sink that panics counts as closed: it must not take the engine along.
pub(super) struct Listener {
    sink: Box<dyn TokenSink>,
    due: VecDeque<TokenEvent>,
}

impl Listener {
    pub(super) fn new(sink: Box<dyn TokenSink>) -> Self {
        Self { sink, due: VecDeque::new() }
    }

    fn queue(&mut self, event: TokenEvent) {
        self.due.push_back(event);
    }

    /// Sends what is due as long as the sink takes it; `Ready` means that nothing is due any more.
    fn deliver(&mut self) -> Readiness {
        loop {
            let readiness = ask(&mut *self.sink);
            if readiness != Readiness::Ready {
                return readiness;
            }
            let Some(event) = self.due.pop_front() else { return Readiness::Ready };
            if !guarded(|| self.sink.send(event)).unwrap_or(false) {
                return Readiness::Closed;
            }
        }
    }

    pub(super) fn fail(mut self, error: InferenceError) {
        // The last event: whether anyone still listens makes no difference any more.
        let _ = guarded(|| self.sink.send(TokenEvent::Failed(error)));
    }
}

/// Whether a sink is ready.
pub(super) fn ask(sink: &mut dyn TokenSink) -> Readiness {
    guarded(|| sink.ready()).unwrap_or(Readiness::Closed)
}
