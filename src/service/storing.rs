//! Folding a streamed answer so that it can be stored, and handed to those who wait for it.

use std::sync::Arc;

use opossum_actors::{CachedAnswer, CachedBody, LeadGuard};
use opossum_core::answer::{Answer, StreamEvent};
use opossum_core::embed::Embeddings;
use opossum_core::ids::ArmId;

use opossum_core::collect::Collector;

/// A streamed answer being folded for the cache. Dropped before the end, nothing is stored and one who
/// waits takes over.
pub(super) struct Folding {
    collector: Collector,
    store: Storing,
}

/// The right and duty to store an answer.
pub(super) struct Storing {
    pub lead: LeadGuard,
    pub arm: ArmId,
    pub degraded: bool,
}

impl Folding {
    pub(super) fn new(store: Storing) -> Self {
        Self { collector: Collector::new(store.arm.model.as_str()), store }
    }

    pub(super) fn add(&mut self, batch: &[StreamEvent]) {
        for event in batch {
            self.collector.push(event);
        }
    }

    /// The stream ended well, but its answer is not to be shared.
    pub(super) fn decline(self) {
        self.store.decline();
    }

    /// The stream ended well.
    pub(super) fn store(self) {
        if let Some(answer) = self.collector.finish() {
            self.store.store(answer);
        }
    }
}

impl Storing {
    /// There is nothing to share: those who wait ask for themselves, all at once and not one after another.
    pub(super) fn decline(self) {
        self.lead.complete(None);
    }

    /// Stores a whole answer.
    pub(super) fn store(self, answer: Answer) {
        let bytes = weight(&answer);
        self.put(CachedBody::Answer(answer), bytes);
    }

    /// Stores vectors.
    pub(super) fn store_vectors(self, vectors: Arc<Embeddings>) {
        let bytes = vectors.bytes();
        self.put(CachedBody::Embeddings(vectors), bytes);
    }

    fn put(self, body: CachedBody, bytes: usize) {
        let cached = CachedAnswer { body, arm: self.arm, degraded: self.degraded, bytes };
        self.lead.complete(Some(Arc::new(cached)));
    }
}

/// Memory an answer takes, near enough.
fn weight(answer: &Answer) -> usize {
    let choices = answer.choices.iter().map(|c| {
        let texts = [&c.text, &c.reasoning, &c.refusal].into_iter().flatten().map(String::len).sum::<usize>();
        let calls: usize =
            c.tool_calls.iter().map(|t| t.id.len() + t.name.len() + t.arguments.len() + 64).sum();
        texts + calls + c.logprobs.as_ref().map_or(0, |l| l.get().len()) + 96
    });
    choices.sum::<usize>() + answer.model.len() + 64
}
