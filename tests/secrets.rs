//! Keys and prompts stay where they belong: in no log, no metric, no error, whatever goes wrong.

use opossum_testkit::{Script, Service, Upstream, ask, ask_stream};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const KEYS: [&str; 3] = ["sk-canary-openai-51f0", "AIza-canary-gemini-7c2e", "canary-secret-key-9d4b"];
const PROMPT: &str = "canary-prompt-c0ffee";
const ANSWER: &str = "canary-answer-ba0bab";

fn script(what: &str, key: &str) -> Script {
    // An upstream that quotes the key it was given, as some do when they refuse it.
    let quoting = |code: u16| {
        let message = format!("Incorrect API key provided: {key}");
        let body = json!({"error": {"message": message, "code": "invalid_api_key", "status": "X"}});
        Script::body(code, "application/json", body.to_string())
    };
    match what {
        "good" => Script::text(ANSWER),
        "refused" => quoting(401),
        "broken" => quoting(500),
        "caller's fault" => quoting(400),
        "a page" => Script::html(),
        "cut" => Script::cut_after(2),
        _ => Script::reset(),
    }
}

#[tokio::test]
async fn no_key_and_no_prompt_is_in_any_output() {
    for level in ["info", "trace"] {
        for what in ["good", "refused", "broken", "caller's fault", "a page", "cut", "reset"] {
            let openai = Upstream::openai().script(script(what, KEYS[0])).start();
            let gemini = Upstream::gemini().script(script(what, KEYS[1])).start();
            let service = Service::of(BIN)
                .quick()
                .openai(&openai)
                .gemini(&gemini)
                .env("OPENAI_API_KEY", KEYS[0])
                .env("GEMINI_API_KEY", KEYS[1])
                .env("SECRET_KEY", KEYS[2])
                .env("LOG_LEVEL", level)
                .start()
                .await;
            service.settled(&["openai", "gemini"]).await;
            let client = service.client().with("authorization", "Bearer sk-canary-caller-1b3d");
            let whole = client.chat(&ask(PROMPT)).await;
            let stream = client.stream(&ask_stream(PROMPT)).await.collect().await;
            let invalid = client.chat(&json!({"model": "auto", "messages": PROMPT})).await;
            // The keys were used, or this test proves nothing.
            let seen: Vec<_> = openai.seen().into_iter().chain(gemini.seen()).filter_map(|s| s.key).collect();
            assert!(!seen.is_empty() && seen.iter().all(|key| KEYS[..2].contains(&key.as_str())), "{seen:?}");
            assert!(openai.seen().iter().chain(&gemini.seen()).all(|s| !s.path.contains("canary")));

            let logs = service.logs();
            assert!(!logs.is_empty());
            for secret in KEYS.iter().chain(&[PROMPT, ANSWER, "sk-canary-caller-1b3d"]) {
                let line = logs.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "{what}, {level}: {secret} is in the log");
            }
            let outputs = [
                whole.body_text(),
                stream.rest + &stream.events.iter().map(|e| e.data.clone()).collect::<String>(),
                invalid.body_text(),
                client.metrics().await.text().to_owned(),
                client.health(true).await.to_string(),
                client.get("/v1/models").await.body_text(),
                client.get("/openapi.json").await.body_text(),
            ];
            for output in outputs {
                assert!(!output.contains(PROMPT), "{what}: {output}");
                let key = KEYS.iter().find(|key| output.contains(**key));
                assert_eq!(key, None, "{what}: {output}");
            }
        }
    }
}
