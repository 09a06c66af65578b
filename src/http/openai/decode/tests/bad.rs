//! Faults H1, H5 and S2: each bad body is refused with its code and its field.

use super::*;

#[test]
fn broken_json_is_invalid_json() {
    for body in [
        "",
        " ",
        "null",
        "[]",
        "3",
        "\"text\"",
        "{",
        "{\"model\"",
        "{} {}",
        "{,}",
        "{\"model\":\"auto\",}",
        "\u{feff}{}",
        "{'model':'auto'}",
    ] {
        let error = bad(body);
        assert_eq!(error.code(), Code::InvalidJson, "{body:?}: {error}");
    }
}

#[test]
fn broken_values_are_invalid_json_and_name_the_field() {
    refused(chat_with(r#","temperature":1e400"#), Code::InvalidJson, "temperature");
    refused(chat_with(r#","temperature":NaN"#), Code::InvalidJson, "temperature");
    refused(chat_with(r#","temperature":-Infinity"#), Code::InvalidJson, "temperature");
    refused(chat_with(r#","user":"\ud800""#), Code::InvalidJson, "user");
    refused(chat_of(r#"[{"role":"user","content":"\udc00"}]"#), Code::InvalidJson, "messages");
    refused(chat_of(r#"[{"role":"user","content":"a"#), Code::InvalidJson, "messages");
    refused(chat_of("[{\"role\":\"user\",\"content\":\"a\nb\"}]"), Code::InvalidJson, "messages");
    refused(chat_with(r#","metadata":{"deep":[{"x":"\ud83d"}]}"#), Code::InvalidJson, "metadata");
    refused(chat_with(r#","metadata":{"deep":[1e400]}"#), Code::InvalidJson, "metadata");
}

#[test]
fn bytes_that_are_not_utf8_are_invalid_json_wherever_they_are() {
    for place in [r#""user":"X""#, r#""X":1"#, r#""metadata":{"X":"y"}"#] {
        let mut body = chat_with(&format!(",{place}")).into_bytes();
        let at = body.iter().rposition(|byte| *byte == b'X').unwrap();
        body[at] = 0xff;
        let error = bad(&body);
        assert_eq!(error.code(), Code::InvalidJson);
        assert!(error.message.ends_with(&format!("at byte {at}.")), "{error}");
    }
}

/// Nested arrays, `depth` of them.
fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn nesting_is_bounded_at_127_everywhere() {
    // One level is the body itself.
    good(&chat_with(&format!(r#","metadata":{{"x":{}}}"#, nested(125))));
    refused(chat_with(&format!(r#","metadata":{{"x":{}}}"#, nested(126))), Code::InvalidJson, "metadata");
    let deepest = nested(100_000);
    assert_eq!(bad(chat_with(&format!(r#","nonsense":{deepest}"#))).code(), Code::InvalidJson);
    assert_eq!(bad(chat_with(&format!(r#","logit_bias":{deepest}"#))).code(), Code::InvalidValue);
    // Five levels around the arrays: body, tools, tool, function, schema.
    let schema = |depth| {
        chat_with(&format!(
            r#","tools":[{{"type":"function","function":{{"name":"f","parameters":{{"x":{}}}}}}}]"#,
            nested(depth)
        ))
    };
    good(&schema(122));
    refused(schema(123), Code::InvalidJson, "tools[0].function.parameters");
    refused(schema(100_000), Code::InvalidJson, "tools[0].function.parameters");
}

#[test]
fn a_schema_is_checked_as_json_to_its_last_byte() {
    for inside in [r#""\ud800""#, "1e400"] {
        let body = chat_with(&format!(
            r#","response_format":{{"type":"json_schema","json_schema":{{"name":"n","schema":{{"default":{inside}}}}}}}"#
        ));
        refused(body, Code::InvalidJson, "response_format.json_schema.schema");
    }
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    refused(chat_with(r#","model":"other""#), Code::InvalidJson, "model");
    refused(chat_with(r#","n":1,"n":2"#), Code::InvalidJson, "n");
    refused(chat_with(r#","user":null,"user":null"#), Code::InvalidJson, "user");
    // The same key with an escape in it is the same key.
    refused(chat_with(r#","\u006dodel":"other""#), Code::InvalidJson, "model");
    refused(
        chat_of(r#"[{"role":"user","content":"a"},{"role":"user","content":"b","role":"system"}]"#),
        Code::InvalidJson,
        "messages[1].role",
    );
}

#[test]
fn missing_fields_are_named() {
    refused("{}", Code::MissingParameter, "model");
    refused(r#"{"model":null,"messages":[]}"#, Code::MissingParameter, "model");
    refused(r#"{"model":"auto"}"#, Code::MissingParameter, "messages");
    refused(r#"{"model":"auto","messages":null}"#, Code::MissingParameter, "messages");
    for (message, param) in [
        (r#"{"content":"a"}"#, "messages[0].role"),
        (r#"{"role":"user"}"#, "messages[0].content"),
        (r#"{"role":"user","content":null}"#, "messages[0].content"),
        (r#"{"role":"assistant","content":null}"#, "messages[0].content"),
        (r#"{"role":"assistant","tool_calls":[]}"#, "messages[0].content"),
        (r#"{"role":"tool","content":"a"}"#, "messages[0].tool_call_id"),
        (r#"{"role":"user","content":[{"text":"a"}]}"#, "messages[0].content[0].type"),
        (r#"{"role":"user","content":[{"type":"text"}]}"#, "messages[0].content[0].text"),
        (r#"{"role":"user","content":[{"type":"image_url"}]}"#, "messages[0].content[0].image_url"),
        (r#"{"role":"assistant","tool_calls":[{"id":"1"}]}"#, "messages[0].tool_calls[0].function"),
        (
            r#"{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f"}}]}"#,
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        refused(chat_of(&format!("[{message}]")), Code::MissingParameter, param);
    }
}

#[test]
fn wrong_values_are_named() {
    for (fields, param) in [
        (r#","temperature":3"#, "temperature"),
        (r#","temperature":-0.1"#, "temperature"),
        (r#","temperature":"NaN""#, "temperature"),
        (r#","temperature":[]"#, "temperature"),
        (r#","top_p":0"#, "top_p"),
        (r#","top_p":1.01"#, "top_p"),
        (r#","top_k":0"#, "top_k"),
        (r#","n":0"#, "n"),
        (r#","n":1000000000"#, "n"),
        (r#","n":1.5"#, "n"),
        (r#","n":"1""#, "n"),
        (r#","max_tokens":-1"#, "max_tokens"),
        (r#","max_tokens":0"#, "max_tokens"),
        (r#","max_tokens":2147483648"#, "max_tokens"),
        (r#","max_tokens":99999999999999999999999"#, "max_tokens"),
        (r#","max_completion_tokens":true"#, "max_completion_tokens"),
        (r#","max_tokens":5,"max_completion_tokens":6"#, "max_completion_tokens"),
        (r#","presence_penalty":2.1"#, "presence_penalty"),
        (r#","frequency_penalty":-2.1"#, "frequency_penalty"),
        (r#","seed":9223372036854775808"#, "seed"),
        (r#","seed":1.5"#, "seed"),
        (r#","stop":"""#, "stop"),
        (r#","stop":["a",""]"#, "stop[1]"),
        (r#","stop":["a",null]"#, "stop[1]"),
        (r#","stop":[1]"#, "stop[0]"),
        (r#","stop":{}"#, "stop"),
        (r#","top_logprobs":3"#, "top_logprobs"),
        (r#","logprobs":true,"top_logprobs":21"#, "top_logprobs"),
        (r#","logprobs":5"#, "logprobs"),
        (r#","logit_bias":[]"#, "logit_bias"),
        (r#","logit_bias":{"5":101}"#, "logit_bias"),
        (r#","logit_bias":{"5":"1"}"#, "logit_bias"),
        (r#","logit_bias":{"hello":1}"#, "logit_bias"),
        (r#","stream":1"#, "stream"),
        (r#","stream_options":{"include_usage":true}"#, "stream_options"),
        (r#","stream":true,"stream_options":{"include_usage":1}"#, "stream_options.include_usage"),
        (r#","reasoning_effort":"huge""#, "reasoning_effort"),
        (r#","response_format":"json""#, "response_format"),
        (r#","response_format":{"type":"xml"}"#, "response_format.type"),
        (r#","metadata":3"#, "metadata"),
        (r#","parallel_tool_calls":"no""#, "parallel_tool_calls"),
        (r#","tools":{}"#, "tools"),
        (r#","tools":[3]"#, "tools[0]"),
        (r#","tool_choice":"must""#, "tool_choice"),
        (r#","tool_choice":"required""#, "tool_choice"),
        (r#","tool_choice":{"type":"function","function":{"name":"f"}}"#, "tool_choice"),
    ] {
        refused(chat_with(fields), Code::InvalidValue, param);
    }
    refused(r#"{"model":"","messages":[]}"#, Code::InvalidValue, "model");
    refused(r#"{"model":7,"messages":[]}"#, Code::InvalidValue, "model");
    let long = "é".repeat(257);
    refused(chat_with(&format!(r#","user":"{long}""#)), Code::InvalidValue, "user");
}

#[test]
fn wrong_messages_are_named() {
    refused(chat_of("[]"), Code::InvalidValue, "messages");
    refused(chat_of("{}"), Code::InvalidValue, "messages");
    for (message, param) in [
        ("null", "messages[0]"),
        ("3", "messages[0]"),
        (r#"{"role":"robot","content":"a"}"#, "messages[0].role"),
        (r#"{"role":"function","content":"a"}"#, "messages[0].role"),
        (r#"{"role":"user","content":3}"#, "messages[0].content"),
        (r#"{"role":"user","content":[]}"#, "messages[0].content"),
        (r#"{"role":"user","content":["a"]}"#, "messages[0].content[0]"),
        (r#"{"role":"user","content":[{"type":"video"}]}"#, "messages[0].content[0].type"),
        (
            r#"{"role":"user","content":"a","tool_calls":[{"id":"1","function":{"name":"f","arguments":""}}]}"#,
            "messages[0].tool_calls",
        ),
        (r#"{"role":"user","content":"a","tool_call_id":"1"}"#, "messages[0].tool_call_id"),
        (r#"{"role":"tool","content":"a","tool_call_id":""}"#, "messages[0].tool_call_id"),
        (
            r#"{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":{}}}]}"#,
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"id":"","function":{"name":"f","arguments":""}}]}"#,
            "messages[0].tool_calls[0].id",
        ),
    ] {
        refused(chat_of(&format!("[{message}]")), Code::InvalidValue, param);
    }
}

#[test]
fn wrong_tools_are_named() {
    let tool =
        |function: &str| chat_with(&format!(r#","tools":[{{"type":"function","function":{function}}}]"#));
    refused(tool("{}"), Code::MissingParameter, "tools[0].function.name");
    refused(tool(r#"{"name":""}"#), Code::InvalidValue, "tools[0].function.name");
    refused(tool(r#"{"name":"a b"}"#), Code::InvalidValue, "tools[0].function.name");
    refused(
        tool(&format!(r#"{{"name":"{}"}}"#, "a".repeat(65))),
        Code::InvalidValue,
        "tools[0].function.name",
    );
    refused(tool(r#"{"name":"f","parameters":[]}"#), Code::InvalidValue, "tools[0].function.parameters");
    refused(tool(r#"{"name":"f","strict":1}"#), Code::InvalidValue, "tools[0].function.strict");
    refused(
        chat_with(
            r#","tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}]"#,
        ),
        Code::InvalidValue,
        "tools[1].function.name",
    );
    refused(chat_with(r#","tools":[{"type":"custom"}]"#), Code::UnsupportedParameter, "tools[0].type");
    refused(
        chat_with(
            r#","tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}}"#,
        ),
        Code::InvalidValue,
        "tool_choice",
    );
    refused(
        chat_with(r#","response_format":{"type":"json_schema"}"#),
        Code::MissingParameter,
        "response_format.json_schema",
    );
    refused(
        chat_with(r#","response_format":{"type":"json_schema","json_schema":{"name":"n"}}"#),
        Code::MissingParameter,
        "response_format.json_schema.schema",
    );
    refused(
        chat_with(r#","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":true}}"#),
        Code::InvalidValue,
        "response_format.json_schema.schema",
    );
}

#[test]
fn too_many_of_anything_is_refused_before_it_is_kept() {
    let many = |count: usize, one: &str| format!("[{}]", vec![one; count].join(","));
    let message = r#"{"role":"user","content":"a"}"#;
    good(&chat_of(&many(4096, message)));
    refused(chat_of(&many(4097, message)), Code::InvalidValue, "messages");
    refused(chat_of(&many(1_000_000, "{}")), Code::MissingParameter, "messages[0].role");
    good(&chat_with(&format!(r#","stop":{}"#, many(16, "\"x\""))));
    refused(chat_with(&format!(r#","stop":{}"#, many(100_000, "\"x\""))), Code::InvalidValue, "stop");
    good(&chat_with(&format!(r#","stop":"{}""#, "x".repeat(256))));
    refused(chat_with(&format!(r#","stop":"{}""#, "x".repeat(257))), Code::InvalidValue, "stop");
    let tool = |i: usize| format!(r#"{{"type":"function","function":{{"name":"f{i}"}}}}"#);
    let tools = |count: usize| (0..count).map(tool).collect::<Vec<_>>().join(",");
    good(&chat_with(&format!(r#","tools":[{}]"#, tools(256))));
    refused(chat_with(&format!(r#","tools":[{}]"#, tools(257))), Code::InvalidValue, "tools");
    let image = r#"{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}"#;
    let pictures =
        |count| chat_of(&format!(r#"[{message},{{"role":"user","content":{}}}]"#, many(count, image)));
    good(&pictures(8));
    refused(pictures(9), Code::InvalidValue, "messages[1].content");
}

#[test]
fn what_cannot_be_honoured_is_named() {
    for name in [
        "api_base",
        "api_key",
        "base_url",
        "functions",
        "function_call",
        "audio",
        "prediction",
        "verbosity",
        "web_search_options",
        "min_p",
        "Temperature",
    ] {
        refused(
            chat_with(&format!(r#","{name}":"http://attacker.example/""#)),
            Code::UnsupportedParameter,
            name,
        );
    }
    for (fields, param) in [
        (r#","modalities":["text","audio"]"#, "modalities"),
        (r#","store":true"#, "store"),
        (r#","service_tier":"flex""#, "service_tier"),
        (
            r#","stream":true,"stream_options":{"include_obfuscation":true}"#,
            "stream_options.include_obfuscation",
        ),
        (r#","stream":true,"stream_options":{"x":1}"#, "stream_options.x"),
        (r#","response_format":{"type":"text","x":1}"#, "response_format.x"),
    ] {
        refused(chat_with(fields), Code::UnsupportedParameter, param);
    }
    for (message, param) in [
        (r#"{"role":"user","content":"a","mood":"b"}"#, "messages[0].mood"),
        (r#"{"role":"assistant","content":"a","function_call":{}}"#, "messages[0].function_call"),
        (
            r#"{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}"#,
            "messages[0].content[0].input_audio",
        ),
        (r#"{"role":"user","content":[{"type":"file"}]}"#, "messages[0].content[0].type"),
    ] {
        refused(chat_of(&format!("[{message}]")), Code::UnsupportedParameter, param);
    }
    let error = bad(chat_with(r#","functions":[]"#));
    assert!(error.message.contains("tools"), "{error}");
}

#[test]
fn a_model_is_a_name_and_never_an_address() {
    let body = r#"{"model":"http://169.254.169.254/v1","messages":[{"role":"user","content":"a"}]}"#;
    refused(body, Code::UnsupportedParameter, "model");
}

#[test]
fn a_hostile_key_is_repeated_short_and_on_one_line() {
    let body = chat_with(&format!(r#","x\r\n\u001b[31m{}":1"#, "y".repeat(5000)));
    let error = bad(body);
    assert_eq!(error.code(), Code::UnsupportedParameter);
    let param = error.param.as_deref().unwrap();
    assert!(param.starts_with("x\\r\\n\\u{1b}[31m") && param.len() < 120, "{param}");
    assert!(!error.message.contains(['\r', '\n', '\u{1b}']) && error.message.len() < 250);
}

#[test]
fn completions_take_one_prompt() {
    for fields in ["[]", "[\"a\",\"b\"]", "[1,2,3]", "[[1,2]]", "3", "{}"] {
        let body = format!(r#"{{"model":"auto","prompt":{fields}}}"#);
        refused_completion(&body, Code::InvalidValue, "prompt");
    }
    refused_completion(r#"{"model":"auto"}"#, Code::MissingParameter, "prompt");
    refused_completion(&completion_with(r#","logprobs":6"#), Code::InvalidValue, "logprobs");
    refused_completion(&completion_with(r#","logprobs":true"#), Code::InvalidValue, "logprobs");
    refused_completion(&completion_with(r#","best_of":2"#), Code::UnsupportedParameter, "best_of");
    refused_completion(&completion_with(r#","messages":[]"#), Code::UnsupportedParameter, "messages");
    refused_completion(&completion_with(r#","echo":"yes""#), Code::InvalidValue, "echo");
}
