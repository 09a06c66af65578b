#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::{Value, json};

use super::tests::{grammars, noise};
use super::*;
use crate::ErrorKind;

fn tools() -> Vec<ToolSpec> {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city"],
    });
    vec![
        ToolSpec { name: "weather".to_owned(), parameters: Some(parameters) },
        ToolSpec { name: "now".to_owned(), parameters: None },
    ]
}

fn rules(syntax: ToolSyntax) -> ToolRules {
    ToolRules { syntax, required: true, parallel: false, answer: None }
}

/// The calls in an answer that consists of calls.
fn calls(text: &str, syntax: ToolSyntax) -> Vec<Value> {
    let split: Vec<&str> = match syntax {
        ToolSyntax::Tagged => text
            .strip_prefix("<tool_call>\n")
            .and_then(|text| text.strip_suffix("\n</tool_call>"))
            .unwrap_or_else(|| panic!("{text}"))
            .split("\n</tool_call>\n<tool_call>\n")
            .collect(),
        ToolSyntax::Bare => vec![text],
    };
    split.into_iter().map(|call| serde_json::from_str(call).unwrap_or_else(|_| panic!("{text}"))).collect()
}

#[test]
fn noise_that_must_call_a_tool_calls_it_as_declared() {
    let grammars = grammars();
    let parameters = tools().remove(0).parameters.unwrap();
    let validator = jsonschema::validator_for(&parameters).unwrap();
    for syntax in ToolSyntax::ALL {
        let grammar = Grammar::tool_calls(&tools(), &rules(syntax)).unwrap();
        let mut names = Vec::new();
        for seed in 0..30 {
            let text = noise(&grammars, &grammar, seed, 3000).unwrap();
            let mut calls = calls(&text, syntax);
            assert_eq!(calls.len(), 1, "{text}");
            let call = calls.remove(0);
            let arguments =
                call.get(if syntax == ToolSyntax::Tagged { "arguments" } else { "parameters" }).unwrap();
            match call["name"].as_str().unwrap() {
                "weather" => assert!(validator.is_valid(arguments), "{text}"),
                "now" => assert_eq!(*arguments, json!({})),
                other => panic!("{other} was not declared"),
            }
            names.push(call["name"].clone());
        }
        assert!(names.contains(&json!("weather")) && names.contains(&json!("now")));
    }
}

#[test]
fn several_calls_where_they_are_allowed() {
    let grammars = grammars();
    let several = ToolRules { parallel: true, ..rules(ToolSyntax::Tagged) };
    let grammar = Grammar::tool_calls(&tools(), &several).unwrap();
    let counts: Vec<usize> = (0..20)
        .filter_map(|seed| noise(&grammars, &grammar, seed, 6000))
        .map(|text| calls(&text, ToolSyntax::Tagged).len())
        .collect();
    assert!(counts.iter().any(|count| *count > 1), "{counts:?}");
    assert!(counts.iter().all(|count| *count <= 16), "{counts:?}");
}

/// Whether a text is allowed, and may end there.
fn accepts(grammars: &Grammars, grammar: &Grammar, text: &str) -> bool {
    let mut constraint = grammars.constraint(grammar).unwrap();
    let tokenizer = grammars.tokenizer();
    for id in tokenizer.encode_text(text).unwrap() {
        if constraint.accept(id).is_err() {
            return false;
        }
    }
    let mut logits = vec![0.0; tokenizer.vocab()];
    constraint.mask(&mut logits).unwrap();
    (0..).zip(&logits).any(|(id, logit)| logit.is_finite() && tokenizer.is_end_of_generation(id))
}

#[test]
fn who_may_answer_answers_or_calls_or_does_both() {
    let grammars = grammars();
    let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let free = |parallel| ToolRules { required: false, parallel, ..rules(ToolSyntax::Tagged) };
    let grammar = Grammar::tool_calls(&tools(), &free(true)).unwrap();
    let twice = format!("{call}\n{call}");
    for (text, allowed) in [
        ("Hello, 1 < 2 <tool>.", true),
        ("", true),
        (call, true),
        (&format!("Let me look.\n{call}"), true),
        (&twice, true),
        (&format!("{call} done"), false),
        ("<tool_call>", false),
        ("x <tool_call>\n{\"name\": \"other\"", false),
        ("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": 7}}\n</tool_call>", false),
    ] {
        assert_eq!(accepts(&grammars, &grammar, text), allowed, "{text}");
    }
    let serial = Grammar::tool_calls(&tools(), &free(false)).unwrap();
    assert!(accepts(&grammars, &serial, call) && !accepts(&grammars, &serial, &twice));

    let bare = ToolRules { required: false, ..rules(ToolSyntax::Bare) };
    let grammar = Grammar::tool_calls(&tools(), &bare).unwrap();
    for (text, allowed) in [
        ("{\"name\": \"now\", \"parameters\": {}}", true),
        ("{\"name\": \"other\", \"parameters\": {}}", false),
        ("{\"city\": 1}", true),
        ("It is noon.", true),
    ] {
        assert_eq!(accepts(&grammars, &grammar, text), allowed, "{text}");
    }
}

#[test]
fn an_answer_beside_calls_may_have_a_schema() {
    let grammars = grammars();
    let answer = Some(json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}));
    let rules = ToolRules { required: false, answer, ..rules(ToolSyntax::Tagged) };
    let grammar = Grammar::tool_calls(&tools(), &rules).unwrap();
    assert!(accepts(&grammars, &grammar, "{\"n\": 5}"));
    assert!(accepts(
        &grammars,
        &grammar,
        "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"
    ));
    assert!(!accepts(&grammars, &grammar, "{\"m\": 5}") && !accepts(&grammars, &grammar, "five"));
}

#[test]
fn a_schema_that_cannot_be_enforced_names_its_tool() {
    let mut tools = tools();
    tools[0].parameters = Some(json!({"type": "object", "properties": {"a": {"not": {}}}}));
    let error = Grammar::tool_calls(&tools, &rules(ToolSyntax::Tagged)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadParameter);
    let text = error.to_string();
    assert!(text.starts_with("parameter tools: function \"weather\": ") && text.contains("not: "), "{text}");
}

#[test]
fn arguments_are_an_object_whatever_the_tool_says() {
    let grammars = grammars();
    for parameters in
        [json!({}), json!(true), json!({"properties": {"a": {"type": "null"}}, "required": ["a"]})]
    {
        let tools = [ToolSpec { name: "f".to_owned(), parameters: Some(parameters.clone()) }];
        let grammar = Grammar::tool_calls(&tools, &rules(ToolSyntax::Tagged)).unwrap();
        let mut ended = 0;
        for text in (0..20).filter_map(|seed| noise(&grammars, &grammar, seed, 2000)) {
            let call = calls(&text, ToolSyntax::Tagged).remove(0);
            assert!(call["arguments"].is_object(), "{parameters}: {text}");
            ended += 1;
        }
        assert!(ended > 0, "{parameters}");
    }
    for parameters in [json!({"type": "string"}), json!({"type": ["object", "null"]}), json!([])] {
        let tools = [ToolSpec { name: "f".to_owned(), parameters: Some(parameters) }];
        let error = Grammar::tool_calls(&tools, &rules(ToolSyntax::Bare)).unwrap_err().to_string();
        assert!(error.contains("function \"f\"") && error.contains("object"), "{error}");
    }
}
