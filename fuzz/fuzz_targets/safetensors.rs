//! Any bytes as a safetensors file: its length, its table, where the tensors lie.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| opossum_inference::testing::hostile::safetensors(bytes));
