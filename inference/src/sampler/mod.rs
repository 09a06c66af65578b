//! From logits to the next token, and from tokens to the text a caller may see.

mod choice;
mod params;
mod random;
mod scan;
mod stop;
mod text_stream;

pub use choice::{Choice, Sampler};
pub use params::{
    GenerationParams, MAX_STOP_BYTES, MAX_STOP_STRINGS, MAX_TOP_LOGPROBS, TokenLogprob, TopLogprob,
};
pub use random::split_mix_64;
pub use stop::StopMatcher;
pub use text_stream::{Piece, TextStream};
