//! Structured answers and tool calls, over an engine that is played by the test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use futures::StreamExt;
use opossum_core::answer::{self, StreamEvent};
use opossum_core::request::{
    Content, GenerateRequest, Message, ResponseFormat, Role, Tool, ToolCall, ToolChoice,
};
use serde_json::value::RawValue;

use super::tests::{Played, call, done, started, text};
use super::*;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn tool(name: &str) -> Tool {
    let parameters = raw(r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#);
    Tool { name: name.into(), description: Some("d".into()), parameters: Some(parameters), strict: None }
}

fn asking(stream: bool, choice: ToolChoice) -> GenerateRequest {
    let messages = vec![Message::text(Role::User, "weather?")];
    GenerateRequest {
        stream,
        tools: vec![tool("weather"), tool("news")],
        tool_choice: choice,
        ..GenerateRequest::chat(messages)
    }
}

fn saying(says: Vec<TokenEvent>) -> (Arc<Played>, TransformersBackend) {
    let played = Arc::new(Played::with_tools(says));
    (Arc::clone(&played), TransformersBackend::new("transformers".into(), played))
}

async fn generated(backend: &TransformersBackend, request: GenerateRequest) -> Result<Reply, BackendError> {
    let mut call = call(request);
    call.defaults = Arc::default();
    backend.generate(call).await
}

const CALL: [&str; 4] = [
    "Let me see.\n<tool",
    "_call>\n{\"name\": \"weather\", \"argum",
    "ents\": {\"city\"",
    ": \"Rome\"}}\n</tool_call>",
];

fn says() -> Vec<TokenEvent> {
    let mut says = vec![started()];
    says.extend(CALL.map(text));
    says.push(done(FinishReason::Stop));
    says
}

#[tokio::test]
async fn a_call_is_streamed_as_it_comes() {
    let (_, backend) = saying(says());
    let Ok(Reply::Stream(mut stream)) = generated(&backend, asking(true, ToolChoice::Auto)).await else {
        panic!("a stream was asked for")
    };
    let mut events = Vec::new();
    while let Some(batch) = stream.next().await {
        events.extend(batch.unwrap());
    }
    let words: String = events
        .iter()
        .filter_map(|event| match event {
            StreamEvent::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(words, "Let me see.\n");
    let calls: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            StreamEvent::ToolCall { call, id, name, arguments, .. } => Some((*call, id, name, arguments)),
            _ => None,
        })
        .collect();
    assert!(calls[0].1.as_ref().is_some_and(|id| id.starts_with("call_")));
    assert_eq!(calls[0].2.as_deref(), Some("weather"));
    assert!(calls[1..].iter().all(|(call, id, name, _)| *call == 0 && id.is_none() && name.is_none()));
    let arguments: String = calls.iter().map(|(_, _, _, arguments)| arguments.as_str()).collect();
    assert_eq!(arguments, "{\"city\": \"Rome\"}");
    assert!(
        events.iter().any(|event| matches!(
            event,
            StreamEvent::Finish { reason: answer::FinishReason::ToolCalls, .. }
        ))
    );
}

#[tokio::test]
async fn a_whole_answer_holds_its_calls() {
    let (_, backend) = saying(says());
    let Ok(Reply::Whole(answer)) = generated(&backend, asking(false, ToolChoice::Auto)).await else {
        panic!("no stream was asked for")
    };
    let choice = &answer.choices[0];
    assert_eq!(choice.text.as_deref(), Some("Let me see.\n"));
    let call = &choice.tool_calls[0];
    assert_eq!((call.name.as_str(), call.arguments.as_str()), ("weather", "{\"city\": \"Rome\"}"));
    assert_eq!(choice.finish, answer::FinishReason::ToolCalls);
}

#[tokio::test]
async fn a_cut_call_ends_for_its_length() {
    let mut says = says();
    says.truncate(4);
    says.push(done(FinishReason::Length));
    let (_, backend) = saying(says);
    let Ok(Reply::Whole(answer)) = generated(&backend, asking(false, ToolChoice::Auto)).await else {
        panic!("no stream was asked for")
    };
    assert_eq!(answer.choices[0].finish, answer::FinishReason::Length);
    assert_eq!(answer.choices[0].tool_calls[0].arguments, "{\"city\"");
}

#[tokio::test]
async fn the_model_is_told_of_tools_unless_it_may_not_call_any() {
    for (choice, told, constrained) in [
        (ToolChoice::Auto, 2, true),
        (ToolChoice::Required, 2, true),
        (ToolChoice::Function("news".into()), 2, true),
        (ToolChoice::None, 0, false),
    ] {
        let (played, backend) = saying(vec![started(), text("<tool_call>"), done(FinishReason::Stop)]);
        drop(generated(&backend, asking(false, choice)).await.unwrap());
        let jobs = played.jobs.lock().unwrap();
        let Prompt::Chat { tools, .. } = &jobs[0].0.prompt else { panic!("a chat") };
        assert_eq!((tools.len(), jobs[0].0.params.grammar.is_some()), (told, constrained));
    }
}

#[tokio::test]
async fn calls_and_results_of_earlier_turns_are_told() {
    let (played, backend) = saying(vec![started(), done(FinishReason::Stop)]);
    let call = ToolCall { id: "c".into(), name: "weather".into(), arguments: "{}".into(), signature: None };
    let mut request = asking(false, ToolChoice::Auto);
    request.prompt = opossum_core::request::Prompt::Chat(vec![
        Message::text(Role::User, "weather?"),
        Message { content: Content::Empty, tool_calls: vec![call], ..Message::text(Role::Assistant, "") },
        Message { tool_call_id: Some("c".into()), ..Message::text(Role::Tool, "sunny") },
    ]);
    drop(generated(&backend, request).await.unwrap());
    let jobs = played.jobs.lock().unwrap();
    let Prompt::Chat { messages, .. } = &jobs[0].0.prompt else { panic!("a chat") };
    assert_eq!(messages[1].tool_calls[0].name, "weather");
    assert_eq!((messages[2].role.as_str(), messages[2].tool_call_id.as_deref()), ("tool", Some("c")));
}

#[tokio::test]
async fn a_schema_that_cannot_be_enforced_names_the_field() {
    let (played, backend) = saying(Vec::new());
    let mut tools = asking(false, ToolChoice::Auto);
    tools.tools[0].parameters = Some(raw(r#"{"not": {}}"#));
    let format = |schema: &str| {
        let mut request = GenerateRequest::chat(vec![Message::text(Role::User, "hi")]);
        request.params.response_format =
            ResponseFormat::JsonSchema { name: "s".into(), schema: raw(schema), strict: Some(true) };
        request
    };
    let deep = "[".repeat(500) + &"]".repeat(500);
    for (request, param, named) in [
        (tools, "tools", "\"weather\""),
        (format(r#"{"type": "array", "uniqueItems": true}"#), "response_format", "uniqueItems"),
        (format(&format!("{{\"enum\": {deep}}}")), "response_format", "recursion"),
    ] {
        let error = generated(&backend, request).await.unwrap_err();
        assert_eq!((error.class, error.param), (FailureClass::CallerError, Some(param)));
        assert!(error.detail.contains(named), "{error}");
    }
    assert!(played.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_a_model_can_do_depends_on_its_template() {
    let (_, backend) = saying(Vec::new());
    let can = backend.models().await.unwrap()[0].can;
    assert!(can.contains(Needs::TOOLS | Needs::TOOL_CHOICE | Needs::JSON_SCHEMA | Needs::JSON_OBJECT));
    let plain = TransformersBackend::new("transformers".into(), Arc::new(Played::default()));
    assert!(!plain.models().await.unwrap()[0].can.contains(Needs::TOOLS));
}
