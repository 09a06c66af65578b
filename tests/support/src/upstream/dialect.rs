//! What the three vendors' protocols look like on the wire.

use serde_json::{Value, json};

use super::vectors;

/// Whose protocol an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI and everything compatible with it: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`,
    /// `/v1/models`.
    OpenAi,
    /// Google's native protocol: `/v1beta/models/{m}:generateContent`, `:streamGenerateContent`,
    /// `:embedContent`, `:batchEmbedContents`.
    Gemini,
    /// Ollama's native protocol: `/api/chat`, `/api/generate`, `/api/embed`, `/api/tags`, `/api/version`.
    Ollama,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Chat,
    Completion,
    Embedding,
    /// A list of models, a version: what health probes and discovery ask for.
    Probe,
    Unknown,
}

/// One request as its dialect understands it, with all that an answer has to repeat.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) dialect: Dialect,
    pub(crate) operation: Operation,
    pub(crate) stream: bool,
    pub(crate) model: String,
    /// The text of the last message.
    pub(crate) prompt: String,
    /// The vectors of an embedding request's inputs.
    pub(crate) vectors: Vec<Vec<f64>>,
    pub(crate) usage_asked: bool,
    pub(crate) number: usize,
}

impl Exchange {
    pub(crate) fn new(dialect: Dialect, method: &str, path: &str, body: &Value, number: usize) -> Self {
        let route = path.split('?').next().unwrap_or_default();
        let (operation, model, stream) = match dialect {
            Dialect::OpenAi => openai_route(method, route, body),
            Dialect::Gemini => gemini_route(method, route),
            Dialect::Ollama => ollama_route(method, route, body),
        };
        let usage_asked = dialect != Dialect::OpenAi || body["stream_options"]["include_usage"] == true;
        let prompt = last_message(body).to_owned();
        let vectors = match operation {
            Operation::Embedding => vectors::of_request(dialect, body),
            _ => Vec::new(),
        };
        Self { dialect, operation, stream, model, prompt, vectors, usage_asked, number }
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match (self.stream, self.dialect) {
            (false, _) => "application/json",
            (true, Dialect::Ollama) => "application/x-ndjson",
            (true, _) => "text/event-stream",
        }
    }

    /// One event of the stream, framed.
    pub(crate) fn event(&self, json: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::OpenAi => format!("data: {json}\n\n").into_bytes(),
            Dialect::Gemini => format!("data: {json}\r\n\r\n").into_bytes(),
            Dialect::Ollama => format!("{json}\n").into_bytes(),
        }
    }

    /// A keep-alive; Ollama's protocol has none, so there it is an empty line.
    pub(crate) fn comment(&self) -> Vec<u8> {
        match self.dialect {
            Dialect::Ollama => b"\n".to_vec(),
            Dialect::OpenAi | Dialect::Gemini => b": keep-alive\n\n".to_vec(),
        }
    }

    pub(crate) fn role_event(&self) -> Vec<u8> {
        let json = match self.dialect {
            Dialect::OpenAi if self.operation == Operation::Completion => self.openai_piece("", "null"),
            Dialect::OpenAi => self.openai_chunk(r#"{"role":"assistant","content":""}"#, "null"),
            Dialect::Gemini => self.gemini(r#"{"role":"model","parts":[{"text":""}]}"#, None, None),
            Dialect::Ollama => self.ollama_piece(""),
        };
        self.event(&json)
    }

    pub(crate) fn text_event(&self, text: &str) -> Vec<u8> {
        let quoted = quote(text);
        let json = match self.dialect {
            Dialect::OpenAi if self.operation == Operation::Completion => self.openai_piece(text, "null"),
            Dialect::OpenAi => self.openai_chunk(&format!(r#"{{"content":{quoted}}}"#), "null"),
            Dialect::Gemini => {
                self.gemini(&format!(r#"{{"role":"model","parts":[{{"text":{quoted}}}]}}"#), None, None)
            }
            Dialect::Ollama => self.ollama_piece(text),
        };
        self.event(&json)
    }

    /// The last events: reason, usage, end mark.
    pub(crate) fn finish_events(&self, reason: &str, end_mark: bool, tokens: usize) -> Vec<u8> {
        match self.dialect {
            Dialect::OpenAi => {
                let quoted = quote(reason);
                let last = if self.operation == Operation::Completion {
                    self.openai_piece("", &quoted)
                } else {
                    self.openai_chunk("{}", &quoted)
                };
                let mut out = self.event(&last);
                if self.usage_asked {
                    let object = self.openai_object();
                    let usage = openai_usage(tokens);
                    out.extend(self.event(&format!(
                        r#"{{"id":"{id}","object":"{object}","created":1700000000,"model":{model},"choices":[],"usage":{usage}}}"#,
                        id = self.id(),
                        model = quote(&self.model),
                    )));
                }
                if end_mark {
                    out.extend_from_slice(b"data: [DONE]\n\n");
                }
                out
            }
            Dialect::Gemini => self.event(&self.gemini(
                r#"{"role":"model","parts":[{"text":""}]}"#,
                Some(gemini_reason(reason)),
                Some(tokens),
            )),
            Dialect::Ollama => self.event(&self.ollama_done(reason, tokens)),
        }
    }

    /// A whole answer in two halves, around the escaped text.
    pub(crate) fn whole(&self, reason: &str, tokens: usize) -> (String, String) {
        let mark = "\u{1}";
        let text = match self.dialect {
            Dialect::OpenAi => self.openai_whole(mark, reason, tokens),
            Dialect::Gemini => self.gemini(
                &format!(r#"{{"role":"model","parts":[{{"text":"{mark}"}}]}}"#),
                Some(gemini_reason(reason)),
                Some(tokens),
            ),
            Dialect::Ollama => self.ollama_whole(mark, reason, tokens),
        };
        let (before, after) = text.split_once(mark).unwrap_or((&text, ""));
        (before.to_owned(), after.to_owned())
    }

    /// An error inside the stream.
    pub(crate) fn error_event(&self, code: &str, message: &str) -> Vec<u8> {
        let number: Option<u16> = code.parse().ok();
        let body = match self.dialect {
            Dialect::OpenAi => {
                json!({"error": {"message": message, "type": "server_error", "param": null, "code": code}})
            }
            Dialect::Gemini => {
                json!({"error": {"code": number.unwrap_or(500), "message": message, "status": code}})
            }
            Dialect::Ollama => json!({ "error": message }),
        };
        self.event(&body.to_string())
    }

    /// The vendor's own body for an error status.
    pub(crate) fn error_body(&self, status: u16) -> Vec<u8> {
        let body = match self.dialect {
            Dialect::OpenAi => {
                let (kind, code) = openai_error(status);
                json!({"error": {"message": "scripted", "type": kind, "param": null, "code": code}})
            }
            Dialect::Gemini => {
                json!({"error": {"code": status, "message": "scripted", "status": gemini_status(status)}})
            }
            Dialect::Ollama if status == 404 => {
                json!({"error": format!("model '{}' not found", self.model)})
            }
            Dialect::Ollama => json!({"error": "scripted"}),
        };
        body.to_string().into_bytes()
    }

    /// The answer to a probe or a question for the models.
    pub(crate) fn probe_body(&self, path: &str, models: &[String]) -> Vec<u8> {
        let body = match self.dialect {
            Dialect::OpenAi => json!({"object": "list", "data": models.iter().map(|m| {
                json!({"id": m, "object": "model", "created": 1_700_000_000, "owned_by": "test"})
            }).collect::<Vec<_>>()}),
            Dialect::Gemini => json!({"models": models.iter().map(|m| json!({
                "name": format!("models/{m}"), "baseModelId": m, "version": "001", "displayName": m,
                "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
                "supportedGenerationMethods":
                    [if vectors::is_for_embedding(m) { "embedContent" } else { "generateContent" }],
            })).collect::<Vec<_>>()}),
            Dialect::Ollama if path.starts_with("/api/version") => json!({"version": "0.12.0"}),
            Dialect::Ollama if path.starts_with("/api/show") && vectors::is_for_embedding(&self.model) => {
                json!({
                    "capabilities": ["embedding"], "details": {"family": "bert"},
                    "model_info": {"general.architecture": "bert", "bert.context_length": 512},
                })
            }
            Dialect::Ollama if path.starts_with("/api/show") => json!({
                "capabilities": ["completion", "tools"], "details": {"family": "llama"},
                "model_info": {"general.architecture": "llama", "llama.context_length": 131_072},
            }),
            Dialect::Ollama => json!({"models": models.iter().map(|m| json!({
                "name": m, "model": m, "modified_at": "2026-01-01T00:00:00Z", "size": 1_321_098_329_u64,
                "digest": "0000", "details": {"family": "llama", "parameter_size": "1.2B"},
            })).collect::<Vec<_>>()}),
        };
        body.to_string().into_bytes()
    }

    fn id(&self) -> String {
        format!("upstream-{}", self.number)
    }

    fn openai_object(&self) -> &'static str {
        match (self.operation, self.stream) {
            (Operation::Completion, _) => "text_completion",
            (_, true) => "chat.completion.chunk",
            (_, false) => "chat.completion",
        }
    }

    fn openai_chunk(&self, delta: &str, reason: &str) -> String {
        format!(
            r#"{{"id":"{}","object":"chat.completion.chunk","created":1700000000,"model":{},"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]}}"#,
            self.id(),
            quote(&self.model)
        )
    }

    fn openai_piece(&self, text: &str, reason: &str) -> String {
        format!(
            r#"{{"id":"{}","object":"text_completion","created":1700000000,"model":{},"choices":[{{"index":0,"text":{},"logprobs":null,"finish_reason":{reason}}}]}}"#,
            self.id(),
            quote(&self.model),
            quote(text)
        )
    }

    fn openai_whole(&self, text: &str, reason: &str, tokens: usize) -> String {
        let choice = if self.operation == Operation::Completion {
            format!(r#"{{"index":0,"text":"{text}""#)
        } else {
            format!(r#"{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}}"#)
        };
        format!(
            r#"{{"id":"{}","object":"{}","created":1700000000,"model":{},"choices":[{choice},"logprobs":null,"finish_reason":{}}}],"usage":{}}}"#,
            self.id(),
            self.openai_object(),
            quote(&self.model),
            quote(reason),
            openai_usage(tokens)
        )
    }

    fn gemini(&self, content: &str, reason: Option<&str>, tokens: Option<usize>) -> String {
        let reason = reason.map(|r| format!(r#","finishReason":"{r}""#)).unwrap_or_default();
        let tokens = tokens.unwrap_or(1);
        format!(
            r#"{{"candidates":[{{"content":{content}{reason},"index":0}}],"usageMetadata":{{"promptTokenCount":{PROMPT_TOKENS},"candidatesTokenCount":{tokens},"totalTokenCount":{total}}},"modelVersion":{model},"responseId":"{id}"}}"#,
            total = PROMPT_TOKENS + tokens,
            model = quote(&self.model),
            id = self.id(),
        )
    }

    fn ollama_head(&self) -> String {
        format!(r#""model":{},"created_at":"2026-01-01T00:00:00Z""#, quote(&self.model))
    }

    fn ollama_content(&self, escaped: &str) -> String {
        if self.operation == Operation::Completion {
            format!(r#""response":"{escaped}""#)
        } else {
            format!(r#""message":{{"role":"assistant","content":"{escaped}"}}"#)
        }
    }

    fn ollama_piece(&self, text: &str) -> String {
        format!(r#"{{{},{},"done":false}}"#, self.ollama_head(), self.ollama_content(&escape(text)))
    }

    fn ollama_done(&self, reason: &str, tokens: usize) -> String {
        self.ollama_whole("", reason, tokens)
    }

    fn ollama_whole(&self, escaped: &str, reason: &str, tokens: usize) -> String {
        format!(
            r#"{{{},{},"done":true,"done_reason":{},"total_duration":1000000,"load_duration":1000,"prompt_eval_count":{PROMPT_TOKENS},"prompt_eval_duration":1000,"eval_count":{tokens},"eval_duration":1000}}"#,
            self.ollama_head(),
            self.ollama_content(escaped),
            quote(reason)
        )
    }
}

/// What every answer says the prompt was long.
pub const PROMPT_TOKENS: usize = 9;

fn openai_usage(tokens: usize) -> String {
    let total = PROMPT_TOKENS + tokens;
    format!(r#"{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{tokens},"total_tokens":{total}}}"#)
}

/// The last message's text, wherever the dialect has it; only its first part where it is in parts.
fn last_message(body: &Value) -> &str {
    let messages = body["messages"].as_array().or_else(|| body["contents"].as_array());
    let Some(message) = messages.and_then(|all| all.last()) else {
        return body["prompt"].as_str().unwrap_or_default();
    };
    let parts = message.get("content").or_else(|| message.get("parts")).unwrap_or(&Value::Null);
    parts.as_str().or_else(|| parts[0]["text"].as_str()).unwrap_or_default()
}

fn openai_route(method: &str, route: &str, body: &Value) -> (Operation, String, bool) {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let stream = body["stream"] == true;
    match (method, route) {
        ("POST", "/v1/chat/completions") => (Operation::Chat, model, stream),
        ("POST", "/v1/completions") => (Operation::Completion, model, stream),
        ("POST", "/v1/embeddings") => (Operation::Embedding, model, false),
        ("GET" | "HEAD", _) => (Operation::Probe, model, false),
        _ => (Operation::Unknown, model, false),
    }
}

fn gemini_route(method: &str, route: &str) -> (Operation, String, bool) {
    let tail = route.strip_prefix("/v1beta/models/").unwrap_or_default();
    match (method, tail.split_once(':')) {
        ("POST", Some((model, "generateContent"))) => (Operation::Chat, model.to_owned(), false),
        ("POST", Some((model, "streamGenerateContent"))) => (Operation::Chat, model.to_owned(), true),
        ("POST", Some((model, "embedContent" | "batchEmbedContents"))) => {
            (Operation::Embedding, model.to_owned(), false)
        }
        ("GET" | "HEAD", _) => (Operation::Probe, tail.to_owned(), false),
        _ => (Operation::Unknown, tail.to_owned(), false),
    }
}

fn ollama_route(method: &str, route: &str, body: &Value) -> (Operation, String, bool) {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    // Ollama streams unless told not to.
    let stream = body["stream"] != false;
    match (method, route) {
        ("POST", "/api/chat") => (Operation::Chat, model, stream),
        ("POST", "/api/generate") => (Operation::Completion, model, stream),
        ("POST", "/api/embed") => (Operation::Embedding, model, false),
        ("GET" | "HEAD", _) | ("POST", "/api/show") => (Operation::Probe, model, false),
        _ => (Operation::Unknown, model, false),
    }
}

fn openai_error(status: u16) -> (&'static str, &'static str) {
    match status {
        401 => ("invalid_request_error", "invalid_api_key"),
        402 => ("insufficient_quota", "insufficient_quota"),
        403 => ("invalid_request_error", "unsupported_country_region_territory"),
        404 => ("invalid_request_error", "model_not_found"),
        400..=428 => ("invalid_request_error", "invalid_value"),
        429 => ("requests", "rate_limit_exceeded"),
        _ => ("server_error", "server_error"),
    }
}

fn gemini_status(status: u16) -> &'static str {
    match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    }
}

fn gemini_reason(reason: &str) -> &'static str {
    match reason {
        "length" => "MAX_TOKENS",
        "content_filter" => "SAFETY",
        _ => "STOP",
    }
}

/// A JSON string.
pub(crate) fn quote(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// A JSON string without its quotes.
pub(crate) fn escape(text: &str) -> String {
    let quoted = quote(text);
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn exchanges() -> Vec<Exchange> {
        let body = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}});
        let whole = json!({"model": "m", "stream": false});
        vec![
            Exchange::new(Dialect::OpenAi, "POST", "/v1/chat/completions", &body, 0),
            Exchange::new(Dialect::OpenAi, "POST", "/v1/completions", &whole, 1),
            Exchange::new(
                Dialect::Gemini,
                "POST",
                "/v1beta/models/m:streamGenerateContent?alt=sse",
                &whole,
                2,
            ),
            Exchange::new(Dialect::Gemini, "POST", "/v1beta/models/m:generateContent", &whole, 3),
            Exchange::new(Dialect::Ollama, "POST", "/api/chat", &body, 4),
            Exchange::new(Dialect::Ollama, "POST", "/api/generate", &whole, 5),
        ]
    }

    #[test]
    fn every_event_is_json_in_every_dialect() {
        for x in exchanges() {
            assert_eq!(x.model, "m");
            let stream = [x.role_event(), x.text_event("a\"b\n"), x.finish_events("stop", false, 2)].concat();
            for line in String::from_utf8(stream).unwrap().lines().filter(|l| !l.trim().is_empty()) {
                let json = line.strip_prefix("data: ").unwrap_or(line);
                serde_json::from_str::<Value>(json).unwrap();
            }
            let (before, after) = x.whole("stop", 2);
            serde_json::from_str::<Value>(&format!("{before}{}{after}", escape("a\"b"))).unwrap();
            serde_json::from_slice::<Value>(&x.error_body(429)).unwrap();
            serde_json::from_slice::<Value>(&x.probe_body("/", &["m".to_owned()])).unwrap();
        }
    }
}
