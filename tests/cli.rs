//! The command line promises: results on standard output, exit codes that scripts can rely on, no secret on
//! any of them.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use opossum_testkit::models::{DEFAULT_MODEL_FILE, folder_with};
use opossum_testkit::temp::TempDir;
use opossum_testkit::{RefusedAddr, Script, Service, Upstream};

/// The binary in a folder of its own, with nothing of our environment.
fn opossum(dir: &TempDir, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opossum"));
    command.args(args).current_dir(dir.path()).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let dir = TempDir::new("cli");
    ran(&opossum(&dir, args, env).output().unwrap())
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.code, Some(0));
    for word in ["serve", "models", "chat", "jobs", "config", "openapi", "completions", "Examples:"] {
        assert!(help.out.contains(word), "{word} in\n{}", help.out);
    }
    let version = run(&["--version"], &[]);
    assert_eq!(version.code, Some(0));
    assert!(version.out.starts_with(concat!("opossum ", env!("CARGO_PKG_VERSION"), " (")), "{}", version.out);
    assert!(version.out.contains("devices: cpu"), "{}", version.out);
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &["frobnicate"][..],
        &["models", "pull"],
        &["models"],
        &["--nonsense"],
        &["chat", "--max-tokens", "0"],
        &["jobs"],
        &["jobs", "publish"],
        &["jobs", "publish", "--file", "f", "--timeout-ms", "0"],
        &["jobs", "get"],
    ] {
        let ran = run(args, &[]);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
        assert!(ran.out.is_empty() && ran.err.contains("--help"), "{args:?}: {}", ran.err);
    }
}

/// Fault O5.
#[test]
fn bad_configuration_is_78_and_names_the_key() {
    for (args, env, names) in [
        (&["serve"][..], &[("PORT", "eighty")][..], &["server.port", "PORT"][..]),
        (&[], &[("REQUEST_TIMEOUT", "soon")], &["server.request_timeout", "REQUEST_TIMEOUT"]),
        (&["config", "show"], &[("ENV", "prod")], &["ENV"]),
        (&["config", "check"], &[("ENV", "production")], &["SECRET_KEY"]),
        (&["serve"], &[("ENV", "production")], &["SECRET_KEY"]),
        (&["serve"], &[("ENV", "production"), ("SECRET_KEY", "canary")], &["AUTH"]),
        (&["serve", "--port", "65536"], &[], &["PORT"]),
        (&["serve"], &[("API_KEYS_FILE", "keys.json")], &["AUTH"]),
        (&["models", "list"], &[("GEMINI_API_KEY_FILE", "nowhere")], &["GEMINI_API_KEY_FILE"]),
        (&["--config-dir", "nowhere", "config", "show"], &[], &["nowhere"]),
    ] {
        let ran = run(args, env);
        assert_eq!(ran.code, Some(78), "{args:?} {env:?}: {}", ran.err);
        for name in names {
            assert!(ran.err.contains(name), "{name} in {}", ran.err);
        }
        assert!(!ran.err.contains("canary"), "{}", ran.err);
    }
}

#[test]
fn a_bad_file_is_78_and_is_not_quoted() {
    let dir = TempDir::new("cli");
    std::fs::create_dir(dir.path().join("config")).unwrap();
    std::fs::write(dir.path().join("config/default.toml"), "[gemini]\napi_key = \"canary").unwrap();
    let ran = ran(&opossum(&dir, &["serve"], &[]).output().unwrap());
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert!(ran.err.contains("default.toml") && !ran.err.contains("canary"), "{}", ran.err);
}

#[test]
fn config_show_tells_values_and_redacts_secrets() {
    let env = [
        ("PORT", "9001"),
        ("GEMINI_API_KEY", "canary"),
        ("REDIS_URL", "redis://:canary@h/0"),
        ("HOST", "0.0.0.0"),
    ];
    for args in [&["config", "show"][..], &["config", "show", "--json"]] {
        let ran = run(args, &env);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("9001") && ran.out.contains("GEMINI_API_KEY"), "{}", ran.out);
        assert!(!ran.out.contains("canary") && !ran.err.contains("canary"));
        assert!(ran.err.contains("127.0.0.1 only"), "{}", ran.err);
    }
    let json = run(&["config", "show", "--json"], &env);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json.out).unwrap();
    let port = rows.iter().find(|row| row["key"] == "server.port").unwrap();
    assert_eq!((&port["env"], &port["value"]), (&"PORT".into(), &"9001".into()));
}

#[test]
fn config_check_says_whether_the_service_would_start() {
    let good = run(&["config", "check"], &[("ENV", "production"), ("SECRET_KEY", "s"), ("AUTH", "off")]);
    assert_eq!((good.code, good.out.contains("production")), (Some(0), true), "{}", good.err);
}

#[test]
fn the_documentation_can_be_printed() {
    let docs = run(&["config", "docs"], &[]);
    assert_eq!(docs.out, opossum::settings::markdown());
}

#[test]
fn openapi_and_completions_print_documents() {
    let document = run(&["openapi"], &[]);
    let json: serde_json::Value = serde_json::from_str(&document.out).unwrap();
    assert!(json["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], &[]);
        assert_eq!(script.code, Some(0));
        assert!(script.out.contains("opossum"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = TempDir::new("cli");
    let mut child = opossum(&dir, &["completions", "bash"], &[]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn models_are_listed_verified_and_removed() {
    let dir = TempDir::new("cli");
    let models = dir.path().join("models");
    let go = |args: &[&str]| ran(&opossum(&dir, args, &[]).output().unwrap());
    let none = go(&["models", "list"]);
    assert_eq!(none.code, Some(0), "{}", none.err);
    assert!(none.out.contains("smollm2-135m-instruct") && none.out.contains("not pulled"), "{}", none.out);
    assert_eq!(go(&["models", "verify"]).code, Some(0));

    std::fs::create_dir(&models).unwrap();
    std::fs::write(models.join("mine.gguf"), b"GGUF, but not really").unwrap();
    assert!(go(&["models", "list"]).out.contains("mine"));
    for args in
        [&["models", "verify"][..], &["models", "verify", "mine"], &["models", "verify", "models/mine.gguf"]]
    {
        let refused = go(args);
        assert_eq!(refused.code, Some(1), "{args:?}");
        assert!(refused.err.contains("refused") && refused.err.contains("mine.gguf"), "{}", refused.err);
    }
    assert_eq!(go(&["models", "verify", "nothing"]).code, Some(1));
    assert_eq!(go(&["models", "remove", "mine"]).code, Some(0));
    assert!(!models.join("mine.gguf").exists());
    assert_eq!(go(&["models", "remove", "mine"]).code, Some(1));
    let unknown = go(&["models", "pull", "no-such-model"]);
    assert_eq!((unknown.code, unknown.err.contains("no-such-model")), (Some(1), true));
}

#[test]
fn chat_asks_a_service_and_streams_the_answer() {
    let upstream = Upstream::openai().text("hello from the other side").start();
    let ran = run(
        &["chat", "hi", "--url", &upstream.base_url(), "--system", "be kind"],
        &[("OPOSSUM_API_KEY", "canary")],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.out, "hello from the other side\n");
    let seen = upstream.seen();
    assert_eq!((seen.len(), seen[0].model.as_str(), seen[0].stream), (1, "auto", true));
    assert_eq!(seen[0].key.as_deref(), Some("canary"));
    assert_eq!(seen[0].body["messages"][0]["role"], "system");
    assert_eq!(seen[0].body["messages"][1]["content"], "hi");
}

#[test]
fn chat_reads_its_prompt_from_a_pipe() {
    let upstream = Upstream::openai().text("read").start();
    let dir = TempDir::new("cli");
    let url = upstream.base_url();
    let mut command = opossum(&dir, &["chat", "--url", &url], &[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a long text").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"read\n");
    assert_eq!(upstream.seen()[0].body["messages"][0]["content"], "a long text");
}

#[test]
fn chat_fails_with_1_when_nobody_answers_well() {
    let refused = RefusedAddr::new();
    let nobody = run(&["chat", "hi", "--url", &refused.base_url()], &[]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.out.is_empty() && nobody.err.contains("error:"), "{}", nobody.err);

    let upstream = Upstream::openai().script(Script::status(500)).start();
    assert_eq!(run(&["chat", "hi", "--url", &upstream.base_url()], &[]).code, Some(1));
    assert_eq!(run(&["chat"], &[]).code, Some(1), "nothing to ask");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_fail_with_1_and_say_why() {
    let refused = RefusedAddr::new();
    let nobody = run(&["jobs", "get", "job_1", "--url", &refused.base_url()], &[]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.out.is_empty() && nobody.err.contains("error:"), "{}", nobody.err);
    let no_file = run(&["jobs", "publish", "--file", "no-such-file.json"], &[]);
    assert_eq!((no_file.code, no_file.err.contains("no-such-file.json")), (Some(1), true), "{}", no_file.err);

    // A service without a queue, found by HOST and PORT.
    let service = Service::of(env!("CARGO_BIN_EXE_opossum")).start().await;
    let port = service.addr().port().to_string();
    for args in
        [&["jobs", "get", "job_1"][..], &["jobs", "get", "job_1", "--wait"], &["jobs", "cancel", "job_1"]]
    {
        let ran = run(args, &[("PORT", &port), ("OPOSSUM_API_KEY", "canary")]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{args:?}");
        assert!(ran.err.contains("503 queue_unavailable") && ran.err.contains("AMQP_URL"), "{}", ran.err);
        assert!(!ran.err.contains("canary"), "{}", ran.err);
    }
}

#[test]
fn help_of_jobs_shows_examples() {
    let help = run(&["jobs", "--help"], &[]);
    assert_eq!(help.code, Some(0));
    for word in ["publish", "get", "cancel", "Examples:", "--file job.json --wait"] {
        assert!(help.out.contains(word), "{word} in\n{}", help.out);
    }
}

#[test]
fn chat_embedded_says_what_to_pull() {
    let ran = run(&["chat", "--embedded", "hi"], &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("opossum models pull smollm2-135m-instruct"), "{}", ran.err);
    assert_eq!(run(&["chat", "--embedded", "--url", "http://h", "hi"], &[]).code, Some(2));
}

/// Needs the model's file, which `opossum models pull smollm2-135m-instruct` fetches.
#[test]
fn chat_embedded_answers_without_a_service() {
    let Some(models) = folder_with(DEFAULT_MODEL_FILE) else {
        eprintln!("not run: {DEFAULT_MODEL_FILE} is not here; `make test` fetches it");
        return;
    };
    let models = Path::new(&models).to_string_lossy().into_owned();
    let args = ["chat", "--embedded", "--max-tokens", "8", "What is the capital of France?"];
    let ran = run(&args, &[("QUANTIZED_MODEL_DIR", &models)]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.out.trim().is_empty());
}
