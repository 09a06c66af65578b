//! Tools, tool calls and the shape of the answer.

use std::borrow::Cow;
use std::collections::HashSet;

use opossum_core::request::{ResponseFormat, Tool, ToolCall, ToolChoice};
use serde::de::{MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::fault::{Checked, Fault};
use super::wire::{Anything, Field, Items, RawField, Value, WireObject, wire_object};

/// Most tools in one request.
const MAX_TOOLS: usize = 256;
/// Longest name of a tool or a schema, in bytes.
const MAX_NAME: usize = 64;
/// Arrays and objects around `tools[i].function.parameters`.
const PARAMETERS_DEPTH: u8 = 4;
/// Arrays and objects around `response_format.json_schema.schema`.
const SCHEMA_DEPTH: u8 = 3;

/// Names go into grammars and upstream dialects, which agree on this alphabet.
fn checked_name(field: Field<String>) -> Checked<String> {
    let name = field.need("name")?;
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    match fits {
        true => Ok(name),
        false => Err(Fault::invalid("expected 1 to 64 letters, digits, '_' or '-'.").under("name")),
    }
}

/// `tools`, with names that are all different.
pub(super) struct Tools(pub(super) Vec<Tool>);

impl<'de> Value<'de> for Tools {
    const EXPECTED: &'static str = "an array of tools";

    fn list<A: SeqAccess<'de>>(seq: A) -> Result<Checked<Self>, A::Error> {
        let tools = <Items<Tool, MAX_TOOLS>>::list(seq)?;
        Ok(tools.and_then(|Items(tools)| {
            let mut seen = HashSet::with_capacity(tools.len());
            match tools.iter().position(|tool| !seen.insert(tool.name.as_str())) {
                None => Ok(Self(tools)),
                Some(index) => {
                    Err(Fault::invalid("another tool has this name.").under("function.name").at(index))
                }
            }
        }))
    }
}

wire_object! {
    /// A tool as it is sent.
    ToolBody {
        kind: "type" => Field<Cow<'de, str>>,
        function: "function" => Field<Function>,
        cache_control: "cache_control" => Field<Anything>,
    }
}

impl<'de> Value<'de> for Tool {
    const EXPECTED: &'static str = "a tool object";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        ToolBody::read(map).map(|mut tool| {
            tool.sound()?;
            function_type(&tool.kind.need("type")?)?;
            tool.function.need("function").map(|function| function.0)
        })
    }
}

fn function_type(kind: &str) -> Checked<()> {
    match kind {
        "function" => Ok(()),
        _ => Err(Fault::unsupported("Only tools of type 'function' are.").under("type")),
    }
}

wire_object! {
    /// A function definition as it is sent.
    FunctionBody {
        name: "name" => Field<String>,
        description: "description" => Field<String>,
        parameters: "parameters" => RawField<'de>,
        strict: "strict" => Field<bool>,
        cache_control: "cache_control" => Field<Anything>,
    }
}

struct Function(Tool);

impl<'de> Value<'de> for Function {
    const EXPECTED: &'static str = "a function definition";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        FunctionBody::read(map).map(|mut function| {
            function.sound()?;
            Ok(Self(Tool {
                name: checked_name(function.name)?,
                description: function.description.get("description")?,
                parameters: function
                    .parameters
                    .object("parameters", PARAMETERS_DEPTH)?
                    .map(RawValue::to_owned),
                strict: function.strict.get("strict")?,
            }))
        })
    }
}

/// `tool_choice`.
pub(super) struct ToolChoiceField(pub(super) ToolChoice);

/// Refuses a choice that cannot be made among the given tools.
pub(super) fn check_choice(choice: ToolChoice, tools: &[Tool]) -> Checked<ToolChoice> {
    let detail = match &choice {
        ToolChoice::Required if tools.is_empty() => "there are no tools to choose from.",
        ToolChoice::Function(name) if !tools.iter().any(|tool| tool.name == *name) => {
            "the named function is not among the tools."
        }
        _ => return Ok(choice),
    };
    Err(Fault::invalid(detail).under("tool_choice"))
}

wire_object! {
    /// `tool_choice` as an object.
    ToolChoiceBody {
        kind: "type" => Field<Cow<'de, str>>,
        function: "function" => Field<NamedFunction>,
    }
}

impl<'de> Value<'de> for ToolChoiceField {
    const EXPECTED: &'static str = "'none', 'auto', 'required' or an object naming a function";

    fn text(text: Cow<'de, str>) -> Checked<Self> {
        match &*text {
            "none" => Ok(Self(ToolChoice::None)),
            "auto" => Ok(Self(ToolChoice::Auto)),
            "required" => Ok(Self(ToolChoice::Required)),
            _ => Err(Fault::mistyped(Self::EXPECTED)),
        }
    }

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        ToolChoiceBody::read(map).map(|mut choice| {
            choice.sound()?;
            function_type(&choice.kind.need("type")?)?;
            choice.function.need("function").map(|named| Self(ToolChoice::Function(named.0)))
        })
    }
}

wire_object! {
    /// The function that a choice names.
    NamedFunctionBody {
        name: "name" => Field<String>,
    }
}

struct NamedFunction(String);

impl<'de> Value<'de> for NamedFunction {
    const EXPECTED: &'static str = "an object with a name";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        NamedFunctionBody::read(map).map(|mut function| {
            function.sound()?;
            function.name.need("name").map(Self)
        })
    }
}

wire_object! {
    /// A call of an assistant turn as it is sent. `index` is there when a client sends a stream's deltas back.
    ToolCallBody {
        id: "id" => Field<String>,
        kind: "type" => Field<Cow<'de, str>>,
        function: "function" => Field<CalledFunction>,
        extra_content: "extra_content" => Field<ExtraContent>,
        index: "index" => Field<i128>,
    }
}

impl<'de> Value<'de> for ToolCall {
    const EXPECTED: &'static str = "a tool call";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        ToolCallBody::read(map).map(ToolCallBody::build)
    }
}

impl ToolCallBody<'_> {
    fn build(mut self) -> Checked<ToolCall> {
        self.sound()?;
        self.index.ignore("index")?;
        if let Some(kind) = self.kind.get("type")? {
            function_type(&kind)?;
        }
        let id = self.id.need("id")?;
        if id.is_empty() {
            return Err(Fault::invalid("it must not be empty.").under("id"));
        }
        let CalledFunction { name, arguments } = self.function.need("function")?;
        let signature = self.extra_content.get("extra_content")?.and_then(|extra| extra.signature);
        Ok(ToolCall { id, name, arguments, signature })
    }
}

wire_object! {
    /// The function of a call.
    CalledFunctionBody {
        name: "name" => Field<String>,
        arguments: "arguments" => Field<String>,
    }
}

struct CalledFunction {
    name: String,
    arguments: String,
}

impl<'de> Value<'de> for CalledFunction {
    const EXPECTED: &'static str = "an object with a name and arguments";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        CalledFunctionBody::read(map).map(|mut function| {
            function.sound()?;
            let name = function.name.need("name")?;
            if name.is_empty() {
                return Err(Fault::invalid("it must not be empty.").under("name"));
            }
            Ok(Self { name, arguments: function.arguments.need("arguments")? })
        })
    }
}

wire_object! {
    /// What vendors attach to a call; what is not known here belongs to other vendors.
    ExtraContentBody {
        google: "google" => Field<GoogleExtra>,
    }
}

struct ExtraContent {
    signature: Option<String>,
}

impl<'de> Value<'de> for ExtraContent {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        ExtraContentBody::read(map).map(|extra| {
            let google = extra.google.get("google")?;
            Ok(Self { signature: google.and_then(|google| google.0) })
        })
    }
}

wire_object! {
    /// What Gemini attaches to a call.
    GoogleExtraBody {
        thought_signature: "thought_signature" => Field<String>,
    }
}

struct GoogleExtra(Option<String>);

impl<'de> Value<'de> for GoogleExtra {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        GoogleExtraBody::read(map).map(|google| google.thought_signature.get("thought_signature").map(Self))
    }
}

/// `response_format`.
pub(super) struct ResponseFormatField(pub(super) ResponseFormat);

wire_object! {
    /// `response_format` as it is sent.
    ResponseFormatBody {
        kind: "type" => Field<Cow<'de, str>>,
        json_schema: "json_schema" => Field<JsonSchema>,
    }
}

impl<'de> Value<'de> for ResponseFormatField {
    const EXPECTED: &'static str = "an object with a type";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        ResponseFormatBody::read(map).map(|mut format| {
            format.sound()?;
            let json_schema = format.json_schema.get("json_schema")?;
            match &*format.kind.need("type")? {
                "text" => Ok(Self(ResponseFormat::Text)),
                "json_object" => Ok(Self(ResponseFormat::JsonObject)),
                "json_schema" => match json_schema {
                    Some(JsonSchema(schema)) => Ok(Self(schema)),
                    None => Err(Fault::missing("json_schema")),
                },
                _ => Err(Fault::invalid("expected 'text', 'json_object' or 'json_schema'.").under("type")),
            }
        })
    }
}

wire_object! {
    /// `response_format.json_schema` as it is sent.
    JsonSchemaBody {
        name: "name" => Field<String>,
        description: "description" => Field<String>,
        schema: "schema" => RawField<'de>,
        strict: "strict" => Field<bool>,
    }
}

struct JsonSchema(ResponseFormat);

impl<'de> Value<'de> for JsonSchema {
    const EXPECTED: &'static str = "an object with a name and a schema";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        JsonSchemaBody::read(map).map(|mut body| {
            body.sound()?;
            body.description.ignore("description")?;
            let schema = body.schema.object("schema", SCHEMA_DEPTH)?;
            Ok(Self(ResponseFormat::JsonSchema {
                name: checked_name(body.name)?,
                schema: schema.ok_or_else(|| Fault::missing("schema"))?.to_owned(),
                strict: body.strict.get("strict")?,
            }))
        })
    }
}
