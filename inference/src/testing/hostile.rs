//! What is done with a file or a template that nobody vouches for, in one call: the fuzz targets and the tests over
//! their seeds share it. Anything but a quiet return (an error is one) is a fault of this crate.

use crate::gguf::{Header, dequantize};
use crate::safetensors;
use crate::template::ChatTemplate;
use crate::tokenizer::{Guard, Tokenizer};
use crate::{PromptMessage, PromptTool};

/// Elements up to which a tensor is decoded: the decoders see no difference between few blocks and many.
const MAX_DECODED: usize = 1 << 14;

/// Words, white space, digits, a control token, text outside ASCII and the basic plane.
const TEXT: &str = "It costs 1,234 dollars\n\n <|im_end|> naïve 言葉 🦝  \u{e000}";

/// Reads the bytes as a model file as far as can be done without running the model.
///
/// # Panics
/// When a tensor that was accepted does not lie within the bytes or cannot be decoded.
pub fn gguf(bytes: &[u8]) {
    let Ok(header) = Header::parse(bytes) else { return };
    for (name, tensor) in &header.tensors {
        let stored = bytes.get(tensor.range.clone());
        assert!(stored.is_some(), "tensor {name:?} was accepted outside the file");
        if tensor.elements <= MAX_DECODED {
            let mut numbers = vec![0.0; tensor.elements];
            let decoded = dequantize(tensor.kind, stored.unwrap_or_default(), &mut numbers);
            assert!(decoded.is_ok(), "tensor {name:?} was accepted and cannot be decoded: {decoded:?}");
        }
    }
    if let Ok(tokenizer) = Tokenizer::from_metadata(&header.metadata) {
        let ids = tokenizer.encode_text(TEXT).unwrap_or_default();
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab()), "a token outside the vocabulary");
        if let Some(source) = header.metadata.string("tokenizer.chat_template") {
            render(source, &tokenizer);
        }
    }
}

/// Reads the bytes as a safetensors file as far as can be done without running a model.
///
/// # Panics
/// When a tensor that was accepted does not lie within the bytes, or is of another size than it says.
pub fn safetensors(bytes: &[u8]) {
    let Ok(tensors) = safetensors::tensors_of(bytes) else { return };
    for (name, tensor) in &tensors {
        let within = tensor.range.start >= 8 && tensor.range.end <= bytes.len() as u64;
        assert!(within, "tensor {name:?} was accepted outside the file");
        let elements: usize = tensor.shape.iter().product();
        let size = tensor.range.end - tensor.range.start;
        assert!(
            elements as u64 * tensor.dtype.bytes() as u64 == size,
            "tensor {name:?} has not the size it says"
        );
    }
}

/// Runs the source as a chat template.
///
/// # Panics
/// When the tokenizer of this crate's own tiny model cannot be built.
pub fn template(source: &str) {
    let header = super::TinyLlama::default().to_bytes().map(|bytes| Header::parse(&bytes));
    let tokenizer = match header {
        Ok(Ok(header)) => Tokenizer::from_metadata(&header.metadata).ok(),
        _ => None,
    };
    assert!(tokenizer.is_some(), "the tiny model has no tokenizer");
    if let Some(tokenizer) = tokenizer {
        render(source, &tokenizer);
    }
}

fn render(source: &str, tokenizer: &Tokenizer) {
    let Ok(template) = ChatTemplate::new(source) else { return };
    let guard = Guard::new(tokenizer.control_texts(), 7);
    let messages = ["system", "user", "assistant", "user"].map(|role| PromptMessage::new(role, TEXT));
    let tools = [PromptTool { name: TEXT.into(), description: Some(TEXT.into()), parameters: None }];
    // A refusal is as good as a prompt here.
    if let Ok(rendered) = template.render(&messages, &tools, true, tokenizer, &guard) {
        let _ = tokenizer.encode_template(&rendered, &guard);
    }
}
