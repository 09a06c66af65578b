//! The OpenAI dialect, as pure translation: bytes in, domain out, and back.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`decode`] | a request body into a [`opossum_core::request::GenerateRequest`], or an error naming the field |
//! | [`encode`] | a whole answer into a JSON body, stream events into server-sent events |
//! | [`schema`] | the same shapes as documented types, for the OpenAPI document |

pub mod decode;
pub mod encode;
pub mod schema;
