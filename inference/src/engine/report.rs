//! What the engine tells whoever measures it.

use std::time::Duration;

/// Who is told what the engine does. Called on the engine's thread between steps, so no method may block.
pub trait EngineObserver: std::fmt::Debug + Send + Sync {
    /// A step was computed.
    fn step(&self, report: &StepReport);

    /// A job left the queue, so long after it was submitted.
    fn waited(&self, time: Duration);

    /// A sequence got its first token, so long after its job was submitted.
    fn first_token(&self, time: Duration);
}

/// One step of the engine: one pass through the model for all sequences that it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepReport {
    /// Sequences in the pass.
    pub sequences: usize,
    /// Tokens computed for sequences that were past their prompt: one each.
    pub decoded: usize,
    /// Prompt tokens computed, those of resumed sequences included.
    pub prefilled: usize,
    /// Tokens chosen: one for each sequence whose prompt is complete.
    pub generated: usize,
    /// Prompt tokens that were not computed, because the blocks of an earlier prompt hold them.
    pub reused: usize,
    /// Sequences whose blocks were taken away in favour of others, to be computed again later.
    pub preempted: usize,
    /// Time the step took: the pass and the choice of tokens.
    pub took: Duration,
    /// The part of it that went into prompts.
    pub prefill: Duration,
}
