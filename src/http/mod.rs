//! The HTTP front.

pub mod openai;
