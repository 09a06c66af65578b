//! What a request needs and a backend can do.
//!
//! A field that no candidate can honour is an error that names it, never dropped in silence. So each
//! optional field of a request that an upstream may lack is one flag here, with the field's name.

use bitflags::bitflags;

bitflags! {
    /// A set of abilities: what a request needs, or what an arm has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Needs: u32 {
        /// Chat messages.
        const CHAT = 1;
        /// A raw prompt to be continued, without a chat template.
        const COMPLETION = 1 << 1;
        /// Images given as inline data.
        const IMAGES = 1 << 2;
        /// Images given by URL and fetched by the upstream.
        const IMAGE_URLS = 1 << 3;
        /// Tool definitions and tool calls.
        const TOOLS = 1 << 4;
        /// `response_format` of type `json_object`.
        const JSON_OBJECT = 1 << 5;
        /// `response_format` of type `json_schema`.
        const JSON_SCHEMA = 1 << 6;
        /// Log probabilities of tokens.
        const LOGPROBS = 1 << 7;
        /// More than one choice.
        const MANY_CHOICES = 1 << 8;
        /// A sampling seed.
        const SEED = 1 << 9;
        /// `top_k` sampling.
        const TOP_K = 1 << 10;
        /// Presence or frequency penalty.
        const PENALTIES = 1 << 11;
        /// `logit_bias`.
        const LOGIT_BIAS = 1 << 12;
        /// `reasoning_effort`.
        const REASONING = 1 << 13;
        /// Stop strings.
        const STOP = 1 << 14;
        /// A forced tool: `tool_choice` `required` or a named function.
        const TOOL_CHOICE = 1 << 15;
        /// `parallel_tool_calls` set to false.
        const SERIAL_TOOLS = 1 << 16;
        /// `suffix` of a completion.
        const SUFFIX = 1 << 17;
        /// `echo` of a completion's prompt.
        const ECHO = 1 << 18;
        /// Vectors of texts.
        const EMBED = 1 << 19;
        /// `dimensions` of an embedding.
        const DIMENSIONS = 1 << 20;
        /// Inputs given as token ids.
        const TOKEN_INPUT = 1 << 21;
    }
}

impl Needs {
    /// What only a request for embeddings needs.
    pub const EMBEDDING: Needs = Needs::EMBED.union(Needs::DIMENSIONS).union(Needs::TOKEN_INPUT);

    /// The first need in `self` that `has` lacks, as the name of the request field that asks for it.
    ///
    /// ```
    /// use opossum_core::needs::Needs;
    /// let asked = Needs::CHAT | Needs::TOOLS;
    /// assert_eq!(asked.first_missing(Needs::CHAT), Some("tools"));
    /// assert_eq!(asked.first_missing(Needs::all()), None);
    /// ```
    pub fn first_missing(self, has: Needs) -> Option<&'static str> {
        let missing = self.difference(has).iter().next()?;
        Some(missing.param())
    }

    /// The names of the abilities in the set, in lower case, such as `chat`.
    pub fn names(self) -> Vec<String> {
        self.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    /// The request field behind a single flag.
    fn param(self) -> &'static str {
        match self {
            Needs::COMPLETION => "prompt",
            Needs::IMAGES | Needs::IMAGE_URLS => "messages.content.image_url",
            Needs::TOOLS => "tools",
            Needs::JSON_OBJECT | Needs::JSON_SCHEMA => "response_format",
            Needs::LOGPROBS => "logprobs",
            Needs::MANY_CHOICES => "n",
            Needs::SEED => "seed",
            Needs::TOP_K => "top_k",
            Needs::PENALTIES => "presence_penalty",
            Needs::LOGIT_BIAS => "logit_bias",
            Needs::REASONING => "reasoning_effort",
            Needs::STOP => "stop",
            Needs::TOOL_CHOICE => "tool_choice",
            Needs::SERIAL_TOOLS => "parallel_tool_calls",
            Needs::SUFFIX => "suffix",
            Needs::ECHO => "echo",
            Needs::EMBED => "model",
            Needs::DIMENSIONS => "dimensions",
            Needs::TOKEN_INPUT => "input",
            _ => "messages",
        }
    }
}
