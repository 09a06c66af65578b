//! What the path has to know of a request, whatever is asked.
//!
//! Admission, cache, order and attempts are the same for an answer and for vectors. Where they need to know
//! more than that, they ask here.

use std::future::Future;

use opossum_backends::{Backend, BackendError, Call, Reply};
use opossum_core::answer::StreamEvent;
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedRequest, Embeddings};
use opossum_core::needs::Needs;
use opossum_core::request::{GenerateRequest, Prompt};
use serde::Serialize;

use super::run::Opened;

/// A request as the path sees it.
pub(super) trait Ask: Serialize + Sized {
    /// What an attempt is to bring.
    type Opened;

    /// Its kind, which tells stored answers apart.
    fn endpoint(&self) -> &'static str;

    /// What an arm must be able to do.
    fn needs(&self) -> Needs;

    /// Whether an answer may be stored without being asked to.
    fn is_repeatable(&self) -> bool;

    /// Characters that have to fit into a model's context at once.
    fn prompt_chars(&self) -> usize;

    /// Tokens to generate at most, where the request says.
    fn max_tokens(&self) -> Option<u32>;

    /// How many pieces of work a whole answer is, each of about the time of a token; `None` for unknown.
    fn pieces(&self) -> Option<u32>;

    /// Whether the answer is to come in pieces.
    fn is_stream(&self) -> bool;

    /// Makes the call and waits until it can no longer be undone.
    fn open(
        backend: &dyn Backend,
        call: Call<Self>,
    ) -> impl Future<Output = Result<Self::Opened, BackendError>>;
}

impl Ask for GenerateRequest {
    type Opened = Opened;

    fn endpoint(&self) -> &'static str {
        match self.prompt {
            Prompt::Chat(_) => "chat",
            Prompt::Text { .. } => "completion",
        }
    }

    fn needs(&self) -> Needs {
        self.needs()
    }

    fn is_repeatable(&self) -> bool {
        self.is_repeatable()
    }

    fn prompt_chars(&self) -> usize {
        match &self.prompt {
            Prompt::Chat(messages) => messages.iter().map(|m| m.content.joined_text().len()).sum(),
            Prompt::Text { prompt, .. } => prompt.len(),
        }
    }

    fn max_tokens(&self) -> Option<u32> {
        self.params.max_tokens
    }

    fn pieces(&self) -> Option<u32> {
        self.params.max_tokens
    }

    fn is_stream(&self) -> bool {
        self.stream
    }

    /// Waits for a whole answer or for the first content of a stream.
    async fn open(backend: &dyn Backend, call: Call) -> Result<Opened, BackendError> {
        use futures::StreamExt as _;
        match backend.generate(call).await? {
            Reply::Whole(answer) => Ok(Opened::Whole(answer)),
            Reply::Stream(mut rest) => {
                let mut first = Vec::new();
                while let Some(batch) = rest.next().await {
                    let batch = batch?;
                    let content = batch.iter().any(StreamEvent::is_content);
                    if first.is_empty() {
                        first = batch;
                    } else {
                        first.extend(batch);
                    }
                    if content {
                        return Ok(Opened::Stream { first, rest });
                    }
                }
                Err(BackendError::new(FailureClass::Truncated, "the stream ended before its first content"))
            }
        }
    }
}

impl Ask for EmbedRequest {
    type Opened = Embeddings;

    fn endpoint(&self) -> &'static str {
        "embedding"
    }

    fn needs(&self) -> Needs {
        self.needs()
    }

    /// The same input has the same vector, always.
    fn is_repeatable(&self) -> bool {
        true
    }

    fn prompt_chars(&self) -> usize {
        self.inputs.longest_chars()
    }

    fn max_tokens(&self) -> Option<u32> {
        None
    }

    fn pieces(&self) -> Option<u32> {
        Some(u32::try_from(self.inputs.len()).unwrap_or(u32::MAX))
    }

    fn is_stream(&self) -> bool {
        false
    }

    async fn open(backend: &dyn Backend, call: Call<Self>) -> Result<Embeddings, BackendError> {
        backend.embed(call).await
    }
}
