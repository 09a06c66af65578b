//! The fake upstreams do on the wire what their scripts say.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use opossum_testkit::{Client, End, Script, Step, Upstream, ask, ask_stream, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_good_answer_is_whole_or_streamed_as_asked() {
    let up = Upstream::openai().text("hello big world").start();
    let client = Client::new(up.addr()).with("authorization", "Bearer k1");
    assert_eq!(client.chat(&ask("x")).await.text(), "hello big world");
    let streamed = client.stream(&ask_stream("x")).await.collect().await;
    assert_eq!(streamed.text(), "hello big world");
    assert!(streamed.done() && streamed.end == End::Clean);
    assert_eq!(streamed.finish_reason(), "stop");
    let seen = up.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].key.as_deref(), Some("k1"));
    assert!(!seen[0].stream && seen[1].stream);
    assert_eq!(seen[1].body["messages"][0]["content"], "x");
    // The upstream writes the end down beside the last piece, which the client may have by then.
    let whole = async || up.seen().iter().all(|s| s.aborted_after.is_none() && s.ended.is_some());
    assert!(eventually(SOON, whole).await, "{:?}", up.seen());
}

#[tokio::test]
async fn gemini_and_ollama_speak_their_own_protocols() {
    let gemini = Upstream::gemini().text("hi").start();
    let client = Client::new(gemini.addr()).with("x-goog-api-key", "g");
    let whole = client.post("/v1beta/models/m1:generateContent", &json!({})).await.json();
    assert_eq!(whole["candidates"][0]["content"]["parts"][0]["text"], "hi");
    assert_eq!(client.get("/v1beta/models").await.json()["models"][0]["name"], "models/gemini-2.5-flash");
    assert_eq!((gemini.calls(), gemini.probes().len()), (1, 1));
    assert_eq!(gemini.seen()[0].model, "m1");

    let ollama = Upstream::ollama().text("a b").start();
    let client = Client::new(ollama.addr());
    let lines = client.post("/api/chat", &json!({"model": "m"})).await.body_text();
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(lines.lines().last().unwrap().contains("\"done\":true"));
    let whole = client.post("/api/generate", &json!({"model": "m", "stream": false})).await.json();
    assert_eq!(whole["response"], "a b");
}

#[tokio::test]
async fn an_echo_repeats_the_last_message_in_every_dialect() {
    let client = |up: &Upstream| Client::new(up.addr());
    let openai = Upstream::openai().script(Script::echo()).start();
    assert_eq!(client(&openai).chat(&ask("again")).await.text(), "again");
    let gemini = Upstream::gemini().script(Script::echo()).start();
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "again"}]}]});
    let answer = client(&gemini).post("/v1beta/models/m:generateContent", &body).await.json();
    assert_eq!(answer["candidates"][0]["content"]["parts"][0]["text"], "again");
    let ollama = Upstream::ollama().script(Script::echo()).start();
    let body = json!({"model": "m", "prompt": "again", "stream": false});
    assert_eq!(client(&ollama).post("/api/generate", &body).await.json()["response"], "again");
}

#[tokio::test]
async fn a_queue_of_scripts_comes_before_the_default() {
    let up = Upstream::openai().text("good").first([Script::status(500), Script::html()]).start();
    let client = Client::new(up.addr());
    assert_eq!(client.chat(&ask("x")).await.status, 500);
    assert_eq!(client.chat(&ask("x")).await.header("content-type"), Some("text/html"));
    assert_eq!(client.chat(&ask("x")).await.text(), "good");
    up.set_cycle(vec![Script::status(503), Script::text("even")]);
    up.set_model("other", Script::status(404));
    assert_eq!(client.chat(&ask("x")).await.status, 503);
    assert_eq!(client.chat(&ask("x")).await.text(), "even");
    let mut other = ask("x");
    other["model"] = json!("other");
    assert_eq!(client.chat(&other).await.status, 404);
}

#[tokio::test]
async fn a_cut_a_clean_end_and_a_reset_look_as_they_should() {
    let scripts = [Script::cut_after(2), Script::eof_without_finish(2), Script::reset()];
    let up = Upstream::openai().first(scripts).start();
    let client = Client::new(up.addr());
    let cut = client.stream(&ask_stream("x")).await.collect().await;
    assert_eq!((cut.end, cut.text().as_str(), cut.has_done()), (End::Cut, "word0 word1 ", false));
    let eof = client.stream(&ask_stream("x")).await.collect().await;
    assert_eq!((eof.end, eof.finish_reason().as_str(), eof.has_done()), (End::Clean, "", false));
    let reset = client.try_call("POST", "/v1/chat/completions", Some(b"{}")).await;
    assert_eq!(reset.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_whole_answer_can_be_cut_too() {
    let up = Upstream::openai().first([Script::cut_after(2)]).start();
    up.set_default(Script::new().then(Step::SplitEvery(1)).chunks(&["gr", "ü", "n"]).finish("length"));
    let client = Client::new(up.addr());
    let cut = client.try_call("POST", "/v1/chat/completions", Some(b"{}")).await;
    assert_eq!(cut.expect_err("cut").kind(), std::io::ErrorKind::UnexpectedEof);
    let whole = client.chat(&ask("x")).await;
    assert_eq!(whole.text(), "grün");
    assert_eq!(whole.json()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_caller_who_leaves_is_noticed_at_once() {
    let up = Upstream::openai().script(Script::stall_after(1)).start();
    let client = Client::new(up.addr());
    for reset in [false, true] {
        let mut stream = client.stream(&ask_stream("x")).await;
        assert_eq!(stream.next_text().await.as_deref(), Some("word0 "));
        let left = std::time::Instant::now();
        if reset {
            stream.reset().unwrap();
        } else {
            stream.leave();
        }
        let index = usize::from(reset);
        let after = up.wait_abort(index, SOON).await.expect("the caller left");
        let noticed = up.seen()[index].at + after;
        assert!(noticed.saturating_duration_since(left) < Duration::from_millis(200));
    }
}

#[tokio::test]
async fn a_killed_upstream_refuses_until_it_is_back() {
    let mut up = Upstream::openai().start();
    let client = Client::new(up.addr());
    assert_eq!(client.chat(&ask("x")).await.status, 200);
    up.stop();
    let refused = client.try_call("GET", "/v1/models", None).await;
    assert_eq!(refused.expect_err("refused").kind(), std::io::ErrorKind::ConnectionRefused);
    up.restart();
    assert_eq!(client.chat(&ask("x")).await.status, 200);
    assert_eq!(up.calls(), 2);
}
