//! What good bodies become.

use opossum_core::needs::Needs;
use opossum_core::request::{Content, Message, Part, ResponseFormat, Role, ToolChoice};

use super::*;

fn messages(decoded: Decoded) -> Vec<Message> {
    match decoded.request.prompt {
        Prompt::Chat(messages) => messages,
        Prompt::Text { .. } => panic!("not a chat"),
    }
}

#[test]
fn a_plain_chat_has_defaults() {
    let decoded = good(&chat_with(""));
    assert_eq!((decoded.model.as_str(), decoded.stream, decoded.include_usage), ("auto", false, false));
    assert_eq!(decoded.request.needs(), Needs::CHAT);
    assert_eq!(decoded.request.params.n, 1);
    assert!(decoded.request.parallel_tool_calls);
    let messages = messages(decoded);
    assert_eq!((messages[0].role, &messages[0].content), (Role::User, &Content::Text("hi".into())));
}

#[test]
fn null_is_the_same_as_absent() {
    let nulls: String = ChatBody::KEYS
        .iter()
        .filter(|key| !["model", "messages"].contains(key))
        .map(|key| format!(",\"{key}\":null"))
        .collect();
    let decoded = good(&chat_with(&nulls));
    assert_eq!(decoded.request.needs(), Needs::CHAT);
    good_completion(&completion_with(r#","suffix":null,"echo":null,"best_of":null,"logprobs":null"#));
}

#[test]
fn every_parameter_arrives() {
    let decoded = good(&chat_with(
        r#","temperature":2,"top_p":1,"top_k":40,"max_completion_tokens":7,"max_tokens":7.0,"stop":["a","b"],
        "seed":-5,"n":3,"presence_penalty":-2,"frequency_penalty":0.5,"logprobs":true,"top_logprobs":20,
        "logit_bias":{"50256": -100},"reasoning_effort":"xhigh","stream":true,
        "stream_options":{"include_usage":true,"include_obfuscation":false},"user":"u-1",
        "metadata":{"a":"b"},"store":false,"service_tier":"auto","safety_identifier":"s","prompt_cache_key":"p",
        "modalities":["text"],"parallel_tool_calls":false"#,
    ));
    let request = decoded.request;
    let params = request.params;
    assert_eq!((params.temperature, params.top_p, params.top_k), (Some(2.0), Some(1.0), Some(40)));
    assert_eq!((params.max_tokens, params.seed, params.n), (Some(7), Some(-5), 3));
    assert_eq!(params.stop, ["a", "b"]);
    assert_eq!((params.presence_penalty, params.frequency_penalty), (Some(-2.0), Some(0.5)));
    assert_eq!(params.logprobs, Some(20));
    assert_eq!(params.logit_bias.unwrap().get(), r#"{"50256": -100}"#);
    assert_eq!(params.reasoning_effort.as_deref(), Some("xhigh"));
    assert!(decoded.stream && decoded.include_usage && request.stream && !request.parallel_tool_calls);
    assert_eq!(request.user.as_deref(), Some("u-1"));
}

#[test]
fn the_smallest_mass_stays_above_zero() {
    let decoded = good(&chat_with(r#","top_p":1e-300,"seed":9223372036854775807"#));
    assert!(decoded.request.params.top_p.unwrap() > 0.0);
    assert_eq!(decoded.request.params.seed, Some(i64::MAX));
}

#[test]
fn text_is_taken_byte_for_byte() {
    let text = "NUL \0, ANSI \u{1b}[31m, CRLF \r\n, data: [DONE]\n\n, é 漢 🦝 \u{2028}";
    let body = chat_of(&format!(r#"[{{"role":"user","content":{}}}]"#, serde_json::to_string(text).unwrap()));
    assert_eq!(messages(good(&body))[0].content, Content::Text(text.into()));
    // Escapes of characters outside the basic plane are pairs.
    let body = chat_of(r#"[{"role":"user","content":"\ud83e\udd9d"}]"#);
    assert_eq!(messages(good(&body))[0].content, Content::Text("🦝".into()));
}

#[test]
fn a_tool_loop_survives_with_its_signatures() {
    let body = r#"{"model":"gemini/x","messages":[
        {"role":"developer","content":"be brief","name":"boss"},
        {"role":"user","content":"weather?"},
        {"role":"assistant","content":null,"refusal":null,"annotations":[],"audio":null,"function_call":null,
         "reasoning_content":"hm","tool_calls":[{"index":0,"id":"c1","type":"function",
          "function":{"name":"get","arguments":"{\"city\":\"Bonn\"}"},
          "extra_content":{"google":{"thought_signature":"sig=="},"other":1}}]},
        {"role":"tool","tool_call_id":"c1","content":[{"type":"text","text":"rain"}]}],
        "tools":[{"type":"function","function":{"name":"get","description":"d","parameters":{"type": "object"},"strict":true}}],
        "tool_choice":{"type":"function","function":{"name":"get"}}}"#;
    let decoded = good(body);
    let tool = &decoded.request.tools[0];
    assert_eq!((tool.name.as_str(), tool.strict), ("get", Some(true)));
    assert_eq!(
        tool.parameters.as_ref().unwrap().get(),
        r#"{"type": "object"}"#,
        "the schema is not rewritten"
    );
    assert_eq!(decoded.request.tool_choice, ToolChoice::Function("get".into()));
    let messages = messages(decoded);
    assert_eq!((messages[0].role, messages[0].name.as_deref()), (Role::System, Some("boss")));
    assert_eq!(messages[2].content, Content::Empty);
    let call = &messages[2].tool_calls[0];
    assert_eq!((call.id.as_str(), call.name.as_str()), ("c1", "get"));
    assert_eq!(call.arguments, r#"{"city":"Bonn"}"#);
    assert_eq!(call.signature.as_deref(), Some("sig=="));
    assert_eq!(messages[3].tool_call_id.as_deref(), Some("c1"));
    assert_eq!(messages[3].content, Content::Parts(vec![Part::Text("rain".into())]));
}

#[test]
fn an_earlier_refusal_is_the_turns_text() {
    let body = chat_of(
        r#"[{"role":"assistant","content":null,"refusal":"no"},
            {"role":"assistant","content":[{"type":"refusal","refusal":"nor this"}]}]"#,
    );
    let messages = messages(good(&body));
    assert_eq!(messages[0].content, Content::Text("no".into()));
    assert_eq!(messages[1].content, Content::Parts(vec![Part::Text("nor this".into())]));
}

#[test]
fn schemas_may_refer_to_themselves() {
    let decoded = good(&chat_with(
        r##","response_format":{"type":"json_schema","json_schema":{"name":"tree","strict":false,"description":"d",
        "schema":{"$ref":"#/$defs/n","$defs":{"n":{"type":"array","items":{"$ref":"#/$defs/n"}}}}}}"##,
    ));
    let ResponseFormat::JsonSchema { name, schema, strict } = decoded.request.params.response_format else {
        panic!("not a schema")
    };
    assert_eq!((name.as_str(), strict), ("tree", Some(false)));
    assert!(schema.get().starts_with(r##"{"$ref":"#/$defs/n""##));
}

#[test]
fn completions_arrive() {
    let decoded = good_completion(&completion_with(
        r#","suffix":"end","echo":true,"logprobs":5,"best_of":1,"max_tokens":9,"stream":true"#,
    ));
    assert!(
        decoded.request.needs().contains(Needs::COMPLETION | Needs::SUFFIX | Needs::ECHO | Needs::LOGPROBS)
    );
    assert_eq!(decoded.request.params.logprobs, Some(5));
    let Prompt::Text { prompt, suffix, echo } = decoded.request.prompt else { panic!("not a text") };
    assert_eq!((prompt.as_str(), suffix.as_deref(), echo), ("once", Some("end"), true));
    let decoded = good_completion(r#"{"model":"auto","prompt":["only"],"suffix":""}"#);
    let Prompt::Text { prompt, suffix, .. } = decoded.request.prompt else { panic!("not a text") };
    assert_eq!((prompt.as_str(), suffix), ("only", None));
}
