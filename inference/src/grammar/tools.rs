//! Tool calls as models write them.

use std::fmt::Display;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

use super::{Grammar, refused, schema, with_options};
use crate::InferenceError;

/// Most calls in one turn.
const MOST_CALLS: usize = 16;
/// The request's field, named in errors.
const FIELD: &str = "tools";

/// How a model writes a tool call in its answer; both kinds write JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolSyntax {
    /// `<tool_call>`, a line with `name` and `arguments`, `</tool_call>`: Hermes, Qwen and many others.
    Tagged,
    /// Nothing but an object of `name` and `parameters`: Llama 3.1 and later.
    Bare,
}

impl ToolSyntax {
    /// Every syntax, for whoever finds out which one a template uses.
    pub const ALL: [ToolSyntax; 2] = [ToolSyntax::Tagged, ToolSyntax::Bare];

    /// What a call begins with, up to its name.
    #[must_use]
    pub fn opening(self) -> &'static str {
        match self {
            Self::Tagged => "<tool_call>\n{\"name\": \"",
            Self::Bare => "{\"name\": \"",
        }
    }

    /// What stands between the name and the arguments.
    #[must_use]
    pub fn middle(self) -> &'static str {
        match self {
            Self::Tagged => "\", \"arguments\": ",
            Self::Bare => "\", \"parameters\": ",
        }
    }

    /// What a call ends with, behind the arguments.
    #[must_use]
    pub fn closing(self) -> &'static str {
        match self {
            Self::Tagged => "}\n</tool_call>",
            Self::Bare => "}",
        }
    }

    /// What stands between two calls; `None` where a turn has one call only.
    #[must_use]
    pub fn separator(self) -> Option<&'static str> {
        match self {
            Self::Tagged => Some("\n"),
            Self::Bare => None,
        }
    }

    /// The pattern of an answer that is no call, and what a call is recognised by inside an answer.
    fn free_text(self) -> &'static str {
        match self {
            Self::Tagged => r"FREE: /(?s:.*)/ & ~/(?s:.*)<tool_call>(?s:.*)/",
            Self::Bare => r#"FREE: /(?s:.*)/ & ~/\{"name": "(?s:.*)/"#,
        }
    }
}

/// A function the model may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSpec {
    /// Its name: letters, digits, `_` and `-`.
    pub name: String,
    /// JSON schema of its arguments; `None` for a function without any.
    pub parameters: Option<Value>,
}

/// What a turn may consist of.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolRules {
    /// How the model writes calls.
    pub syntax: ToolSyntax,
    /// Whether the model must call a tool; else it may answer instead.
    pub required: bool,
    /// Whether it may call several.
    pub parallel: bool,
    /// The schema of an answer that is no call; `None` for any text.
    pub answer: Option<Value>,
}

impl Grammar {
    /// Turns that call these tools with arguments that follow their schemas, or answer.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] for `tools`, naming tool and keyword, as [`Grammar::json_schema`]; for
    /// `response_format` when the answer's schema is at fault.
    pub fn tool_calls(tools: &[ToolSpec], rules: &ToolRules) -> Result<Self, InferenceError> {
        let mut grammars = vec![GrammarWithLexer::from_lark(turn(tools, rules))];
        for (index, tool) in tools.iter().enumerate() {
            let refuse =
                |reason: &dyn Display| refused(FIELD, format_args!("function {:?}: {reason}", tool.name));
            let parameters = parameters(tool).map_err(|reason| refuse(&reason))?;
            let narrowed = schema::narrow(&parameters).map_err(|refusal| refuse(&refusal))?;
            grammars.push(named(&format!("arguments{index}"), narrowed));
        }
        if let Some(answer) = &rules.answer {
            let narrowed = schema::narrow(answer).map_err(|refusal| refused("response_format", refusal))?;
            grammars.push(named("answer", narrowed));
        }
        Self::new(FIELD, &TopLevelGrammar { grammars, max_tokens: None })
    }
}

/// The schema of a call's arguments, which are an object whether or not the tool says so.
fn parameters(tool: &ToolSpec) -> Result<Value, &'static str> {
    let mut schema = match &tool.parameters {
        None => return Ok(json!({"type": "object", "properties": {}})),
        Some(Value::Bool(true)) => json!({}),
        Some(schema) => schema.clone(),
    };
    if let Value::Object(keywords) = &mut schema {
        match keywords.get("type") {
            None => {
                keywords.insert("type".to_owned(), json!("object"));
            }
            Some(named) if named == "object" => {}
            Some(_) => return Err("the schema at \"\": type: must be \"object\""),
        }
    }
    Ok(schema)
}

fn named(name: &str, schema: Value) -> GrammarWithLexer {
    let grammar = GrammarWithLexer::from_json_schema(with_options(schema));
    GrammarWithLexer { name: Some(name.to_owned()), ..grammar }
}

/// The turn in the parser's own notation, a variant of Lark's.
fn turn(tools: &[ToolSpec], rules: &ToolRules) -> String {
    let syntax = rules.syntax;
    let quoted = |text: &str| Value::from(text).to_string();
    let more = match syntax.separator().filter(|_| rules.parallel) {
        Some(separator) => format!(" ({} call){{0,{}}}", quoted(separator), MOST_CALLS - 1),
        None => String::new(),
    };
    let calls: Vec<String> = tools
        .iter()
        .enumerate()
        .map(|(index, tool)| {
            format!("{} @arguments{index}", quoted(&format!("{}{}", tool.name, syntax.middle())))
        })
        .collect();
    let calls = calls.join(" | ");
    // The part of the opening that ends free text is matched by the free text's own rule.
    let tag = match syntax {
        ToolSyntax::Tagged => "<tool_call>",
        ToolSyntax::Bare => "",
    };
    let head = quoted(syntax.opening().strip_prefix(tag).unwrap_or_default());
    let whole = quoted(syntax.opening());
    let end = quoted(syntax.closing());
    let mut lines = vec![format!("call: {whole} called {end}"), format!("called: {calls}")];
    if rules.required {
        lines.push(format!("start: call{more}"));
    } else if rules.answer.is_some() {
        lines.push(format!("start: @answer | call{more}"));
    } else if tag.is_empty() {
        lines.push(format!("start: FREE | call{more}"));
        lines.push(syntax.free_text().to_owned());
    } else {
        lines.push(format!("start: FREE | before {head} called {end}{more}"));
        lines.push(syntax.free_text().to_owned());
        lines.push(format!("before[lazy]: /(?s:.*){tag}/"));
    }
    lines.join("\n")
}
