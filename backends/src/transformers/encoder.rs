//! Embeddings of the embedded encoder: the seam, and its use by the backend.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedRequest, Embeddings};
use opossum_core::ids::ModelName;
use opossum_core::needs::Needs;
use tokio::sync::oneshot;

use super::{LocalModelInfo, LocalStatus};
use crate::BackendError;

/// What an encoder can do. Its vectors have the length that the model was trained for.
pub const ENCODER_CAN: Needs = Needs::EMBED.union(Needs::TOKEN_INPUT);

/// Something that embeds in this process.
pub trait LocalEncoder: Send + Sync + 'static {
    /// Hands over a job; resolves when it is queued.
    ///
    /// Dropping the future takes the job back, dropping the vectors to come cancels it.
    ///
    /// # Errors
    /// `RateLimited` when the queue is full, `ModelMissing` for a model that is not here or cannot be loaded,
    /// `ServerError` when the encoder is gone.
    fn submit(&self, job: EncodeOrder) -> BoxFuture<'static, Result<LocalVectors, BackendError>>;

    /// The models that can be asked for, loaded or not.
    fn models(&self) -> Vec<LocalModelInfo>;

    /// How it is. Never blocks.
    fn status(&self) -> LocalStatus;
}

/// Inputs to embed here.
#[derive(Clone)]
pub struct EncodeOrder {
    /// The model, as [`LocalModelInfo::name`] has it.
    pub model: ModelName,
    /// What is to be embedded.
    pub request: Arc<EmbedRequest>,
}

impl std::fmt::Debug for EncodeOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The inputs are a caller's private texts: logs must not carry them.
        let inputs = self.request.inputs.len();
        f.debug_struct("EncodeOrder").field("model", &self.model).field("inputs", &inputs).finish()
    }
}

/// The vectors of a queued job, to come. Dropping it cancels the job.
#[derive(Debug)]
pub struct LocalVectors {
    receiver: oneshot::Receiver<Result<Embeddings, BackendError>>,
    /// Gone with the one who waits.
    _waits: Arc<()>,
}

/// Where the vectors of a job are put.
#[derive(Debug)]
pub struct VectorSink {
    sender: oneshot::Sender<Result<Embeddings, BackendError>>,
    waits: Weak<()>,
}

/// Tells whether anybody still waits for a job's vectors.
#[derive(Clone, Debug)]
pub struct Waiting(Weak<()>);

impl LocalVectors {
    /// A job's two ends.
    pub fn channel() -> (VectorSink, Self) {
        let (sender, receiver) = oneshot::channel();
        let waits = Arc::new(());
        (VectorSink { sender, waits: Arc::downgrade(&waits) }, Self { receiver, _waits: waits })
    }
}

impl VectorSink {
    /// A watch over whoever waits.
    pub fn waiting(&self) -> Waiting {
        Waiting(Weak::clone(&self.waits))
    }

    /// Ends the job; without effect when nobody waits any more.
    pub fn put(self, outcome: Result<Embeddings, BackendError>) {
        self.sender.send(outcome).ok();
    }
}

impl Waiting {
    /// Whether nobody waits any more.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Future for LocalVectors {
    type Output = Result<Embeddings, BackendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|outcome| {
            let gone = || Err(BackendError::new(FailureClass::ServerError, "the encoder dropped the job"));
            outcome.unwrap_or_else(|_| gone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_knows_whether_anybody_waits_and_ends_once() {
        let (sink, vectors) = LocalVectors::channel();
        let waiting = sink.waiting();
        assert!(!waiting.is_over());
        sink.put(Ok(Embeddings::default()));
        assert_eq!(vectors.await.map(|found| found.len()).ok(), Some(0));
        assert!(waiting.is_over());

        let (sink, vectors) = LocalVectors::channel();
        let waiting = sink.waiting();
        drop(vectors);
        assert!(waiting.is_over());
        sink.put(Ok(Embeddings::default()));

        let (sink, vectors) = LocalVectors::channel();
        drop(sink);
        assert_eq!(vectors.await.map_err(|error| error.class), Err(FailureClass::ServerError));
    }
}
