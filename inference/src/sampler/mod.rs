//! From logits to the next token, and from tokens to the text a caller may see.

mod params;

pub use params::{
    GenerationParams, MAX_STOP_BYTES, MAX_STOP_STRINGS, MAX_TOP_LOGPROBS, TokenLogprob, TopLogprob,
};
