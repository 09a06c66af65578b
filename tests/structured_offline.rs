//! Structured output and tool calls by the embedded model, over HTTP: whatever it says, it has the form that was asked
//! for, and a form that cannot be kept is refused by name.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use opossum_testkit::models::{ChangedModel, DEFAULT_MODEL_FILE, folder_with};
use opossum_testkit::{Answer, Client, Service, ask, eventually};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// A template with a place for tools, their calls and their results.
const TOOL_TEMPLATE: &str = r#"{%- if tools %}
{{- '<|im_start|>system\nYou can call these functions:\n' }}
{%- for tool in tools %}{{- (tool | tojson) + '\n' }}{%- endfor %}
{{- 'To call one, answer with\n<tool_call>\n{"name": NAME, "arguments": OBJECT}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- (call.function.arguments | tojson) + '}\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"#;

/// `None`, with a word about it, where the model file is not on this machine.
#[expect(clippy::print_stderr, reason = "a suite that did not run has to say so")]
async fn service() -> Option<Service> {
    let Some(models) = folder_with(DEFAULT_MODEL_FILE) else {
        eprintln!("not run: {DEFAULT_MODEL_FILE} is not here; `make test` fetches it");
        return None;
    };
    let service = Service::of(BIN).embedded(&models).start().await;
    service.settled(&["transformers"]).await;
    Some(service)
}

/// A service whose model knows tools, and its file.
async fn with_tools() -> Option<(Service, ChangedModel)> {
    let model = ChangedModel::copy()?.with_template(TOOL_TEMPLATE);
    let service = Service::of(BIN).embedded_file(&model.path()).start().await;
    service.settled(&["transformers"]).await;
    // That it knows tools is known once it is loaded.
    let mut body = asking("none", false);
    body["max_tokens"] = json!(1);
    let client = patient(&service);
    let loaded = eventually(Duration::from_secs(30), async || client.chat(&body).await.status == 200);
    assert!(loaded.await, "{}", service.logs());
    Some((service, model))
}

/// A client that waits for a busy machine, and for the model instead of stored answers.
fn patient(service: &Service) -> Client {
    service.client().limit(Duration::from_secs(100)).with("x-opossum-cache", "bypass")
}

fn pet() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "kind": {"enum": ["cat", "dog", "opossum"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 30},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 10}, "maxItems": 3},
        },
        "required": ["name", "kind", "age", "tags"],
        "additionalProperties": false,
    })
}

fn is_pet(value: &Value) -> bool {
    let short = |text: &Value, most: usize| text.as_str().is_some_and(|text| text.chars().count() <= most);
    value.as_object().is_some_and(|members| members.keys().eq(["name", "kind", "age", "tags"]))
        && short(&value["name"], 20)
        && value["name"] != ""
        && ["cat", "dog", "opossum"].iter().any(|kind| value["kind"] == *kind)
        && value["age"].as_u64().is_some_and(|age| age <= 30)
        && value["tags"]
            .as_array()
            .is_some_and(|tags| tags.len() <= 3 && tags.iter().all(|tag| short(tag, 10)))
}

fn asking_for_a_pet(seed: u64) -> Value {
    let mut body = ask("Describe a pet.");
    body["temperature"] = json!(1);
    body["seed"] = json!(seed);
    body["max_tokens"] = json!(400);
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "pet", "strict": true, "schema": pet()}});
    body
}

#[tokio::test]
async fn answers_follow_the_schema_whole_and_streamed() {
    let Some(service) = service().await else { return };
    let client = patient(&service);
    for seed in 0..4 {
        let answer = client.chat(&asking_for_a_pet(seed)).await;
        assert_eq!((answer.status, answer.backend()), (200, "transformers"), "{}", answer.body_text());
        let value: Value = serde_json::from_str(&answer.text()).unwrap();
        assert!(is_pet(&value), "{value}");
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
    }
    let mut streamed = asking_for_a_pet(3);
    let whole = client.chat(&streamed).await.text();
    streamed["stream"] = json!(true);
    let stream = client.stream(&streamed).await.collect().await;
    assert!(stream.done(), "{stream:?}");
    // The same seed says the same, however it is sent.
    assert_eq!(stream.text(), whole);
}

#[tokio::test]
async fn any_object_is_a_whole_object_however_few_tokens_there_are() {
    let Some(service) = service().await else { return };
    for (seed, most) in [(0, 12), (1, 40), (2, 100), (3, 200)] {
        let mut body = ask("Describe a cat in JSON: its name and its age, nothing else.");
        body["seed"] = json!(seed);
        body["max_tokens"] = json!(most);
        body["response_format"] = json!({"type": "json_object"});
        let answer = patient(&service).chat(&body).await;
        assert_eq!(answer.status, 200, "{}", answer.body_text());
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop", "{most}: {}", answer.text());
        let value: Value = serde_json::from_str(&answer.text()).unwrap();
        assert!(value.is_object(), "{value}");
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_by_name() {
    let Some((service, _model)) = with_tools().await else { return };
    let client = patient(&service);
    let refused = |answer: &Answer, param: &str, words: &[&str]| {
        assert_eq!((answer.status, answer.error_param().as_str()), (400, param), "{}", answer.body_text());
        assert_eq!(answer.error_code(), "unsupported_parameter");
        for word in words {
            assert!(answer.body_text().contains(word), "{word} in {}", answer.body_text());
        }
    };
    for (keyword, value) in
        [("not", json!({})), ("uniqueItems", json!(true)), ("if", json!({})), ("frobnicate", json!(1))]
    {
        let mut body = asking_for_a_pet(0);
        body["response_format"]["json_schema"]["schema"]["properties"]["tags"][keyword] = value.clone();
        refused(&client.chat(&body).await, "response_format", &[keyword, "/properties/tags"]);
        body["stream"] = json!(true);
        refused(&client.chat(&body).await, "response_format", &[keyword]);
        let mut body = asking("auto", false);
        body["tools"][1]["function"]["parameters"]["properties"]["city"][keyword] = value;
        refused(&client.chat(&body).await, "tools", &[keyword, "weather", "/properties/city"]);
    }
    // Nothing about it counts against the backend.
    assert_eq!(client.chat(&asking_for_a_pet(0)).await.status, 200);
}

#[tokio::test]
async fn a_model_without_a_place_for_tools_says_so() {
    let Some(service) = service().await else { return };
    let answer = patient(&service).chat(&asking("auto", false)).await;
    assert_eq!((answer.status, answer.error_param().as_str()), (400, "tools"), "{}", answer.body_text());
}

/// A question with two tools at hand.
fn asking(choice: impl Into<Value>, stream: bool) -> Value {
    let city = json!({"type": "string", "minLength": 1, "maxLength": 24});
    let mut body = ask("What is the weather in Paris?");
    body["tools"] = json!([
        {"type": "function", "function": {"name": "clock", "description": "Tells the time."}},
        {"type": "function", "function": {
            "name": "weather", "description": "Tells the weather of a city.", "strict": true,
            "parameters": {
                "type": "object",
                "properties": {"city": city, "unit": {"enum": ["celsius", "fahrenheit"]}},
                "required": ["city", "unit"],
                "additionalProperties": false,
            },
        }},
    ]);
    body["tool_choice"] = choice.into();
    body["stream"] = json!(stream);
    body["max_tokens"] = json!(300);
    body["temperature"] = json!(1);
    body
}

/// Name and arguments of a call, checked against the tool's schema.
fn checked(name: &str, arguments: &str) {
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    let given: Vec<_> = arguments.as_object().unwrap().keys().map(String::as_str).collect();
    match name {
        "clock" => assert!(given.is_empty(), "{arguments}"),
        "weather" => {
            assert_eq!(given, ["city", "unit"]);
            let city = arguments["city"].as_str().unwrap().chars().count();
            assert!((1..=24).contains(&city), "{arguments}");
            assert!(["celsius", "fahrenheit"].iter().any(|unit| arguments["unit"] == *unit), "{arguments}");
        }
        other => panic!("there is no function {other}"),
    }
}

/// The names of an answer's calls, each checked.
fn calls(choice: &Value) -> Vec<String> {
    let calls = choice["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for call in &calls {
        assert_eq!(call["type"], "function");
        assert!(call["id"].as_str().is_some_and(|id| id.starts_with("call_")), "{call}");
        let name = call["function"]["name"].as_str().unwrap();
        checked(name, call["function"]["arguments"].as_str().unwrap());
        names.push(name.to_owned());
    }
    names
}

#[tokio::test]
async fn tools_are_called_as_the_choice_says() {
    let Some((service, _model)) = with_tools().await else { return };
    let client = patient(&service);
    let weather = json!({"type": "function", "function": {"name": "weather"}});
    for seed in 0..2 {
        for choice in [json!("none"), json!("auto"), json!("required"), weather.clone()] {
            let mut body = asking(choice.clone(), false);
            body["seed"] = json!(seed);
            body["parallel_tool_calls"] = json!(seed % 2 == 0);
            if choice == "none" || choice == "auto" {
                body["max_tokens"] = json!(60);
            }
            let answer = client.chat(&body).await;
            assert_eq!(answer.status, 200, "{}", answer.body_text());
            let first = &answer.json()["choices"][0];
            let (called, reason) = (calls(first), &first["finish_reason"]);
            match choice.as_str() {
                Some("none") => assert!(called.is_empty() && reason != "tool_calls", "{first}"),
                // It may call, or answer; either way the reason says which, unless the limit cut it.
                Some("auto") if called.is_empty() => assert_ne!(reason, "tool_calls", "{first}"),
                Some("required" | "auto") => assert_eq!(reason, "tool_calls", "{first}"),
                _ => assert_eq!(
                    (called.as_slice(), reason),
                    (&["weather".to_owned()][..], &json!("tool_calls"))
                ),
            }
            let most = if seed % 2 == 0 { 16 } else { 1 };
            assert!(called.len() <= most, "{called:?}");
        }
    }
}

#[tokio::test]
async fn a_call_is_streamed_in_parts_that_make_it_up() {
    let Some((service, _model)) = with_tools().await else { return };
    let mut body = asking("required", true);
    body["parallel_tool_calls"] = json!(false);
    let stream = patient(&service).stream(&body).await.collect().await;
    assert!(stream.done() && stream.finish_reason() == "tool_calls", "{stream:?}");
    let deltas = stream.events.iter().flat_map(|event| {
        event.json()["choices"][0]["delta"]["tool_calls"].as_array().cloned().unwrap_or_default()
    });
    let deltas: Vec<Value> = deltas.collect();
    assert!(deltas.len() > 1, "{deltas:?}");
    assert!(deltas.iter().all(|delta| delta["index"] == 0));
    assert!(deltas[0]["id"].is_string() && deltas[0]["type"] == "function", "{}", deltas[0]);
    assert!(deltas[1..].iter().all(|delta| delta["id"].is_null() && delta["function"]["name"].is_null()));
    let arguments: String =
        deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
    checked(deltas[0]["function"]["name"].as_str().unwrap(), &arguments);
}

#[tokio::test]
async fn the_result_of_a_call_is_answered() {
    let Some((service, _model)) = with_tools().await else { return };
    let mut body = asking("none", false);
    body["max_tokens"] = json!(24);
    let call = json!({"id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Paris\", \"unit\": \"celsius\"}"}});
    let turns = [
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "call_1", "content": "18 degrees and rain"}),
    ];
    body["messages"].as_array_mut().unwrap().extend(turns);
    let answer = patient(&service).chat(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    assert!(!answer.text().is_empty());
}
