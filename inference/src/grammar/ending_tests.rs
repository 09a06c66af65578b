#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use crate::grammar::tests::{grammars, noise};
use crate::grammar::{Grammar, Grammars, ToolRules, ToolSpec, ToolSyntax};

fn schema(schema: &Value) -> Grammar {
    Grammar::json_schema(schema).unwrap()
}

/// The shortest answer that is found, and its tokens.
fn shortest(grammars: &Grammars, grammar: &Grammar) -> (String, usize) {
    let mut scout = grammars.compiled(grammar).unwrap().parser();
    let end = super::end_after(&mut scout, None).unwrap();
    let tokenizer = grammars.tokenizer();
    let bytes =
        end.iter().filter(|id| !tokenizer.is_end_of_generation(**id)).flat_map(|id| tokenizer.bytes(*id));
    (String::from_utf8(bytes.copied().collect()).unwrap(), end.len())
}

/// An invoice's worth of required members, lengths, patterns and references.
fn order() -> Value {
    json!({
        "type": "object",
        "properties": {
            "number": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,6}$"},
            "note": {"type": "string"},
            "buyer": {"$ref": "#/$defs/party"},
            "lines": {"type": "array", "minItems": 2, "items": {"type": "object", "properties": {
                "what": {"type": "string", "minLength": 4},
                "price": {"type": "number", "minimum": 10},
            }, "required": ["what", "price"]}},
            "paid": {"type": "boolean"},
        },
        "required": ["number", "buyer", "lines", "paid"],
        "$defs": {"party": {"type": "object", "properties": {
            "name": {"type": "string", "minLength": 1},
            "mail": {"type": "string", "format": "email"},
            "since": {"type": ["string", "null"], "format": "date"},
        }, "required": ["name", "mail", "since"]}},
    })
}

#[test]
fn the_shortest_answers_are_short() {
    let grammars = grammars();
    for (value, expected) in [
        (json!({"type": "object"}), "{}"),
        (json!({"type": "array", "minItems": 3, "items": {"type": "boolean"}}), "[true,true,true]"),
        (json!({"type": "string", "minLength": 2, "maxLength": 50_000}), "\"aa\""),
        (json!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)+(-[a-z]{3})?$"}), "\"0.0\""),
        (json!({"type": "string", "format": "date-time"}), "\"0001-01-01T00:00:00Z\""),
        (json!({"type": "number", "minimum": 1000}), "1000"),
        (json!({"enum": ["to be decided", "totally", "no"]}), "\"no\""),
        (json!({"anyOf": [{"type": "string", "minLength": 9}, {"type": "null"}]}), "null"),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}, "c": {"type": "string"}},
                "required": ["b"]}),
            "{\"b\":null}",
        ),
    ] {
        assert_eq!(shortest(&grammars, &schema(&value)).0, expected, "{value}");
    }
    let (text, _) = shortest(&grammars, &schema(&order()));
    let least = "{'number':'AA-000','buyer':{'name':'a','mail':'a@a.aa','since':null},\
        'lines':[{'what':'aaaa','price':10},{'what':'aaaa','price':10}],'paid':true}";
    // Other values may be as short.
    assert_eq!(text.len(), least.len(), "{text}");
}

#[test]
fn recursion_that_looks_short_is_left_again() {
    let grammars = grammars();
    let all = json!({"type": "object", "properties": {
        "op": {"const": "&"}, "of": {"type": "array", "items": {"$ref": "#/$defs/filter"}, "minItems": 2},
    }, "required": ["op", "of"]});
    let equal = json!({"type": "object", "properties": {
        "op": {"const": "equal"}, "of": {"type": "string"}, "to": {"type": "number"},
    }, "required": ["op", "of", "to"]});
    let filter = json!({"anyOf": [all, equal]});
    let (text, _) =
        shortest(&grammars, &schema(&json!({"$ref": "#/$defs/filter", "$defs": {"filter": filter}})));
    assert_eq!(text, "{\"op\":\"equal\",\"of\":\"\",\"to\":0}");
}

/// Checks that noise under a grammar comes to a whole answer within any number of tokens from the shortest answer's on.
fn ends_in_time(grammars: &Grammars, grammar: &Grammar, check: impl Fn(&str) -> bool) {
    let (_, least) = shortest(grammars, grammar);
    for limit in (least..least + 20).chain([least + 50, least + 100, least + 200]) {
        for seed in 0..3 {
            let text = noise(grammars, grammar, seed, limit);
            assert!(text.as_ref().is_some_and(|text| check(text)), "{limit} tokens: {text:?}");
        }
    }
}

#[test]
fn noise_comes_to_an_end_within_any_limit_that_allows_one() {
    let grammars = grammars();
    for value in [
        order(),
        json!({"type": "object"}),
        json!({"type": "array", "items": {"type": "string", "minLength": 3}, "minItems": 2}),
        json!({"type": "number"}),
        json!({"type": "string", "format": "email"}),
        json!({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}, "minItems": 3}}),
        json!({"type": "object", "properties": {"v": {"type": "string"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
            "required": ["v", "next"]}),
    ] {
        let validator = jsonschema::options().should_validate_formats(true).build(&value).unwrap();
        ends_in_time(&grammars, &schema(&value), |text| {
            validator.is_valid(&serde_json::from_str(text).unwrap())
        });
    }
}

#[test]
fn tool_calls_come_to_an_end_in_time() {
    let grammars = grammars();
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string", "minLength": 3}}, "required": ["city"]});
    let tools = [ToolSpec { name: "weather".to_owned(), parameters: Some(parameters) }];
    for syntax in ToolSyntax::ALL {
        for (required, parallel) in [(true, false), (true, true), (false, true)] {
            let rules = ToolRules { syntax, required, parallel, answer: None };
            let grammar = Grammar::tool_calls(&tools, &rules).unwrap();
            ends_in_time(&grammars, &grammar, |text| {
                let is_call = text.ends_with(syntax.closing()) && text.contains("weather");
                is_call || (!required && !text.contains(syntax.opening()))
            });
        }
    }
}

#[test]
fn a_call_behind_free_text_with_quotes_is_ended_in_time() {
    let grammars = grammars();
    let tools = [ToolSpec { name: "now".to_owned(), parameters: Some(json!({"type": "object"})) }];
    let rules = ToolRules { syntax: ToolSyntax::Tagged, required: false, parallel: true, answer: None };
    let mut constraint = grammars.constraint(&Grammar::tool_calls(&tools, &rules).unwrap()).unwrap();
    let tokenizer = grammars.tokenizer();
    let said = "An inch is 1\" {wide}. <tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\": [\"b";
    let said = tokenizer.encode_text(said).unwrap();
    let mut left = said.len() + 32;
    for id in &said {
        assert_eq!(constraint.wind_down(*id, left), *id);
        constraint.accept(*id).unwrap();
        left -= 1;
    }
    let (go_on, mut text) = (tokenizer.encode_text("b").unwrap()[0], String::new());
    while !text.ends_with("</tool_call>") {
        let id = constraint.wind_down(go_on, left);
        constraint.accept(id).unwrap();
        text.push_str(std::str::from_utf8(tokenizer.bytes(id)).unwrap());
        left -= 1;
    }
    assert!(text.ends_with("\"]}}\n</tool_call>") && text.starts_with('b') && left <= 1, "{text:?} {left}");
}

#[test]
fn what_is_nested_deeper_and_deeper_is_closed_in_time() {
    let grammars = grammars();
    let grammar = schema(
        &json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}),
    );
    let open = grammars.tokenizer().encode_text("[").unwrap()[0];
    for limit in [2, 3, 10, 101, 1000, 3000] {
        let mut constraint = grammars.constraint(&grammar).unwrap();
        let mut text = String::new();
        for left in (1..=limit).rev() {
            if constraint.is_complete() {
                break;
            }
            let id = constraint.wind_down(open, left);
            constraint.accept(id).unwrap();
            text.push_str(std::str::from_utf8(grammars.tokenizer().bytes(id)).unwrap());
        }
        assert!(constraint.is_complete(), "{limit} tokens");
        assert_eq!(text, "[".repeat(limit / 2) + &"]".repeat(limit / 2), "{limit} tokens");
    }
}

#[test]
fn an_answer_is_cut_only_where_none_is_so_short() {
    let grammars = grammars();
    let grammar = schema(&order());
    let (_, least) = shortest(&grammars, &grammar);
    assert_eq!(noise(&grammars, &grammar, 1, least - 1), None);
}

#[test]
fn far_from_the_limit_every_token_is_as_chosen() {
    let grammars = grammars();
    let grammar =
        schema(&json!({"type": "array", "items": {"type": "integer"}, "minItems": 40, "maxItems": 60}));
    for seed in 0..5 {
        let far = noise(&grammars, &grammar, seed, 4000);
        assert!(far.is_some());
        assert_eq!(far, noise(&grammars, &grammar, seed, 8000));
    }
}
