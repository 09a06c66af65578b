//! Everything that is proven on the real model: its numbers against two independent references, its tokenizer, and the
//! engine as a caller sees it. Without the model file these tests say so and pass; with `OPOSSUM_REQUIRE_MODEL=1` they
//! fail instead.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod agreement;
mod conversation;
mod encoder;
mod float64;
mod speed;
mod support;
mod tokenizer;
