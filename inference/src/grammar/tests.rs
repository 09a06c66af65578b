#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::gguf::Header;
use crate::sampler::split_mix_64;
use crate::testing::TinyLlama;
use crate::tokenizer::Tokenizer;

pub(super) fn grammars() -> Grammars {
    let header = Header::parse(&TinyLlama::default().to_bytes().unwrap()).unwrap();
    Grammars::new(Arc::new(Tokenizer::from_metadata(&header.metadata).unwrap()))
}

/// What a model of pure noise says under a grammar; `None` when it did not come to an end.
pub(super) fn noise(grammars: &Grammars, grammar: &Grammar, seed: u64, most: usize) -> Option<String> {
    let mut constraint = grammars.constraint(grammar).unwrap();
    let mut random = seed;
    let mut text = Vec::new();
    for left in (1..=most).rev() {
        let mut logits: Vec<f32> =
            (0..grammars.tokenizer().vocab()).map(|_| split_mix_64(&mut random) as f32).collect();
        constraint.mask(&mut logits).unwrap();
        let best = (0..).zip(&logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert!(best.1.is_finite(), "nothing may follow {:?}", String::from_utf8_lossy(&text));
        let id = constraint.wind_down(best.0, left);
        constraint.accept(id).unwrap();
        if grammars.tokenizer().is_end_of_generation(id) {
            return Some(String::from_utf8(text).unwrap());
        }
        text.extend(grammars.tokenizer().bytes(id));
        if constraint.is_complete() {
            return Some(String::from_utf8(text).unwrap());
        }
    }
    None
}

/// Texts of noise under a schema, parsed.
fn samples(schema: &Value, count: u64) -> Vec<Value> {
    let grammars = grammars();
    let grammar = Grammar::json_schema(schema).unwrap_or_else(|error| panic!("{schema}: {error}"));
    let texts = (0..count).filter_map(|seed| noise(&grammars, &grammar, seed, 4000));
    let values: Vec<Value> =
        texts.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))).collect();
    assert!(!values.is_empty(), "{schema}");
    values
}

/// Fails unless every text of noise follows the schema.
fn holds(schema: &Value) -> Vec<Value> {
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options.build(schema).unwrap();
    let samples = samples(schema, 40);
    for value in &samples {
        assert!(validator.is_valid(value), "{value} does not follow {schema}");
    }
    samples
}

fn refusal(schema: &Value) -> String {
    let compiled = Grammar::json_schema(schema).and_then(|grammar| grammars().constraint(&grammar).map(drop));
    let error = compiled.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadParameter, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("parameter response_format: "), "{text}");
    text
}

#[test]
fn every_supported_keyword_is_enforced() {
    for schema in [
        json!({"type": "object"}),
        json!({"const": {"a": [1, "x", null, true]}}),
        json!({"enum": ["red", 7, null, false, 2.5]}),
        json!({"type": ["integer", "null"]}),
        json!({"type": "string", "minLength": 2, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"}),
        json!({"type": "integer", "minimum": -3, "exclusiveMaximum": 12}),
        json!({"type": "integer", "minimum": 0, "maximum": 90, "multipleOf": 15}),
        json!({"type": "number", "minimum": 0, "maximum": 3, "multipleOf": 0.25}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": false, "minItems": 1}),
        json!({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}}, "required": ["b"]}),
        json!({"type": "object", "patternProperties": {"^x[0-9]$": {"type": "null"}}, "additionalProperties": false}),
        json!({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2}),
        json!({"anyOf": [{"type": "boolean"}, {"type": "array", "maxItems": 1}]}),
        json!({"oneOf": [{"type": "boolean"}, {"type": "string", "maxLength": 3}]}),
        json!({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}),
    ] {
        holds(&schema);
    }
}

#[test]
fn every_supported_format_is_enforced() {
    for format in
        ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
    {
        holds(&json!({"type": "string", "format": format}));
    }
    // A format is about strings: one of OpenAPI's for numbers is an annotation.
    holds(&json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 9}));
}

#[test]
fn days_that_do_not_exist_are_not_said() {
    let validator = |pattern: &str| {
        let schema = json!({"type": "string", "pattern": pattern});
        jsonschema::validator_for(&schema).unwrap()
    };
    let formats::Format::Pattern(date) = formats::format("date") else { panic!("dates are ours") };
    let dates = validator(&date);
    for (day, exists) in [
        ("2024-02-29", true),
        ("2023-02-29", false),
        ("1900-02-29", false),
        ("2000-02-29", true),
        ("2023-04-31", false),
        ("2023-12-31", true),
        ("2023-13-01", false),
        ("0000-01-01", false),
        ("0001-01-01", true),
        ("2020-00-10", false),
    ] {
        assert_eq!(dates.is_valid(&json!(day)), exists, "{day}");
    }
}

#[test]
fn numbers_stay_what_every_reader_can_read() {
    for value in samples(&json!({"type": "number"}), 60) {
        let text = value.to_string();
        assert!(value.as_f64().unwrap().abs() < 9_007_199_254_740_992.0, "{text}");
        let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        assert!(decimals <= 8 || text.contains('e'), "{text}");
    }
    // The bound itself is excluded even when many nines are rounded.
    for value in holds(&json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})) {
        assert!((1e-8..1.0).contains(&value.as_f64().unwrap()));
    }
    holds(&json!({"type": "number", "minimum": 0.1, "maximum": 0.25}));
    holds(&json!({"type": "number", "minimum": 2, "exclusiveMinimum": 2.5, "maximum": 3}));
    holds(&json!({"type": "integer", "minimum": 1.5, "maximum": 3.5}));
}

#[test]
fn objects_are_closed_unless_they_say_otherwise_or_are_put_together() {
    let listed = json!({"type": "object", "properties": {"a": {"type": "null"}}});
    assert!(
        samples(&listed, 40).iter().all(|value| value.as_object().unwrap().keys().all(|name| name == "a"))
    );
    let open = json!({"type": "object", "properties": {"a": {"type": "null"}},
        "additionalProperties": {"type": "null"}});
    assert!(samples(&open, 40).iter().any(|value| value.as_object().unwrap().keys().any(|name| name != "a")));
    let parts = json!({"allOf": [
        {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
        {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"]},
    ], "maxProperties": 2});
    holds(&parts);
    // What is required and not listed has to be possible.
    holds(&json!({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"],
        "additionalProperties": {"type": "null"}}));
}

#[test]
fn alternatives_may_be_references() {
    let tagged =
        |kind: &str| json!({"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]});
    let schema = json!({
        "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        "$defs": {"a": tagged("a"), "b": tagged("b")},
    });
    let kinds = holds(&schema);
    assert!(kinds.iter().any(|v| v["kind"] == "a") && kinds.iter().any(|v| v["kind"] == "b"));
}

#[test]
fn what_pydantic_writes_is_enforced() {
    let books = holds(&json!({
        "$defs": {"Author": {
            "properties": {
                "name": {"maxLength": 9, "title": "Name", "type": "string"},
                "born": {"anyOf": [{"maximum": 2020, "minimum": 1000, "type": "integer"}, {"type": "null"}], "title": "Born"},
            },
            "required": ["name", "born"], "title": "Author", "type": "object", "additionalProperties": false,
        }},
        "description": "A book.",
        "properties": {
            "kind": {"enum": ["novel", "poems"], "title": "Kind", "type": "string"},
            "price": {"maximum": 99, "minimum": 0, "title": "Price", "type": "number"},
            "authors": {"items": {"$ref": "#/$defs/Author"}, "maxItems": 2, "title": "Authors", "type": "array"},
            "in_print": {"default": true, "title": "In Print", "type": "boolean"},
        },
        "required": ["kind", "price", "authors", "in_print"],
        "title": "Book", "type": "object", "additionalProperties": false,
    }));
    assert!(books.iter().any(|book| book["authors"].as_array().is_some_and(|authors| !authors.is_empty())));
}

#[test]
fn recursion_is_possible() {
    holds(&json!({
        "type": "object",
        "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
        "required": ["v", "next"],
    }));
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    for (schema, named) in [
        (json!({"not": {}}), "not: the keyword is not supported"),
        (json!({"properties": {"a~b": {"if": {}}}}), "\"/properties/a~0b\": if"),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"type": "array", "contains": {}}), "contains"),
        (json!({"nullable": true}), "nullable"),
        (json!({"foo": 1}), "foo"),
        (json!({"type": "string", "format": "regex"}), "format: \"regex\""),
        (json!({"type": "string", "format": "date", "pattern": "^2"}), "format: \"date\" beside a pattern"),
        (json!({"$ref": "https://example.com/schema"}), "$ref"),
        (json!({"$ref": "#/nowhere"}), "$ref"),
        (json!({"items": {"$id": "x"}}), "$id"),
        (json!({"type": "number", "minimum": 1e300}), "minimum"),
        (json!({"type": "number", "multipleOf": 0}), "multipleOf"),
        (json!({"type": "number", "multipleOf": 1e-9}), "multipleOf"),
        (json!({"allOf": [{"multipleOf": 3}, {"multipleOf": 5}]}), "multipleOf"),
        (json!({"type": "integer", "minimum": 5, "maximum": 4}), "minimum"),
        (json!({"const": 1e99}), "const"),
        (json!({"type": "string", "minLength": 1_000_000}), "minLength"),
        (json!({"type": "object", "minProperties": 2}), "minProperties"),
        (json!({"properties": []}), "properties: must be an object"),
        (json!([1]), "schema: must be an object"),
        (json!({"type": "string", "pattern": "(?=a)b"}), "look-around"),
        (json!({"type": "string", "pattern": "("}), "regex"),
        (json!({"type": "colour"}), "colour"),
        (json!({"type": "string", "minLength": 3, "maxLength": 2}), "minLength (3)"),
        (json!({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}), "oneOf"),
        (json!({"allOf": [{"type": "string"}, {"type": "null"}]}), "incompatible types"),
    ] {
        let text = refusal(&schema);
        assert!(text.contains(named), "{schema}: {text}");
    }
}

#[test]
fn a_caller_cannot_turn_the_rules_off() {
    let schema = json!({"type": "object", "x-guidance": {"lenient": true}, "not": {}});
    assert!(refusal(&schema).contains("not"));
}

#[test]
fn hostile_schemas_are_refused_in_time() {
    let deep = (0..500).fold(json!({"type": "null"}), |inner, _| json!({"items": inner}));
    let wide = Value::Object((0..30_000).map(|n| (format!("p{n}"), json!({}))).collect());
    let chain: serde_json::Map<String, Value> = (0..1500)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", (n + 1) % 1500)})))
        .collect();
    let product: Vec<Value> = (0..12)
        .map(|_| json!({"anyOf": [{"minimum": 1}, {"maxLength": 2}, {"minItems": 1}, {"required": ["a"]}]}))
        .collect();
    let patterns: serde_json::Map<String, Value> =
        (0..300).map(|n| (format!("^(a|b)*{n}(c|d){{1,200}}$"), json!({}))).collect();
    let itself: Vec<Value> = (0..4000).map(|_| json!({"$ref": "#"})).collect();
    let references =
        |to: &str, count: usize| -> Vec<Value> { (0..count).map(|_| json!({"$ref": to})).collect() };
    let layers = json!({"oneOf": references("#/$defs/a", 300), "$defs": {
        "a": {"oneOf": references("#/$defs/b", 300)},
        "b": {"oneOf": references("#/$defs/c", 300)},
        "c": {"const": "long ".repeat(4000)},
    }});
    let many: Vec<u32> = (0..9000).collect();
    let lists = json!({"oneOf": references("#/$defs/a", 800), "$defs": {"a": {"enum": many}}});
    let began = Instant::now();
    for (name, schema) in [
        ("itself", json!({"oneOf": itself})),
        ("layers", layers),
        ("lists", lists),
        ("deep", deep),
        ("wide", json!({"type": "object", "properties": wide})),
        ("chain", json!({"$ref": "#/$defs/d0", "$defs": chain})),
        ("product", json!({"allOf": product})),
        ("patterns", json!({"type": "object", "patternProperties": patterns})),
        (
            "regex",
            json!({"type": "string", "pattern": "^(((a{1,500}b?){1,500}c?){1,500}d?){1,500}$", "minLength": 9}),
        ),
        ("words", json!({"type": "string", "pattern": "(a|b)*x(a|b){60}y(a|b){60}z", "maxLength": 60000})),
    ] {
        let before = Instant::now();
        let compiled = Grammar::json_schema(&schema).and_then(|g| grammars().constraint(&g).map(drop));
        let kind = compiled.map_err(|error| error.kind());
        assert!(matches!(kind, Ok(()) | Err(ErrorKind::BadParameter)), "{name}: {kind:?}");
        assert!(before.elapsed().as_secs() < 5, "{name} took {:?}", before.elapsed());
    }
    assert!(began.elapsed().as_secs() < 20);
}

#[test]
fn a_compiled_grammar_is_kept_for_the_next_request() {
    let grammars = grammars();
    let grammar = Grammar::json_object().unwrap();
    drop(grammars.constraint(&grammar).unwrap());
    let again = Grammar::json_object().unwrap();
    assert_eq!(grammar, again);
    let began = Instant::now();
    for _ in 0..100 {
        drop(grammars.constraint(&again).unwrap());
    }
    assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
    for n in 0..40 {
        drop(grammars.constraint(&Grammar::json_schema(&json!({"const": n})).unwrap()).unwrap());
    }
    assert!(grammars.kept() <= 16);
    // What a job holds is not compiled again, however many came after it.
    drop(grammars.constraint(&again).unwrap());
    assert!(!grammars.holds(&again), "it was compiled again");
}

#[test]
fn a_grammar_of_another_model_is_compiled_anew() {
    let (one, other) = (grammars(), grammars());
    let grammar = Grammar::json_object().unwrap();
    drop(one.constraint(&grammar).unwrap());
    drop(other.constraint(&grammar).unwrap());
    assert!(other.holds(&grammar));
}

#[test]
fn a_whole_answer_can_only_end() {
    let grammars = grammars();
    let grammar = Grammar::json_schema(&json!({"const": 7})).unwrap();
    let mut constraint = grammars.constraint(&grammar).unwrap();
    let seven = (0..).find(|id| grammars.tokenizer().bytes(*id) == b"7").unwrap();
    let allowed = |constraint: &mut Constraint| -> Vec<u32> {
        let mut logits = vec![0.0; grammars.tokenizer().vocab()];
        constraint.mask(&mut logits).unwrap();
        (0..).zip(logits).filter(|(_, logit)| logit.is_finite()).map(|(id, _)| id).collect()
    };
    assert_eq!(allowed(&mut constraint), [seven]);
    assert!(!constraint.is_complete());
    let wrong = grammars.constraint(&grammar).unwrap().accept(seven + 1).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::GrammarFailed);
    constraint.accept(seven).unwrap();
    let ends = allowed(&mut constraint);
    assert!(!ends.is_empty() && ends.iter().all(|id| grammars.tokenizer().is_end_of_generation(*id)));
}

/// Any schema of some depth, with its limits far enough apart to be followed.
fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        (-50_i64..50, 0_i64..60).prop_map(|(low, more)| json!({"type": "integer", "minimum": low, "maximum": low + more})),
        (-500_i32..500, 1_i32..600)
            .prop_map(|(low, more)| json!({"type": "number", "minimum": f64::from(low) / 8.0, "exclusiveMaximum": f64::from(low + more) / 8.0})),
        (0_u32..4, 0_u32..5).prop_map(|(low, more)| json!({"type": "string", "minLength": low, "maxLength": low + more})),
        "[a-z\"\\\\é\n]{0,4}".prop_map(|text| json!({"const": text})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0_u32..3, 0_u32..3)
                .prop_map(|(items, low, more)| json!({"type": "array", "items": items, "minItems": low, "maxItems": low + more})),
            (prop::collection::vec(("[a-c\"\\\\]{1,2}", inner.clone(), any::<bool>()), 0..4), any::<bool>()).prop_map(
                |(members, open)| {
                    let required: std::collections::BTreeSet<_> =
                        members.iter().filter(|(_, _, required)| *required).map(|(name, _, _)| name.clone()).collect();
                    let properties: serde_json::Map<_, _> =
                        members.into_iter().map(|(name, schema, _)| (name, schema)).collect();
                    let mut schema = json!({"type": "object", "properties": properties, "required": required});
                    if open {
                        schema["additionalProperties"] = json!({"type": "null"});
                    }
                    schema
                }
            ),
            prop::collection::vec(inner, 1..3).prop_map(|options| json!({"anyOf": options})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn noise_follows_any_schema(schema in any_schema(), seed: u64) {
        let grammars = grammars();
        let grammar = Grammar::json_schema(&schema)?;
        if let Some(text) = noise(&grammars, &grammar, seed, 1500) {
            let value: Value = serde_json::from_str(&text)?;
            prop_assert!(jsonschema::is_valid(&schema, &value), "{} does not follow {}", text, schema);
        }
    }
}
