//! The HTTP front: from bytes to the path and back.
//!
//! A route reads its body within bounds, decodes its dialect, asks the path and encodes the answer. It
//! holds no policy. Whatever happens, the caller gets an answer in the error contract, and an exchange is
//! counted exactly once.

pub mod body;
pub mod context;
pub mod error;
pub mod exchange;
pub mod openai;
pub mod openapi;
pub mod request_id;
pub mod routes;
pub mod server;
pub mod stream;
