//! The lines of the files that tell what came of each request, as the dialect has them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::batch::Tokens;
use crate::jobs::StoredReply;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Time was up.
    Expired,
    /// The batch was called off.
    Cancelled,
}

impl Unanswered {
    fn code(self) -> &'static str {
        match self {
            Unanswered::Expired => "batch_expired",
            Unanswered::Cancelled => "batch_cancelled",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Unanswered::Expired => "This request could not be executed before the completion window expired.",
            Unanswered::Cancelled => "This request was not executed because the batch was cancelled.",
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    custom_id: &'a str,
    response: Option<Response<'a>>,
    error: Option<Fault>,
}

#[derive(Serialize)]
struct Response<'a> {
    status_code: u16,
    request_id: &'a str,
    body: &'a RawValue,
}

#[derive(Serialize)]
struct Fault {
    code: &'static str,
    message: &'static str,
}

/// The line of a request that was answered, or refused.
pub fn answered(batch: &str, line: u32, custom_id: &str, reply: &StoredReply) -> Vec<u8> {
    let name = |(name, _): &&(String, String)| name == "x-request-id";
    let request_id = reply.headers.iter().find(name).map_or("", |(_, id)| id.as_str());
    // Every reply is JSON that this service wrote.
    let body = serde_json::from_slice(&reply.body).unwrap_or(RawValue::NULL);
    let response = Response { status_code: reply.status, request_id, body };
    written(batch, line, custom_id, Some(response), None)
}

/// The line of a request that was not executed.
pub fn unanswered(batch: &str, line: u32, custom_id: &str, why: Unanswered) -> Vec<u8> {
    let fault = Fault { code: why.code(), message: why.message() };
    written(batch, line, custom_id, None, Some(fault))
}

fn written(
    batch: &str,
    line: u32,
    custom_id: &str,
    response: Option<Response<'_>>,
    error: Option<Fault>,
) -> Vec<u8> {
    let id = format!("batch_req_{}_{line}", batch.strip_prefix("batch_").unwrap_or(batch));
    let mut out = Vec::with_capacity(512);
    // Strings into memory cannot fail to serialise.
    serde_json::to_writer(&mut out, &Line { id, custom_id, response, error }).ok();
    out.push(b'\n');
    out
}

/// What a line tells about the model and its work.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    response: Option<ToldResponse>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToldResponse {
    body: ToldBody,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToldBody {
    model: Option<String>,
    usage: Option<ToldUsage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToldUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<ToldDetails>,
    completion_tokens_details: Option<ToldDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToldDetails {
    cached_tokens: u64,
    reasoning_tokens: u64,
}

/// Adds what a line of answers tells to the tokens of its batch; the model that answered.
pub fn count(line: &[u8], tokens: &mut Tokens) -> Option<String> {
    let told: Told = serde_json::from_slice(line).ok()?;
    let body = told.response?.body;
    if let Some(usage) = body.usage {
        let (prompt, completion) = (
            usage.prompt_tokens_details.unwrap_or_default(),
            usage.completion_tokens_details.unwrap_or_default(),
        );
        tokens.input = tokens.input.saturating_add(usage.prompt_tokens);
        tokens.cached = tokens.cached.saturating_add(prompt.cached_tokens);
        tokens.output = tokens.output.saturating_add(usage.completion_tokens);
        tokens.reasoning = tokens.reasoning.saturating_add(completion.reasoning_tokens);
    }
    body.model
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reply(status: u16, body: &Value) -> StoredReply {
        let headers = vec![("x-request-id".to_owned(), "req_1".to_owned())];
        StoredReply { status, headers, body: body.to_string().into() }
    }

    fn parsed(line: &[u8]) -> Value {
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(line).unwrap_or_default()
    }

    #[test]
    fn lines_have_the_shape_of_the_dialect() {
        let line = answered("batch_7", 3, "a\n\"b\"", &reply(200, &json!({ "object": "list" })));
        let wanted = json!({
            "id": "batch_req_7_3",
            "custom_id": "a\n\"b\"",
            "response": { "status_code": 200, "request_id": "req_1", "body": { "object": "list" } },
            "error": null,
        });
        assert_eq!(parsed(&line), wanted);
        let line = parsed(&unanswered("batch_7", 0, "x", Unanswered::Expired));
        assert_eq!((&line["response"], &line["error"]["code"]), (&json!(null), &json!("batch_expired")));
    }

    #[test]
    fn tokens_are_counted_over_all_answers() {
        let mut tokens = Tokens::default();
        let usage = json!({
            "prompt_tokens": 5, "completion_tokens": 7,
            "prompt_tokens_details": { "cached_tokens": 2 }, "completion_tokens_details": { "reasoning_tokens": 3 },
        });
        let body = json!({ "model": "m", "usage": usage });
        for line in [
            answered("b", 0, "a", &reply(200, &body)),
            answered("b", 1, "b", &reply(200, &body)),
            answered("b", 2, "c", &reply(400, &json!({ "error": {} }))),
            unanswered("b", 3, "d", Unanswered::Cancelled),
        ] {
            let model = count(&line, &mut tokens);
            assert!(model.is_none_or(|model| model == "m"));
        }
        assert_eq!(tokens, Tokens { input: 10, cached: 4, output: 14, reasoning: 6 });
    }
}
