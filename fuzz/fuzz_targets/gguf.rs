//! Any bytes as a model file: header, metadata, tensor table, tokenizer, chat template, small tensors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| opossum_inference::testing::hostile::gguf(bytes));
