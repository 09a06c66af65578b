//! Fields that are a string or an array; their bounds are beyond what can be derived.

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::request::ContentPart;

/// The content of a turn: text, or parts in order.
#[derive(Debug)]
pub struct MessageContent;

impl PartialSchema for MessageContent {
    fn schema() -> RefOr<Schema> {
        let parts = ArrayBuilder::new().items(Ref::from_schema_name("ContentPart")).min_items(Some(1));
        either(text(), parts, "Plain text, or text and images in order.")
    }
}

impl ToSchema for MessageContent {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((ContentPart::name().into(), ContentPart::schema()));
        ContentPart::schemas(schemas);
    }
}

/// One stop string, or several.
#[derive(Debug)]
pub struct Stop;

impl PartialSchema for Stop {
    fn schema() -> RefOr<Schema> {
        // The bound is one of bytes; a schema can only count characters, of which there are never more.
        let stop = || text().min_length(Some(1)).max_length(Some(256));
        let several = ArrayBuilder::new().items(stop()).max_items(Some(16));
        either(stop(), several, "A string that ends the answer, of at most 256 bytes, or several.")
    }
}

impl ToSchema for Stop {}

/// The prompt of a completion: a string, or an array of exactly one.
#[derive(Debug)]
pub struct CompletionPrompt;

impl PartialSchema for CompletionPrompt {
    fn schema() -> RefOr<Schema> {
        let listed = ArrayBuilder::new().items(text()).min_items(Some(1)).max_items(Some(1));
        either(text(), listed, "A string, or an array of exactly one.")
    }
}

impl ToSchema for CompletionPrompt {}

/// What is to be embedded: a string, strings, the token ids of one input, or of several.
#[derive(Debug)]
pub struct EmbeddingInput;

impl PartialSchema for EmbeddingInput {
    fn schema() -> RefOr<Schema> {
        let several = |items: RefOr<Schema>| ArrayBuilder::new().items(items).min_items(Some(1));
        let id = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX));
        let ids = || several(id().into()).max_items(Some(131_072));
        let filled = || text().min_length(Some(1));
        OneOfBuilder::new()
            .item(filled())
            .item(several(filled().into()).max_items(Some(2048)))
            .item(ids())
            .item(several(ids().into()).max_items(Some(2048)))
            .description(Some("A text, several texts, the token ids of one text, or of several."))
            .into()
    }
}

impl ToSchema for EmbeddingInput {}

/// A vector, as numbers or as base64.
#[derive(Debug)]
pub struct EmbeddingVector;

impl PartialSchema for EmbeddingVector {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Number);
        let numbers = ArrayBuilder::new().items(number).min_items(Some(1));
        either(text(), numbers, "Numbers, or base64 of little-endian 32-bit floats.")
    }
}

impl ToSchema for EmbeddingVector {}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn either(one: ObjectBuilder, several: ArrayBuilder, description: &str) -> RefOr<Schema> {
    OneOfBuilder::new().item(one).item(several).description(Some(description)).into()
}
