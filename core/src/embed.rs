//! Embeddings: what is asked and what comes back, in no vendor's dialect.

use serde::Serialize;

use crate::answer::Usage;
use crate::needs::Needs;

/// A request for the vectors of some inputs, after validation.
#[derive(Debug, Serialize)]
pub struct EmbedRequest {
    /// What is to be embedded; never empty.
    pub inputs: EmbedInputs,
    /// The length that the vectors are to have; `None` leaves it to the model.
    pub dimensions: Option<u32>,
    /// The caller's own end-user label, passed on where the upstream takes one. Not part of the cache key.
    #[serde(skip)]
    pub user: Option<String>,
}

/// Inputs of one kind.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub enum EmbedInputs {
    /// Texts, none of them empty.
    Texts(Vec<String>),
    /// Texts as token ids of the model asked for, none of them empty.
    Tokens(Vec<Vec<u32>>),
}

impl EmbedInputs {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            EmbedInputs::Texts(texts) => texts.len(),
            EmbedInputs::Tokens(tokens) => tokens.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Characters of the longest input, near enough: it decides which context is long enough.
    pub fn longest_chars(&self) -> usize {
        /// What a token stands for, on average.
        const CHARS_A_TOKEN: usize = 4;
        match self {
            EmbedInputs::Texts(texts) => texts.iter().map(String::len).max(),
            EmbedInputs::Tokens(tokens) => tokens.iter().map(|one| one.len() * CHARS_A_TOKEN).max(),
        }
        .unwrap_or(0)
    }
}

impl EmbedRequest {
    /// A request for the vectors of these texts.
    pub fn texts(texts: Vec<String>) -> Self {
        Self { inputs: EmbedInputs::Texts(texts), dimensions: None, user: None }
    }

    /// What an arm must be able to do to honour every field of this request.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::EMBED;
        needs.set(Needs::DIMENSIONS, self.dimensions.is_some());
        needs.set(Needs::TOKEN_INPUT, matches!(self.inputs, EmbedInputs::Tokens(_)));
        needs
    }
}

/// The vectors of a request's inputs, in their order, in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// The model that made them, as the upstream names it.
    pub model: String,
    /// Tokens used, where the upstream says; nothing is generated, so only those of the inputs.
    pub usage: Option<Usage>,
    values: Vec<f32>,
    dimensions: usize,
}

/// Why a vector does not fit those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVector {
    /// It has no component.
    #[error("a vector is empty")]
    Empty,
    /// It has another length than the first.
    #[error("the vectors differ in length")]
    Uneven,
    /// It holds a component that is no number.
    #[error("a vector holds a component that is not finite")]
    NotFinite,
}

impl Embeddings {
    /// No vectors yet, with room for some of a length that is guessed.
    pub fn with_capacity(model: impl Into<String>, vectors: usize, dimensions: usize) -> Self {
        let values = Vec::with_capacity(vectors.saturating_mul(dimensions));
        Self { model: model.into(), usage: None, values, dimensions: 0 }
    }

    /// Adds the next input's vector.
    ///
    /// # Errors
    /// [`BadVector`]; nothing is added then.
    pub fn push(&mut self, vector: impl IntoIterator<Item = f32>) -> Result<(), BadVector> {
        let begin = self.values.len();
        self.values.extend(vector);
        let added = &self.values[begin..];
        let flaw = if added.is_empty() {
            BadVector::Empty
        } else if begin > 0 && added.len() != self.dimensions {
            BadVector::Uneven
        } else if !added.iter().all(|value| value.is_finite()) {
            BadVector::NotFinite
        } else {
            self.dimensions = added.len();
            return Ok(());
        };
        self.values.truncate(begin);
        Err(flaw)
    }

    /// The vectors, in the order of the inputs.
    pub fn vectors(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions.max(1))
    }

    /// The same, to be changed in place.
    pub fn vectors_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.dimensions.max(1))
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.vectors().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The length of each vector; 0 while there are none.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Memory they take, near enough.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.model.len() + self.values.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_field_becomes_a_need() {
        let mut request = EmbedRequest::texts(vec!["a".into()]);
        assert_eq!(request.needs(), Needs::EMBED);
        request.dimensions = Some(8);
        request.inputs = EmbedInputs::Tokens(vec![vec![1]]);
        assert_eq!(request.needs(), Needs::EMBED | Needs::DIMENSIONS | Needs::TOKEN_INPUT);
    }

    #[test]
    fn vectors_keep_their_order_and_one_that_does_not_fit_is_not_added() {
        let mut found = Embeddings::with_capacity("m", 2, 2);
        assert!(found.is_empty());
        assert_eq!(found.push([]), Err(BadVector::Empty));
        assert_eq!(found.push([1.0, 2.0]), Ok(()));
        assert_eq!(found.push([1.0]), Err(BadVector::Uneven));
        assert_eq!(found.push([1.0, f32::NAN]), Err(BadVector::NotFinite));
        assert_eq!(found.push([3.0, 4.0]), Ok(()));
        assert_eq!(found.vectors().collect::<Vec<_>>(), [[1.0, 2.0], [3.0, 4.0]]);
        assert_eq!((found.len(), found.dimensions()), (2, 2));
    }

    #[test]
    fn the_longest_input_counts() {
        assert_eq!(EmbedRequest::texts(vec!["abc".into(), "a".into()]).inputs.longest_chars(), 3);
        assert_eq!(EmbedInputs::Tokens(vec![vec![1], vec![1, 2]]).longest_chars(), 8);
    }
}
