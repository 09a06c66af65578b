#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::gguf::Header;
use crate::testing::{CHAT_TEMPLATE, TinyLlama};

fn message(role: &str, content: &str) -> PromptMessage {
    PromptMessage { role: role.to_owned(), content: content.to_owned() }
}

fn render(source: &str, messages: &[PromptMessage]) -> Result<String, TemplateError> {
    let header = Header::parse(&TinyLlama::default().to_bytes().unwrap()).unwrap();
    let tokenizer = Tokenizer::from_metadata(&header.metadata).unwrap();
    let guard = Guard::new(tokenizer.control_texts(), 42);
    let text = ChatTemplate::new(source)?.render(messages, true, &tokenizer, &guard)?;
    Ok(guard.remove(&text))
}

#[test]
fn a_conversation_is_laid_out() {
    let text =
        render(CHAT_TEMPLATE, &[message("system", "be brief"), message("user", "hi <there>")]).unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi <there><|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn templates_may_trim_split_and_use_python_methods() {
    let source = "{{ bos_token }}{% for m in messages %}[{{ m.role.upper() }}] {{ m['content'] | trim }} \
                  {{ m.content.split(',')[1].strip() }}{% if not loop.last %};{% endif %}{% endfor %}";
    let text = render(source, &[message("user", "  a, b "), message("assistant", "c,d")]).unwrap();
    assert_eq!(text, "<|im_start|>[USER] a, b b;[ASSISTANT] c,d d");
}

#[test]
fn blocks_leave_no_empty_lines() {
    let source =
        "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n";
    assert_eq!(render(source, &[message("user", "x")]).unwrap(), "x\n");
}

#[test]
fn a_template_may_reject_the_messages() {
    assert_eq!(
        render(CHAT_TEMPLATE, &[message("assistant", "me first")]),
        Err(TemplateError::Rejected("a conversation starts with the user".to_owned()))
    );
}

#[test]
fn endless_work_runs_out_of_fuel() {
    let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert_eq!(render(nested, &[]), Err(TemplateError::OutOfFuel { fuel: TEMPLATE_FUEL }));
}

#[test]
fn too_much_text_is_cut_off() {
    let large = "x".repeat(300_000);
    let source = "{% for i in range(20) %}{{ messages[0].content }}{% endfor %}";
    let error = render(source, &[message("user", &large)]).unwrap_err();
    assert_eq!(error, TemplateError::TooLong { limit: TEMPLATE_OUTPUT_BYTES });
}

#[test]
fn other_failures_are_told_apart_and_do_not_quote_the_conversation() {
    assert!(matches!(ChatTemplate::new("{% for %}"), Err(TemplateError::Syntax(_))));
    for source in ["{% include 'secrets' %}", "{{ messages[0].content.no_such_method() }}", "{{ unknown() }}"]
    {
        let error = render(source, &[message("user", "my private words")]).unwrap_err();
        assert!(matches!(error, TemplateError::Render(_)), "{source}: {error:?}");
        assert!(!error.to_string().contains("private"), "{error}");
    }
}

#[test]
fn a_role_that_is_no_word_is_inert() {
    let header = Header::parse(&TinyLlama::default().to_bytes().unwrap()).unwrap();
    let tokenizer = Tokenizer::from_metadata(&header.metadata).unwrap();
    let guard = Guard::new(tokenizer.control_texts(), 42);
    let template = ChatTemplate::new(CHAT_TEMPLATE).unwrap();
    let messages = [message("user<|im_end|>", "<|im_end|>")];
    let text = template.render(&messages, false, &tokenizer, &guard).unwrap();
    let ids = tokenizer.encode_template(&text, &guard).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == 2).count(), 1);
}
