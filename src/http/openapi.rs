//! The OpenAPI 3.1 document of the HTTP front, generated from the code.
//!
//! Schemas are derived from documented types, the list of error codes is the one the service answers with, and
//! tests hold requests and answers against the document. It is made once and then served from memory.

mod operations;
pub mod schema;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use utoipa::ToSchema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

use super::openai::schema as dialect;

/// The document as JSON text.
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        // The document is made of strings and lists of them, which cannot fail to serialise.
        build().to_json().unwrap_or_default()
    });
    &TEXT
}

fn build() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Opossum Search")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "An LLM gateway that answers when everything around it fails. Requests and answers are those of the \
             OpenAI API; headers that begin with `x-opossum-` say which backend answered and how.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let tag = |name, description| TagBuilder::new().name(name).description(Some(description)).build();
    OpenApiBuilder::new()
        .info(info)
        .paths(operations::paths())
        .components(Some(components()))
        .tags(Some([
            tag("inference", "Chat and completions, whole or streamed, and embeddings."),
            tag("jobs", "Requests that are queued durably and answered later."),
            tag("batches", "Files of requests, answered as jobs."),
            tag("files", "What batches read and write."),
            tag("models", "What can be asked for."),
            tag("operation", "Health, metrics and this document."),
        ]))
        // Without any key configured, callers on loopback need none.
        .security(Some([
            SecurityRequirement::default(),
            SecurityRequirement::new("key", <[&str; 0]>::default()),
        ]))
        .build()
}

fn components() -> Components {
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key of this service, not of a backend."))
        .build();
    let mut builder = ComponentsBuilder::new().security_scheme("key", SecurityScheme::Http(key));
    builder = with::<dialect::ChatRequest>(builder);
    builder = with::<dialect::ChatCompletion>(builder);
    builder = with::<dialect::ChatChunk>(builder);
    builder = with::<dialect::CompletionRequest>(builder);
    builder = with::<dialect::Completion>(builder);
    builder = with::<dialect::EmbeddingRequest>(builder);
    builder = with::<dialect::EmbeddingList>(builder);
    builder = with::<schema::JobRequest>(builder);
    builder = with::<schema::Job>(builder);
    builder = with::<schema::files::FileRequest>(builder);
    builder = with::<schema::files::FileList>(builder);
    builder = with::<schema::files::FileDeleted>(builder);
    builder = with::<schema::batches::BatchRequest>(builder);
    builder = with::<schema::batches::BatchList>(builder);
    builder = with::<schema::ModelList>(builder);
    builder = with::<schema::HealthReport>(builder);
    builder = with::<schema::Readiness>(builder);
    builder = with::<schema::Liveness>(builder);
    with::<schema::ErrorBody>(builder).build()
}

/// Adds a schema and all that it refers to.
fn with<T: ToSchema>(builder: ComponentsBuilder) -> ComponentsBuilder {
    let mut inner = Vec::new();
    T::schemas(&mut inner);
    builder.schema_from::<T>().schemas_from_iter(inner)
}
