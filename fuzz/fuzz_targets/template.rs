//! Any text as a chat template: parsed, and run over a conversation.
#![no_main]

libfuzzer_sys::fuzz_target!(|source: &str| opossum_inference::testing::hostile::template(source));
