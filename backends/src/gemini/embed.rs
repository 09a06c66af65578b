//! `embedContent` and `batchEmbedContents`: vectors of texts.
//!
//! A batch holds at most [`BATCH`] texts; more are sent as several, a few at a time. Vectors that were
//! shortened come without unit length, which every other backend's have, so they are scaled here.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use opossum_core::answer::Usage;
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedInputs, Embeddings};
use opossum_core::needs::Needs;
use serde::{Deserialize, Serialize};

use super::wire::UsageMetadata;
use super::{Shared, accepted, model_path};
use crate::vectors::{self, Vector};
use crate::{BackendError, EmbedCall, json};

/// What an embedding model can do: texts only, no token ids.
pub(super) const CAN: Needs = Needs::EMBED.union(Needs::DIMENSIONS);
/// Texts in one request at most, by the API's own limit.
const BATCH: usize = 100;
/// Requests of one call under way at a time.
const AT_ONCE: usize = 4;

#[derive(Serialize)]
struct Batch<'a> {
    requests: Vec<One<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

/// The answer of either method.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    embedding: Option<Values>,
    embeddings: Option<Vec<Values>>,
    usage_metadata: Option<UsageMetadata>,
}

#[derive(Deserialize)]
struct Values {
    values: Vector,
}

impl Shared {
    /// The vectors of a call's texts.
    pub(super) async fn embed(&self, call: &EmbedCall) -> Result<Embeddings, BackendError> {
        let EmbedInputs::Texts(texts) = &call.request.inputs else {
            let error = BackendError::new(FailureClass::CallerError, "gemini embeds texts, not token ids");
            return Err(error.about("input"));
        };
        let path = model_path(call.model.as_str());
        let batch = |first: usize| &texts[first..texts.len().min(first + BATCH)];
        let asked = (0..texts.len()).step_by(BATCH).map(|first| self.embed_some(call, &path, batch(first)));
        let answers: Vec<Answer> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        let usage = usage(&answers);
        let vectors: Vec<Vec<f32>> = answers.into_iter().flat_map(Answer::into_vectors).collect();
        let mut found = vectors::gather(call, None, vectors.into_iter())?;
        found.usage = usage;
        if call.request.dimensions.is_some() {
            found.vectors_mut().for_each(scale_to_unit);
        }
        Ok(found)
    }

    async fn embed_some(
        &self,
        call: &EmbedCall,
        path: &str,
        texts: &[String],
    ) -> Result<Answer, BackendError> {
        let one = |text| One {
            model: path,
            content: Content { parts: [Part { text }] },
            output_dimensionality: call.request.dimensions,
        };
        let (method, body) = match texts {
            [only] => ("embedContent", json::write(&one(only))?),
            many => {
                let requests = many.iter().map(|text| one(text)).collect();
                ("batchEmbedContents", json::write(&Batch { requests })?)
            }
        };
        let uri = self.endpoint.uri(&format!("/v1beta/{path}:{method}"))?;
        let response = accepted(self.client.send(self.endpoint.post(uri, call, body)).await?).await?;
        json::read(&response.whole().await?)
    }
}

impl Answer {
    fn into_vectors(self) -> impl Iterator<Item = Vec<f32>> {
        self.embedding.into_iter().chain(self.embeddings.into_iter().flatten()).map(|one| one.values.0)
    }
}

/// Tokens of all answers, if each of them counts its own.
fn usage(answers: &[Answer]) -> Option<Usage> {
    let counts = answers.iter().map(|answer| answer.usage_metadata.as_ref()?.prompt_token_count);
    let prompt = counts.sum::<Option<u64>>()?;
    Some(Usage { prompt, ..Usage::default() })
}

fn scale_to_unit(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn tokens_are_counted_only_if_every_answer_counts_them() {
        let read = |json: &str| serde_json::from_str::<Answer>(json).unwrap();
        let counted = r#"{"embedding":{"values":[1]},"usageMetadata":{"promptTokenCount":3}}"#;
        let silent = r#"{"embeddings":[{"values":[1]},{"values":[2]}]}"#;
        assert_eq!(usage(&[read(counted), read(counted)]).unwrap().prompt, 6);
        assert_eq!(usage(&[read(counted), read(silent)]), None);
        assert_eq!(read(silent).into_vectors().collect::<Vec<_>>(), [[1.0], [2.0]]);
    }

    #[test]
    fn a_shortened_vector_gets_unit_length() {
        let mut vector = [3.0, 4.0];
        scale_to_unit(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut nothing = [0.0];
        scale_to_unit(&mut nothing);
        assert_eq!(nothing, [0.0]);
    }
}
