//! The body of an embedding request.

use std::borrow::Cow;

use opossum_core::embed::{EmbedInputs, EmbedRequest};
use serde::de::SeqAccess;

use super::fault::{Checked, Fault};
use super::params::integer;
use super::wire::{Field, Value, Walk, WireObject, wire_object};
use super::{label, model, read};
use crate::http::error::ApiError;

/// Most inputs in one request.
const MAX_INPUTS: usize = 2048;
/// Most token ids in one input; no model has a longer context.
const MAX_TOKENS: usize = 131_072;
/// The longest vector that may be asked for.
const MAX_DIMENSIONS: i128 = 65_536;

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VectorFormat {
    /// As numbers.
    #[default]
    Float,
    /// As base64 of little-endian `f32`.
    Base64,
}

/// An embedding request after translation.
#[derive(Debug)]
pub struct DecodedEmbedding {
    /// What is asked.
    pub request: EmbedRequest,
    /// The model as the caller named it: `auto`, an alias or `service/model`.
    pub model: String,
    /// How the caller wants the vectors.
    pub format: VectorFormat,
}

/// Translates the body of `POST /v1/embeddings`.
///
/// # Errors
/// As [`decode_chat`](super::decode_chat).
pub fn decode_embedding(bytes: &[u8]) -> Result<DecodedEmbedding, ApiError> {
    let body: EmbeddingBody<'_> = read(bytes)?;
    body.build().map_err(ApiError::from)
}

wire_object! {
    /// The body of an embedding request.
    EmbeddingBody {
        model: "model" => Field<String>,
        input: "input" => Field<Input>,
        encoding_format: "encoding_format" => Field<Cow<'de, str>>,
        dimensions: "dimensions" => Field<i128>,
        user: "user" => Field<String>,
    }
}

impl EmbeddingBody<'_> {
    fn build(mut self) -> Checked<DecodedEmbedding> {
        self.sound()?;
        let model = model(self.model)?;
        let inputs = self.input.need("input")?.0;
        let format = match self.encoding_format.get("encoding_format")?.as_deref() {
            None | Some("float") => VectorFormat::Float,
            Some("base64") => VectorFormat::Base64,
            Some(_) => {
                return Err(Fault::invalid("expected 'float' or 'base64'.").under("encoding_format"));
            }
        };
        let dimensions = integer(self.dimensions, "dimensions", 1..=MAX_DIMENSIONS)?;
        let request = EmbedRequest { inputs, dimensions, user: label(self.user, "user")? };
        Ok(DecodedEmbedding { request, model, format })
    }
}

/// The inputs: a string, strings, token ids, or arrays of token ids.
struct Input(EmbedInputs);

impl<'de> Value<'de> for Input {
    const EXPECTED: &'static str = "a string, an array of strings, or token ids";

    fn text(text: Cow<'de, str>) -> Checked<Self> {
        Ok(Self(EmbedInputs::Texts(vec![not_empty(text)?])))
    }

    fn list<A: SeqAccess<'de>>(mut seq: A) -> Result<Checked<Self>, A::Error> {
        let mut items = Gathered::Nothing;
        let mut count = 0;
        let fault = loop {
            if count == items.limit() {
                match seq.next_element_seed(Walk::WHOLE)? {
                    None => return Ok(items.build()),
                    Some(()) => break Fault::invalid(format!("there may be at most {count} entries.")),
                }
            }
            let added = match seq.next_element::<Field<Item>>()? {
                None => return Ok(items.build()),
                Some(Field::Given(item)) => items.add(item),
                Some(Field::Bad(fault)) => Err(fault),
                Some(Field::Null | Field::Absent) => Err(Fault::mistyped(Self::EXPECTED)),
            };
            if let Err(fault) = added {
                break fault.at(count);
            }
            count += 1;
        };
        drop(items);
        while seq.next_element_seed(Walk::WHOLE)?.is_some() {}
        Ok(Err(fault))
    }
}

/// What an array held so far; its first entry says of what kind the others must be.
enum Gathered {
    Nothing,
    Texts(Vec<String>),
    /// The ids of a single input.
    Ids(Vec<u32>),
    Tokens(Vec<Vec<u32>>),
}

impl Gathered {
    fn limit(&self) -> usize {
        if matches!(self, Self::Ids(_)) { MAX_TOKENS } else { MAX_INPUTS }
    }

    fn add(&mut self, item: Item) -> Checked<()> {
        match (&mut *self, item) {
            (Self::Nothing, Item::Text(text)) => *self = Self::Texts(vec![text]),
            (Self::Nothing, Item::Id(id)) => *self = Self::Ids(vec![id]),
            (Self::Nothing, Item::Tokens(tokens)) => *self = Self::Tokens(vec![tokens]),
            (Self::Texts(texts), Item::Text(text)) => texts.push(text),
            (Self::Ids(ids), Item::Id(id)) => ids.push(id),
            (Self::Tokens(all), Item::Tokens(tokens)) => all.push(tokens),
            (Self::Texts(_), _) => return Err(Fault::mistyped("a string, as the first is")),
            (Self::Ids(_), _) => return Err(Fault::mistyped("a token id, as the first is")),
            (Self::Tokens(_), _) => return Err(Fault::mistyped("an array of token ids, as the first is")),
        }
        Ok(())
    }

    fn build(self) -> Checked<Input> {
        Ok(Input(match self {
            Self::Nothing => return Err(Fault::invalid("there must be at least one input.")),
            Self::Texts(texts) => EmbedInputs::Texts(texts),
            Self::Ids(ids) => EmbedInputs::Tokens(vec![ids]),
            Self::Tokens(all) => EmbedInputs::Tokens(all),
        }))
    }
}

/// One entry of the array.
enum Item {
    Text(String),
    Id(u32),
    Tokens(Vec<u32>),
}

impl<'de> Value<'de> for Item {
    const EXPECTED: &'static str = "a string, a token id or an array of token ids";

    fn text(text: Cow<'de, str>) -> Checked<Self> {
        not_empty(text).map(Item::Text)
    }

    fn integer(value: i128) -> Checked<Self> {
        TokenId::integer(value).map(|id| Item::Id(id.0))
    }

    fn list<A: SeqAccess<'de>>(seq: A) -> Result<Checked<Self>, A::Error> {
        let ids = <super::wire::Items<TokenId, MAX_TOKENS>>::list(seq)?;
        Ok(ids.and_then(|ids| match ids.0 {
            ids if ids.is_empty() => Err(Fault::invalid("it must not be empty.")),
            ids => Ok(Item::Tokens(ids.into_iter().map(|id| id.0).collect())),
        }))
    }
}

struct TokenId(u32);

impl Value<'_> for TokenId {
    const EXPECTED: &'static str = "a token id, an integer from 0";

    fn integer(value: i128) -> Checked<Self> {
        u32::try_from(value).map(Self).map_err(|_| Fault::mistyped(Self::EXPECTED))
    }
}

fn not_empty(text: Cow<'_, str>) -> Checked<String> {
    if text.is_empty() {
        return Err(Fault::invalid("it must not be empty."));
    }
    Ok(text.into_owned())
}
