//! What every dialect does with vectors: puts them in order and holds them against the request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedRequest, Embeddings};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::{BackendError, EmbedCall};

/// A vector as an upstream writes it: an array of numbers, or base64 of little-endian `f32`.
#[derive(Debug)]
pub(crate) struct Vector(pub(crate) Vec<f32>);

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VectorVisitor)
    }
}

struct VectorVisitor;

impl<'de> Visitor<'de> for VectorVisitor {
    type Value = Vector;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of numbers or base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vector, E> {
        let bytes = STANDARD.decode(text).map_err(|_| E::custom("no base64"))?;
        let (components, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(E::custom("no whole number of components"));
        }
        Ok(Vector(components.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vector, A::Error> {
        let mut vector = Vec::with_capacity(seq.size_hint().unwrap_or(384));
        while let Some(component) = seq.next_element()? {
            vector.push(component);
        }
        Ok(Vector(vector))
    }
}

/// The answer of a call out of its vectors, in the order of the inputs.
///
/// # Errors
/// `BadResponse` for vectors that are not those of the inputs; `CallerError` about `dimensions` where the
/// upstream took no notice of that field.
pub(crate) fn gather(
    call: &EmbedCall,
    model: Option<String>,
    vectors: impl ExactSizeIterator<Item = Vec<f32>>,
) -> Result<Embeddings, BackendError> {
    let model = model.filter(|model| !model.is_empty()).unwrap_or_else(|| call.model.to_string());
    let guess = call.request.dimensions.map_or(768, |dimensions| dimensions as usize);
    let mut found = Embeddings::with_capacity(model, vectors.len(), guess);
    for vector in vectors {
        found.push(vector).map_err(|flaw| bad(&flaw.to_string()))?;
    }
    check(&call.request, &found)?;
    Ok(found)
}

fn check(request: &EmbedRequest, found: &Embeddings) -> Result<(), BackendError> {
    if found.len() != request.inputs.len() {
        return Err(bad("there is not one vector for each input"));
    }
    match request.dimensions {
        Some(asked) if found.dimensions() != asked as usize => {
            let detail = format!("{} dimensions were asked for, {} came", asked, found.dimensions());
            Err(BackendError::new(FailureClass::CallerError, detail).about("dimensions"))
        }
        _ => Ok(()),
    }
}

fn bad(detail: &str) -> BackendError {
    BackendError::new(FailureClass::BadResponse, detail)
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use opossum_core::embed::EmbedInputs;

    use super::*;

    pub(crate) fn call(inputs: EmbedInputs, dimensions: Option<u32>) -> EmbedCall {
        EmbedCall {
            request: Arc::new(EmbedRequest { inputs, dimensions, user: None }),
            model: "m".into(),
            defaults: Arc::default(),
            request_id: "r".into(),
            traceparent: None,
        }
    }

    fn two(dimensions: Option<u32>) -> EmbedCall {
        call(EmbedInputs::Texts(vec!["a".into(), "b".into()]), dimensions)
    }

    #[test]
    fn vectors_are_read_as_numbers_and_as_base64() {
        let read = |json: &str| serde_json::from_str::<Vector>(json).map(|vector| vector.0);
        assert_eq!(read("[1, -0.5, 2e0]").unwrap(), [1.0, -0.5, 2.0]);
        assert_eq!(read(r#""AACAPwAAAL8=""#).unwrap(), [1.0, -0.5]);
        for odd in [r#""AACAPwA=""#, r#""not base64!""#, "[true]", "{}", "null", "7"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn vectors_that_are_not_those_of_the_inputs_are_refused() {
        let class = |dimensions, vectors: Vec<Vec<f32>>| {
            gather(&two(dimensions), None, vectors.into_iter()).map_err(|error| (error.class, error.param))
        };
        assert_eq!(class(Some(1), vec![vec![1.0], vec![2.0]]).unwrap().model, "m");
        let bad = Err((FailureClass::BadResponse, None));
        assert_eq!(class(None, vec![vec![1.0]]), bad);
        assert_eq!(class(None, vec![vec![1.0], vec![1.0, 2.0]]), bad);
        assert_eq!(class(None, vec![vec![1.0], vec![f32::INFINITY]]), bad);
        let ignored = class(Some(3), vec![vec![1.0], vec![2.0]]);
        assert_eq!(ignored, Err((FailureClass::CallerError, Some("dimensions"))));
    }
}
