//! One sequence: its tokens, its blocks, its listener.

use std::time::Instant;

use super::blocks::{BlockPool, Table};
use super::listener::Listener;
use super::worker::guarded;
use super::{FinishReason, Job, Readiness, TokenEvent, TokenUsage};
use crate::model::{BatchEntry, Language, LoadedModel, Rows};
use crate::sampler::{Choice, Piece, Sampler, TextStream};
use crate::{GenerationParams, InferenceError, TokenLogprob, TopLogprob};

/// A generation under way.
pub(super) struct Sequence {
    listener: Listener,
    /// The prompt, then what was generated.
    tokens: Vec<u32>,
    /// How many of them the cache holds.
    computed: usize,
    table: Table,
    sampler: Sampler,
    text: TextStream,
    wants_logprobs: bool,
    usage: TokenUsage,
    /// Most tokens to generate.
    limit: usize,
    submitted: Instant,
    /// Whether its last token was generated.
    over: bool,
    state: State,
}

/// What can be done for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Compute it, if it is not over.
    Running,
    /// Wait for its listener.
    Parked,
    /// Nothing: it is over and all was said, or nobody listens.
    Gone,
}

impl Sequence {
    /// Starts a job: everything that can be refused is refused here, before anything is computed.
    ///
    /// # Errors
    /// What [`Language::encode`] and parameter checks answer, with the listener to tell.
    pub(super) fn start(
        job: Job,
        language: &Language,
        context: usize,
        submitted: Instant,
    ) -> Result<Self, (Listener, InferenceError)> {
        let Job { prompt, params, sink } = job;
        let mut listener = Listener::new(sink);
        let encoded = guarded(|| {
            params.validate()?;
            check_bias(&params, language.vocab())?;
            let grammars = language.grammars();
            let constraint =
                params.grammar.as_ref().map(|grammar| grammars.constraint(grammar)).transpose()?;
            let tokens = language.encode(&prompt, rand::random())?;
            let prompt = tokens.len();
            let fits = prompt < context;
            fits.then_some((constraint, tokens))
                .ok_or(InferenceError::ContextLengthExceeded { prompt, max: context })
        });
        let (constraint, tokens) =
            match encoded.unwrap_or_else(|message| Err(InferenceError::EnginePanicked { message })) {
                Ok(encoded) => encoded,
                Err(error) => return Err((listener, error)),
            };
        let prompt_tokens = tokens.len();
        listener.queue(TokenEvent::Started { prompt_tokens });
        let room = context - prompt_tokens;
        let limit = params.max_tokens.map_or(room, |most| most.min(room));
        Ok(Self {
            listener,
            tokens,
            computed: 0,
            table: Table::default(),
            text: TextStream::new(params.stop.clone()),
            wants_logprobs: params.logprobs.is_some(),
            usage: TokenUsage { prompt_tokens, completion_tokens: 0 },
            limit,
            sampler: Sampler::new(params, rand::random()).constrained(constraint, limit),
            submitted,
            over: false,
            state: State::Running,
        })
    }

    /// Delivers what is due and asks the listener how it is. One that is over needs no blocks any more.
    pub(super) fn settle(&mut self, pool: &mut BlockPool) -> State {
        self.state = match self.listener.deliver() {
            Readiness::Closed => State::Gone,
            Readiness::Ready if self.over => State::Gone,
            Readiness::Ready => State::Running,
            Readiness::Full => State::Parked,
        };
        if self.over || self.state == State::Gone {
            pool.release(&mut self.table);
        }
        self.state
    }

    /// Whether there is something to compute and someone to listen.
    pub(super) fn is_running(&self) -> bool {
        self.state == State::Running && !self.over
    }

    /// Tokens that the cache does not hold yet.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Tokens that the cache holds.
    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// Whether it holds blocks.
    pub(super) fn holds_blocks(&self) -> bool {
        !self.table.blocks().is_empty()
    }

    /// Whether one more token is all that is to be computed before the next one can be chosen.
    pub(super) fn is_decoding(&self) -> bool {
        self.holds_blocks() && self.usage.completion_tokens > 0 && self.pending() == 1
    }

    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    pub(super) fn submitted(&self) -> Instant {
        self.submitted
    }

    /// Goes on from the blocks it was given, which hold the beginning of its tokens.
    pub(super) fn resume_from(&mut self, table: Table) {
        self.computed = table.shared_tokens();
        self.table = table;
    }

    /// Gives its blocks away; what they held is computed again when it gets others.
    pub(super) fn preempt(&mut self, pool: &mut BlockPool) {
        pool.release(&mut self.table);
        self.computed = 0;
    }

    /// Starts anew after the cache and all its blocks are gone.
    pub(super) fn forget_blocks(&mut self) {
        self.table = Table::default();
        self.computed = 0;
    }

    /// Its part of a pass that computes its next `count` tokens.
    pub(super) fn entry(&self, count: usize) -> BatchEntry<'_> {
        let end = self.computed + count;
        BatchEntry {
            tokens: &self.tokens[self.computed..end],
            past: self.computed,
            blocks: self.table.blocks(),
            rows: if end == self.tokens.len() { Rows::Last } else { Rows::None },
        }
    }

    /// Counts tokens that a pass has computed.
    pub(super) fn advance(&mut self, count: usize) {
        self.computed += count;
    }

    /// Lets others reuse the blocks that are full.
    pub(super) fn publish(&mut self, pool: &mut BlockPool) {
        pool.publish(&mut self.table, &self.tokens[..self.computed]);
    }

    /// Chooses the next token by its logits. Touches nothing else, so that several sequences can choose at once.
    ///
    /// # Errors
    /// As [`Sampler::choose`].
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> Result<Choice, InferenceError> {
        self.sampler.choose(logits)
    }

    /// Takes a chosen token; answers whether it is the sequence's first.
    pub(super) fn accept(&mut self, choice: Choice, model: &LoadedModel) -> bool {
        let tokenizer = model.tokenizer();
        self.usage.completion_tokens += 1;
        let is_first = self.usage.completion_tokens == 1;
        if tokenizer.is_end_of_generation(choice.id) {
            self.finish(FinishReason::Stop);
            return is_first;
        }
        let id = choice.id;
        self.tokens.push(id);
        let logprob = choice.logprobs.map(|(chosen, top)| {
            let entry = |(id, logprob)| TopLogprob { id, bytes: tokenizer.bytes(id).to_vec(), logprob };
            TokenLogprob { chosen: entry((id, chosen)), top: top.into_iter().map(entry).collect() }
        });
        let piece = self.text.push(tokenizer.bytes(id), logprob);
        let stopped = piece.stopped;
        self.show(piece);
        if stopped {
            self.end(FinishReason::Stop);
        } else if self.sampler.is_complete() {
            // Nothing but the end could follow: a pass through the model would tell nothing new.
            self.finish(FinishReason::Stop);
        } else if self.usage.completion_tokens >= self.limit {
            self.finish(FinishReason::Length);
        }
        is_first
    }

    /// Ends the sequence with an error, whether or not the listener is ready. Its blocks must have been given back.
    pub(super) fn fail(self, error: InferenceError) {
        self.listener.fail(error);
    }

    /// Lets out what was held back, then ends.
    fn finish(&mut self, reason: FinishReason) {
        let rest = self.text.finish();
        let reason = if rest.stopped { FinishReason::Stop } else { reason };
        self.show(rest);
        self.end(reason);
    }

    fn end(&mut self, finish: FinishReason) {
        self.over = true;
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
