//! Which sequences a step computes, and how far.
//!
//! "Continuous batching" (Yu et al., "Orca", 2022): the batch is put together anew for every step. All sequences that
//! decode are in it with one token each; prompts share what [`Pace`] leaves for them. Sequences are kept in the order
//! they came, and whatever is short goes to the older ones first: no sequence starves, and the oldest one that can run
//! always does, because everybody else's blocks are at its disposal.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::blocks::BlockPool;
use super::pace::{Budget, FOREVER, Pace, Prefill};
use super::report::StepReport;
use super::sequence::{Sequence, State};
use super::shared::Shared;
use super::worker::guarded;
use crate::InferenceError;
use crate::model::{BLOCK_TOKENS, BatchEntry, LoadedModel, Logits};
use crate::sampler::Choice;

/// Fewest tokens of a prompt worth a place in a step that several prompts share.
const LEAST_SHARE: usize = 16;

/// All sequences of an engine, and the blocks they share.
pub(super) struct Scheduler {
    /// Oldest first.
    sequences: Vec<Sequence>,
    pool: BlockPool,
    pace: Pace,
    /// What the next step computes.
    parts: Vec<Part>,
    /// Since the last step.
    reused: usize,
    preempted: usize,
}

/// A sequence's part of a step.
#[derive(Debug, Clone, Copy)]
struct Part {
    index: usize,
    tokens: usize,
    decodes: bool,
}

impl Scheduler {
    /// No sequences, and a cache of as many blocks.
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            sequences: Vec::new(),
            pool: BlockPool::new(blocks),
            pace: Pace::default(),
            parts: Vec::new(),
            reused: 0,
            preempted: 0,
        }
    }

    pub(super) fn blocks(&self) -> &BlockPool {
        &self.pool
    }

    /// Sequences under way.
    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Takes a sequence in and tells its listener that it started.
    pub(super) fn add(&mut self, mut sequence: Sequence) {
        if sequence.settle(&mut self.pool) != State::Gone {
            self.sequences.push(sequence);
        }
    }

    /// Delivers what is due and forgets the sequences that are over or that nobody listens to.
    pub(super) fn settle(&mut self) {
        self.sequences.retain_mut(|sequence| sequence.settle(&mut self.pool) != State::Gone);
    }

    /// Decides what the next step computes; `false` when there is nothing to.
    pub(super) fn plan(&mut self) -> bool {
        self.parts.clear();
        for index in 0..self.sequences.len() {
            let sequence = &self.sequences[index];
            if sequence.is_running() && sequence.is_decoding() && self.grow(index) {
                self.parts.push(Part { index, tokens: 1, decodes: true });
            }
        }
        self.plan_prompts();
        !self.parts.is_empty()
    }

    /// The step that was planned, as the model wants it.
    pub(super) fn batch(&self) -> Vec<BatchEntry<'_>> {
        self.parts.iter().map(|part| self.sequences[part.index].entry(part.tokens)).collect()
    }

    /// Takes what the step came to: every sequence whose prompt is complete chooses its next token. A fault of one is
    /// told to its listener and nobody else's business.
    pub(super) fn take(&mut self, logits: &mut Logits, model: &LoadedModel, began: Instant, shared: &Shared) {
        let mut report = StepReport { sequences: self.parts.len(), ..StepReport::default() };
        let mut rows = logits.rows();
        let mut complete = Vec::with_capacity(self.parts.len());
        let mut failed = Vec::new();
        let mut prefill = Prefill::default();
        for part in &self.parts {
            let sequence = &mut self.sequences[part.index];
            if part.decodes {
                report.decoded += part.tokens;
            } else {
                prefill.add(part.tokens, sequence.computed());
            }
            sequence.advance(part.tokens);
            if sequence.pending() == 0 {
                complete.push((part.index, rows.next()));
            } else {
                sequence.publish(&mut self.pool);
            }
        }
        for (index, choice) in choose(&mut self.sequences, complete, model) {
            match choice {
                Ok(choice) => {
                    let sequence = &mut self.sequences[index];
                    report.generated += 1;
                    sequence.publish(&mut self.pool);
                    if sequence.accept(choice, model) {
                        shared.first_token(sequence.submitted().elapsed());
                    }
                }
                Err(error) => failed.push((index, error)),
            }
        }
        // From the end, so that the other indices stay right.
        failed.sort_unstable_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, error) in failed {
            self.drop_faulty(index, error);
        }
        report.took = began.elapsed();
        report.prefilled = prefill.tokens;
        report.prefill = self.pace.learn(report.decoded, prefill, report.took);
        report.reused = std::mem::take(&mut self.reused);
        report.preempted = std::mem::take(&mut self.preempted);
        shared.step(&report);
    }

    /// After a step that came to nothing: fails the sequences that were in it. What the cache holds is lost; the
    /// other sequences are computed anew.
    pub(super) fn fail_step(&mut self, error: &InferenceError) -> usize {
        self.pool = BlockPool::new(self.pool.total());
        let failed = self.parts.len();
        // Prompts are planned after decodes, so the indices are not in order.
        self.parts.sort_unstable_by_key(|part| part.index);
        while let Some(part) = self.parts.pop() {
            self.sequences.remove(part.index).fail(error.clone());
        }
        self.sequences.iter_mut().for_each(Sequence::forget_blocks);
        failed
    }

    /// Fails every sequence.
    pub(super) fn fail_all(&mut self, error: &InferenceError) {
        for mut sequence in self.sequences.drain(..) {
            sequence.preempt(&mut self.pool);
            sequence.fail(error.clone());
        }
    }

    /// Ends a sequence whose numbers cannot be trusted: nobody may reuse its blocks.
    fn drop_faulty(&mut self, index: usize, error: InferenceError) {
        let mut sequence = self.sequences.remove(index);
        self.pool.discard(sequence.table_mut());
        sequence.fail(error);
    }

    /// Shares the budget among the prompts: an even part for each, oldest first, then what is left.
    fn plan_prompts(&mut self) {
        let decoding = self.parts.len();
        let mut may_start = true;
        for index in 0..self.sequences.len() {
            let sequence = &self.sequences[index];
            if !sequence.is_running() || sequence.is_decoding() {
                continue;
            }
            if !sequence.holds_blocks() {
                // No younger one may overtake because it needs less: the older one could wait for ever.
                may_start = may_start && self.start(index);
                if !may_start {
                    continue;
                }
            }
            self.parts.push(Part { index, tokens: 0, decodes: false });
        }
        let Some(oldest) = self.parts.get(decoding) else { return };
        let mut budget = self.pace.budget(decoding, self.sequences[oldest.index].computed());
        let prompts = &mut self.parts[decoding..];
        let even = budget.seconds / prompts.len() as f64;
        for most in [even, FOREVER] {
            for part in &mut *prompts {
                let sequence = &self.sequences[part.index];
                let (past, left) = (sequence.computed() + part.tokens, sequence.pending() - part.tokens);
                let fair = self.pace.fits(Budget { seconds: most, ..budget }, past).max(LEAST_SHARE);
                let share = left.min(fair).min(self.pace.fits(budget, past));
                self.pace.spend(&mut budget, share, past);
                part.tokens += share;
            }
        }
        self.parts.retain(|part| part.tokens > 0);
    }

    /// Gives a sequence blocks for all its tokens, those of an earlier prompt where it begins like one; `false` when
    /// there are too few.
    fn start(&mut self, index: usize) -> bool {
        let tokens = self.sequences[index].tokens();
        // The last token is always computed: the next one is chosen by its logits.
        let mut table = self.pool.reuse(&tokens[..tokens.len() - 1]);
        let missing = tokens.len().div_ceil(BLOCK_TOKENS) - table.blocks().len();
        let holders =
            |running| move |other: &&Sequence| other.holds_blocks() && other.is_running() == running;
        // Everyone at work may need a block soon: without it, this one would be preempted as soon as it began.
        let wanted = missing + self.sequences.iter().filter(holders(true)).count();
        let parked: usize =
            self.sequences.iter().filter(holders(false)).map(|other| other.table().blocks().len()).sum();
        if self.pool.available() + parked >= wanted {
            while self.pool.available() < wanted
                && let Some(victim) = self.sequences.iter().rposition(|other| holders(false)(&other))
            {
                self.preempt(victim);
            }
        }
        if self.pool.available() < wanted {
            self.pool.release(&mut table);
            return false;
        }
        self.reused += table.shared_tokens();
        self.sequences[index].resume_from(table);
        (0..missing).all(|_| self.pool.extend(self.sequences[index].table_mut()))
    }

    /// Makes room for one more token of a sequence that decodes; `false` when the sequence had to give way itself.
    fn grow(&mut self, index: usize) -> bool {
        loop {
            let sequence = &mut self.sequences[index];
            let wanted = sequence.tokens().len();
            if sequence.table().room() >= wanted || self.pool.extend(sequence.table_mut()) {
                return true;
            }
            let victim = self.victim(index);
            self.preempt(victim);
            if victim == index {
                return false;
            }
        }
    }

    /// Who gives way to a sequence that cannot grow: the youngest of those who wait for their listener, then the
    /// youngest of all, which may be the sequence itself.
    fn victim(&self, index: usize) -> usize {
        let holds = |other: &Sequence| other.holds_blocks();
        let parked = self.sequences.iter().rposition(|other| holds(other) && !other.is_running());
        parked.or_else(|| self.sequences.iter().rposition(holds)).unwrap_or(index)
    }

    fn preempt(&mut self, index: usize) {
        self.sequences[index].preempt(&mut self.pool);
        self.preempted += 1;
    }
}

/// A sequence that is to choose its next token, and what it chose.
struct Choosing<'a> {
    index: usize,
    sequence: &'a mut Sequence,
    row: Option<&'a mut [f32]>,
    chosen: Option<Result<Choice, InferenceError>>,
}

impl Choosing<'_> {
    fn choose(&mut self) {
        let chosen = match self.row.take() {
            Some(row) => guarded(|| self.sequence.choose(row)),
            None => Err("the model answered too few rows".to_owned()),
        };
        let chosen = chosen.unwrap_or_else(|message| Err(InferenceError::EnginePanicked { message }));
        self.chosen = Some(chosen);
    }
}

/// Has sequences choose their next tokens by their logits, several at once: with a large vocabulary that takes a good part
/// of a step.
fn choose(
    sequences: &mut [Sequence],
    mut rows: Vec<(usize, Option<&mut [f32]>)>,
    model: &LoadedModel,
) -> Vec<(usize, Result<Choice, InferenceError>)> {
    // Prompts are planned after decodes, so the indices are not in order.
    rows.sort_unstable_by_key(|(index, _)| *index);
    let mut sequences = sequences.iter_mut().enumerate();
    let choosing: Vec<Mutex<Choosing<'_>>> = rows
        .into_iter()
        .filter_map(|(wanted, row)| {
            let (index, sequence) = sequences.find(|(index, _)| *index == wanted)?;
            Some(Mutex::new(Choosing { index, sequence, row, chosen: None }))
        })
        .collect();
    model.share(choosing.len(), &|task| {
        choosing[task].lock().unwrap_or_else(PoisonError::into_inner).choose();
    });
    let chosen = choosing.into_iter().map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner));
    chosen.filter_map(|one| Some((one.index, one.chosen?))).collect()
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
