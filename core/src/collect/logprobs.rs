//! Log probabilities of a stream's pieces into those of the whole.
//!
//! Both OpenAI shapes are objects of arrays (`content` and `refusal` in chats; `tokens`, `token_logprobs`,
//! `top_logprobs` and `text_offset` in completions), one entry a token, so the whole is each array after the
//! next. Entries stay as the upstream wrote them.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The log probabilities of all pieces, in order; `None` when there are none or when a piece has another shape.
pub(super) fn joined(mut pieces: Vec<Box<RawValue>>) -> Option<Box<RawValue>> {
    if pieces.len() < 2 {
        return pieces.pop();
    }
    let mut whole = Arrays::default();
    for piece in &pieces {
        let piece: Option<Arrays<'_>> = serde_json::from_str(piece.get()).ok()?;
        whole.append(piece.unwrap_or_default());
    }
    serde_json::value::to_raw_value(&whole).ok()
}

/// An object of arrays, in the order of its keys.
#[derive(Default)]
struct Arrays<'a>(Vec<(String, Option<Vec<&'a RawValue>>)>);

impl<'a> Arrays<'a> {
    fn append(&mut self, next: Arrays<'a>) {
        for (key, values) in next.0 {
            match self.0.iter_mut().find(|(known, _)| *known == key) {
                Some((_, Some(all))) => all.extend(values.unwrap_or_default()),
                Some((_, none)) => *none = values,
                None => self.0.push((key, values)),
            }
        }
    }
}

impl<'de> Deserialize<'de> for Arrays<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ArraysVisitor)
    }
}

struct ArraysVisitor;

impl<'de> Visitor<'de> for ArraysVisitor {
    type Value = Arrays<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of arrays")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Arrays<'de>, A::Error> {
        let mut arrays = Vec::new();
        while let Some(entry) = map.next_entry()? {
            arrays.push(entry);
        }
        Ok(Arrays(arrays))
    }
}

impl Serialize for Arrays<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, values)| (key, values)))
    }
}
