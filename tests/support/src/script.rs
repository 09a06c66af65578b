//! What an upstream does with one request, step by step.
//!
//! A script is written once and played in the dialect of the upstream and in the mode of the request: the
//! same `Script::text("hello")` is a whole OpenAI answer, a Gemini event stream or Ollama's JSON lines.

use std::time::Duration;

use serde_json::Value;

/// One step. Steps that send body bytes send the head of a good answer first, where none was sent yet.
#[derive(Clone, Debug)]
pub enum Step {
    /// A complete answer with a length; the dialect's own error body where `body` is `None`.
    Status {
        /// The status code.
        code: u16,
        /// Further headers; a `content-type` here replaces the dialect's.
        headers: Vec<(String, String)>,
        /// The body, byte for byte.
        body: Option<Vec<u8>>,
    },
    /// Waits.
    Delay(Duration),
    /// The head of a good answer, in chunked transfer coding.
    Head,
    /// Bytes onto the socket as they are, past all framing.
    Raw(Vec<u8>),
    /// Bytes of the body.
    Body(Vec<u8>),
    /// From here on at most so many bytes of the body in one transfer chunk and one segment.
    SplitEvery(usize),
    /// Pieces of text, each an event of its own, `gap` apart.
    Chunks {
        /// The pieces.
        texts: Vec<String>,
        /// The time between two.
        gap: Duration,
    },
    /// One event of the stream with this JSON.
    Event(Value),
    /// The event that names the role and carries no content.
    RoleOnly,
    /// Keep-alive comments, so far apart, until the caller leaves or `count` is reached.
    Comments {
        /// The time between two.
        every: Duration,
        /// How many; without end when `None`.
        count: Option<usize>,
    },
    /// An error inside the stream.
    ErrorEvent {
        /// The code in the dialect's error object; a number where the dialect has numbers.
        code: String,
        /// The message.
        message: String,
    },
    /// The event with the finish reason, then usage and the end mark of the dialect.
    Finish {
        /// The finish reason, in OpenAI's words (`stop`, `length`, `content_filter`).
        reason: String,
        /// Whether the dialect's end mark follows (`[DONE]`; without meaning for Gemini and Ollama).
        end_mark: bool,
    },
    /// A good answer: whole or streamed word by word, as the request asks.
    Answer(String),
    /// As [`Step::Answer`], with the last message of the request as the text.
    Echo,
    /// Stays open and silent until the caller leaves.
    Stall,
    /// Ends the body cleanly, whatever is missing from its content.
    End,
    /// Closes the connection (FIN), whatever is missing.
    Close,
    /// Resets the connection (RST).
    Reset,
}

/// The steps for one request.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// No step yet: accepts the request and closes without a byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// A good answer of this text.
    pub fn text(text: &str) -> Self {
        Self::new().then(Step::Answer(text.to_owned()))
    }

    /// A good answer that repeats the last message, so that an answer to another's question is noticed.
    pub fn echo() -> Self {
        Self::new().then(Step::Echo)
    }

    /// A good answer whose body is this JSON.
    pub fn json(body: &Value) -> Self {
        Self::body(200, "application/json", body.to_string())
    }

    /// A complete answer of a status, a content type and a body.
    pub fn body(code: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self::new().then(Step::Status { code, headers, body: Some(body.into()) })
    }

    /// An error of a status with the dialect's own body.
    pub fn status(code: u16) -> Self {
        Self::new().then(Step::Status { code, headers: Vec::new(), body: None })
    }

    /// An error of a status with headers and the dialect's own body.
    pub fn status_with(code: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self::new().then(Step::Status { code, headers, body: None })
    }

    /// 200 with a page.
    pub fn html() -> Self {
        Self::body(200, "text/html", "<!doctype html><title>Welcome</title><p>It works!")
    }

    /// 200 with nothing in it.
    pub fn empty() -> Self {
        Self::body(200, "application/json", "")
    }

    /// 200 with a body that is nearly JSON.
    pub fn invalid_json() -> Self {
        Self::body(200, "application/json", "{\"choices\":[{\"message\":{\"content\":\"hel")
    }

    /// A good head, then one line of so many bytes.
    pub fn huge_line(bytes: usize) -> Self {
        let mut line = b"data: {\"x\":\"".to_vec();
        line.resize(line.len() + bytes, b'a');
        line.extend_from_slice(b"\"}\n\n");
        Self::new().then(Step::Head).then(Step::Body(line)).then(Step::Stall)
    }

    /// Never answers.
    pub fn hang() -> Self {
        Self::new().then(Step::Stall)
    }

    /// Resets the connection before the first byte.
    pub fn reset() -> Self {
        Self::new().then(Step::Reset)
    }

    /// Streams `k` pieces of text, then stays silent.
    pub fn stall_after(k: usize) -> Self {
        Self::new().then(Step::Head).then(Step::RoleOnly).pieces(k).then(Step::Stall)
    }

    /// Streams `k` pieces of text, then closes the connection in the middle of the transfer.
    pub fn cut_after(k: usize) -> Self {
        Self::new().then(Step::Head).then(Step::RoleOnly).pieces(k).then(Step::Close)
    }

    /// Streams `k` pieces of text, then ends the transfer cleanly with neither finish reason nor end mark.
    pub fn eof_without_finish(k: usize) -> Self {
        Self::new().then(Step::Head).then(Step::RoleOnly).pieces(k).then(Step::End)
    }

    /// Streams pieces `word0 `, `word1 `, … so far apart, then finishes well.
    pub fn slow(pieces: usize, gap: Duration) -> Self {
        let texts = (0..pieces).map(|i| format!("word{i} ")).collect();
        Self::new().then(Step::Head).then(Step::RoleOnly).then(Step::Chunks { texts, gap }).finish("stop")
    }

    /// Waits before what follows.
    #[must_use]
    pub fn delay(self, wait: Duration) -> Self {
        self.then(Step::Delay(wait))
    }

    /// Adds a good answer of this text.
    #[must_use]
    pub fn answer(self, text: &str) -> Self {
        self.then(Step::Answer(text.to_owned()))
    }

    /// Adds pieces of text, without a gap.
    #[must_use]
    pub fn chunks(self, texts: &[&str]) -> Self {
        let texts = texts.iter().map(|t| (*t).to_owned()).collect();
        self.then(Step::Chunks { texts, gap: Duration::ZERO })
    }

    /// Adds a finish with the end mark.
    #[must_use]
    pub fn finish(self, reason: &str) -> Self {
        self.then(Step::Finish { reason: reason.to_owned(), end_mark: true })
    }

    fn pieces(self, k: usize) -> Self {
        let texts = (0..k).map(|i| format!("word{i} ")).collect();
        self.then(Step::Chunks { texts, gap: Duration::from_millis(5) })
    }
}
