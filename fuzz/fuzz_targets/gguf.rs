//! Any bytes as a model file: header, metadata, tensor table, tokenizer, chat template, small tensors.
#![no_main]

use std::thread;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The tokenizer library keeps, in each thread, a cache for every tokenizer that ever worked there. The service has few;
    // here there is one an input, so their thread ends with them.
    thread::scope(|scope| scope.spawn(|| opossum_inference::testing::hostile::gguf(bytes)).join()).unwrap();
});
