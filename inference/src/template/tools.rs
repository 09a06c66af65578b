//! Tools and tool calls in chat templates.

use std::io;

use minijinja::value::{Kwargs, Serde};
use minijinja::{Error, ErrorKind, Value, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Value as Json, json};

use super::{ChatTemplate, role};
use crate::grammar::ToolSyntax;
use crate::tokenizer::{Guard, Tokenizer};
use crate::{PromptMessage, PromptTool, PromptToolCall};

/// Widest indentation a template may ask for.
const MOST_INDENT: usize = 16;

/// A turn as templates read it (the shape of the OpenAI API, as Hugging Face's templates expect it).
pub(super) fn message(message: &PromptMessage, guard: &Guard) -> Value {
    let calls: Vec<Value> = message.tool_calls.iter().map(|call| tool_call(call, guard)).collect();
    let content = (!message.content.is_empty() || calls.is_empty()).then(|| guard.protect(&message.content));
    let mut turn = vec![("role", Value::from(role(&message.role, guard))), ("content", Value::from(content))];
    if !calls.is_empty() {
        turn.push(("tool_calls", Value::from(calls)));
    }
    let texts = [("tool_call_id", &message.tool_call_id), ("name", &message.name)];
    turn.extend(
        texts.into_iter().filter_map(|(key, text)| Some((key, Value::from(role(text.as_ref()?, guard))))),
    );
    Value::from_pairs(turn)
}

fn tool_call(call: &PromptToolCall, guard: &Guard) -> Value {
    // Templates write arguments as JSON themselves, so they want the object; text that is none is passed as it is.
    let arguments = match serde_json::from_str::<Json>(&call.arguments) {
        Ok(arguments) => inert(arguments, guard),
        Err(_) => Json::String(guard.protect(&call.arguments)),
    };
    Value::from(Serde(json!({
        "id": role(&call.id, guard),
        "type": "function",
        "function": {"name": role(&call.name, guard), "arguments": arguments},
    })))
}

/// A tool as templates read it.
pub(super) fn tool(tool: &PromptTool, guard: &Guard) -> Value {
    let mut function = serde_json::Map::new();
    function.insert("name".to_owned(), Json::String(tool.name.clone()));
    if let Some(description) = &tool.description {
        function.insert("description".to_owned(), Json::String(description.clone()));
    }
    if let Some(parameters) = &tool.parameters {
        function.insert("parameters".to_owned(), parameters.clone());
    }
    Value::from(Serde(inert(json!({"type": "function", "function": function}), guard)))
}

/// The same JSON with every text protected, names included. Plain words stay as they are: templates compare them.
fn inert(value: Json, guard: &Guard) -> Json {
    match value {
        Json::String(text) => Json::String(role(&text, guard)),
        Json::Array(items) => items.into_iter().map(|item| inert(item, guard)).collect(),
        Json::Object(members) => {
            members.into_iter().map(|(name, value)| (role(&name, guard), inert(value, guard))).collect()
        }
        other => other,
    }
}

/// The filter `tojson` as Hugging Face defines it: Python's `json.dumps` without escaping for HTML, blanks behind
/// commas and colons, members in their order; `indent` writes lines.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // What Python offers besides has no meaning here.
    let _: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut text, OneLine)),
        Some(width) => {
            let blanks = " ".repeat(width.min(MOST_INDENT));
            let lines = PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut text, lines))
        }
    };
    let failed = |reason: String| Error::new(ErrorKind::BadSerialization, reason);
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(text).map(Value::from_safe_string).map_err(|error| failed(error.to_string()))
}

struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

impl ChatTemplate {
    /// How this template writes tool calls; `None` when it has no place for tools, or writes calls in a way that is
    /// not supported.
    ///
    /// Found out by laying out a conversation with a tool, a call and its result: all three have to show.
    #[must_use]
    pub fn tool_syntax(&self, tokenizer: &Tokenizer) -> Option<ToolSyntax> {
        let parameters = json!({"type": "object", "properties": {"probe_input": {"type": "integer"}}});
        let tools = [PromptTool {
            name: "probe_function".to_owned(),
            description: Some("probe_description".to_owned()),
            parameters: Some(parameters),
        }];
        let call = PromptToolCall {
            id: "callprobe".to_owned(),
            name: "probe_function".to_owned(),
            arguments: "{\"probe_input\": 7}".to_owned(),
        };
        let result = PromptMessage {
            tool_call_id: Some("callprobe".to_owned()),
            name: Some("probe_function".to_owned()),
            ..PromptMessage::new("tool", "probe_result")
        };
        let messages = [
            PromptMessage::new("user", "probe_question"),
            PromptMessage { tool_calls: vec![call], ..PromptMessage::new("assistant", "") },
            result,
        ];
        let guard = Guard::new(tokenizer.control_texts(), 0);
        let text = guard.remove(&self.render(&messages, &tools, true, tokenizer, &guard).ok()?);
        let shows =
            ["probe_description", "probe_input", "probe_result"].iter().all(|part| text.contains(part));
        let written = |syntax: &ToolSyntax| {
            let call = [
                syntax.opening(),
                "probe_function",
                syntax.middle(),
                "{\"probe_input\": 7}",
                syntax.closing(),
            ];
            text.contains(&call.concat())
        };
        ToolSyntax::ALL.into_iter().find(written).filter(|_| shows)
    }
}

/// The variables every template is given.
pub(super) fn variables(
    messages: &[PromptMessage],
    tools: &[PromptTool],
    add_generation_prompt: bool,
    tokenizer: &Tokenizer,
    guard: &Guard,
) -> Value {
    let messages: Vec<Value> = messages.iter().map(|turn| message(turn, guard)).collect();
    let tools: Vec<Value> = tools.iter().map(|spec| tool(spec, guard)).collect();
    context! {
        messages => messages,
        // Templates ask whether there are any.
        tools => (!tools.is_empty()).then_some(tools),
        add_generation_prompt => add_generation_prompt,
        bos_token => tokenizer.bos_text().unwrap_or_default(),
        eos_token => tokenizer.eos_text().unwrap_or_default(),
    }
}
