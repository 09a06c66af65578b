//! What a model file says about text: enough to turn a prompt into tokens, without the weights.

use std::sync::Arc;

use crate::grammar::Grammars;
use crate::template::ChatTemplate;
use crate::tokenizer::{Guard, Tokenizer};
use crate::{InferenceError, Prompt, TemplateError};

/// A model's tokenizer, chat template and grammars. Shared, so that prompts can be read beside a pass.
#[derive(Debug)]
pub(crate) struct Language {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) grammars: Arc<Grammars>,
    pub(super) template: Result<ChatTemplate, TemplateError>,
    /// Most tokens of prompt and answer together.
    pub(super) context_length: usize,
}

impl Language {
    /// The grammars compiled for the model.
    pub(crate) fn grammars(&self) -> &Arc<Grammars> {
        &self.grammars
    }

    /// Number of tokens that there are.
    pub(crate) fn vocab(&self) -> usize {
        self.tokenizer.vocab()
    }

    /// The tokens of a prompt; see [`LoadedModel::encode`](super::LoadedModel::encode).
    pub(crate) fn encode(&self, prompt: &Prompt, nonce: u64) -> Result<Vec<u32>, InferenceError> {
        let tokens = match prompt {
            Prompt::Raw(text) => {
                self.refuse_hopeless(text.len())?;
                self.tokenizer.encode_text(text)?
            }
            Prompt::Chat { messages, tools, add_generation_prompt } => {
                self.refuse_hopeless(messages.iter().map(|message| message.content.len()).sum())?;
                let template = self.template.as_ref().map_err(Clone::clone)?;
                let guard = Guard::new(self.tokenizer.control_texts(), nonce);
                let text =
                    template.render(messages, tools, *add_generation_prompt, &self.tokenizer, &guard)?;
                self.tokenizer.encode_template(&text, &guard)?
            }
        };
        let max = self.context_length;
        match tokens.len() {
            0 => Err(InferenceError::BadParameter { name: "prompt", reason: "is empty".into() }),
            prompt if prompt >= max => Err(InferenceError::ContextLengthExceeded { prompt, max }),
            _ => Ok(tokens),
        }
    }

    /// Refuses text that is too long whatever its tokens are, before time is spent on it.
    fn refuse_hopeless(&self, bytes: usize) -> Result<(), InferenceError> {
        let max = self.context_length;
        if bytes <= self.tokenizer.longest_text(max) {
            return Ok(());
        }
        Err(InferenceError::ContextLengthExceeded { prompt: bytes / self.tokenizer.longest_text(1), max })
    }
}
