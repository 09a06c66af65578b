//! The embedded engine as a backend, with a tiny model of noise.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use opossum_backends::transformers::{
    EngineConfig, LocalEngine, LocalInference, LocalState, TransformersBackend,
};
use opossum_backends::{Backend, BackendError, Call, EventStream, ParamDefaults, Reply};
use opossum_core::answer::{Answer, FinishReason, StreamEvent};
use opossum_core::class::FailureClass as Class;
use opossum_core::request::{GenerateRequest, Message, Prompt, Role};
use opossum_inference::engine::FaultHook;
use opossum_inference::testing::{TempModel, TinyLlama};

/// Longer than anything here takes unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

fn chat(stream: bool) -> GenerateRequest {
    GenerateRequest { stream, ..GenerateRequest::chat(vec![Message::text(Role::User, "hi")]) }
}

fn call(request: GenerateRequest) -> Call {
    Call {
        request: Arc::new(request),
        model: "m".into(),
        defaults: Arc::new(ParamDefaults::default()),
        request_id: "req-1".into(),
        traceparent: None,
    }
}

async fn reply(backend: &TransformersBackend, request: GenerateRequest) -> Result<Reply, BackendError> {
    tokio::time::timeout(PATIENCE, backend.generate(call(request))).await.expect("no hang")
}

/// What a stream said to its good end: text, finish reason and completion tokens.
async fn hear_out(mut stream: EventStream) -> (String, Option<FinishReason>, Option<u64>) {
    let (mut text, mut finish, mut tokens) = (String::new(), None, None);
    while let Some(batch) = tokio::time::timeout(PATIENCE, stream.next()).await.expect("no hang") {
        for event in batch.unwrap() {
            match event {
                StreamEvent::Text { text: more, .. } => text.push_str(&more),
                StreamEvent::Finish { reason, .. } => finish = Some(reason),
                StreamEvent::Usage(usage) => tokens = Some(usage.completion),
                other => panic!("{other:?}"),
            }
        }
    }
    (text, finish, tokens)
}

/// A loaded tiny model; [`call`] asks for it as `m`.
fn engine(sequences: usize, queue: usize) -> LocalEngine {
    let file = TempModel::new(&TinyLlama::default());
    let config = EngineConfig {
        max_sequences: sequences,
        queue_depth: queue,
        threads: 1,
        ..EngineConfig::new(file.path())
    };
    LocalEngine::load("m".into(), config).unwrap()
}

fn backend(engine: &LocalEngine) -> TransformersBackend {
    TransformersBackend::new("transformers".into(), Arc::new(engine.clone()))
}

fn tokens(count: u32, stream: bool) -> GenerateRequest {
    let mut request = chat(stream);
    request.params.max_tokens = Some(count);
    request.params.temperature = Some(0.0);
    request
}

async fn answer(backend: &TransformersBackend, request: GenerateRequest) -> Answer {
    match reply(backend, request).await.unwrap() {
        Reply::Whole(answer) => *answer,
        Reply::Stream(_) => panic!("no stream was asked for"),
    }
}

async fn opened(backend: &TransformersBackend, request: GenerateRequest) -> EventStream {
    match reply(backend, request).await.unwrap() {
        Reply::Stream(stream) => stream,
        Reply::Whole(_) => panic!("a stream was asked for"),
    }
}

/// Waits until the engine computes so many sequences and no job waits.
async fn active(engine: &LocalEngine, sequences: usize) -> Duration {
    let began = Instant::now();
    while (engine.load_now().active, engine.load_now().queued) != (sequences, 0) {
        assert!(began.elapsed() < PATIENCE, "{:?}", engine.load_now());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let engine = engine(2, 4);
    let backend = backend(&engine);
    let whole = answer(&backend, tokens(40, false)).await;
    let text = whole.choices[0].text.clone().unwrap();
    assert!(!text.is_empty());
    assert_eq!(whole.choices[0].finish, FinishReason::Length);
    let usage = whole.usage.unwrap();
    assert_eq!(usage.completion, 40);
    assert!(usage.prompt > 5);
    let heard = hear_out(opened(&backend, tokens(40, true)).await).await;
    assert_eq!(heard, (text, Some(FinishReason::Length), Some(40)));
    assert!(engine.load_now().tokens_generated >= 80);
}

#[tokio::test]
async fn a_seed_repeats_and_a_raw_prompt_is_continued() {
    let engine = engine(2, 4);
    let backend = backend(&engine);
    let request = |seed| {
        let mut request = tokens(30, false);
        request.prompt = Prompt::Text { prompt: "Once upon".into(), suffix: None, echo: false };
        request.params.temperature = Some(1.5);
        request.params.seed = Some(seed);
        request
    };
    let first = answer(&backend, request(7)).await.choices.remove(0).text;
    assert_eq!(answer(&backend, request(7)).await.choices.remove(0).text, first);
    assert_ne!(answer(&backend, request(8)).await.choices.remove(0).text, first);
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_no_part_of_it() {
    let engine = engine(1, 4);
    let backend = backend(&engine);
    let full = answer(&backend, tokens(40, false)).await.choices.remove(0).text.unwrap();
    let stop: String = full.chars().skip(10).take(3).collect();
    let mut request = tokens(40, false);
    request.params.stop = vec![stop.clone()];
    let choice = answer(&backend, request).await.choices.remove(0);
    assert_eq!(choice.finish, FinishReason::Stop);
    assert_eq!(choice.text.as_deref(), full.split_once(&stop).map(|(before, _)| before));
}

#[tokio::test]
async fn log_probabilities_come_with_every_token() {
    let engine = engine(1, 4);
    let mut request = tokens(5, false);
    request.params.logprobs = Some(2);
    let choice = answer(&backend(&engine), request).await.choices.remove(0);
    let logprobs: serde_json::Value = serde_json::from_str(choice.logprobs.unwrap().get()).unwrap();
    let content = logprobs["content"].as_array().unwrap();
    assert_eq!(content.len(), 5);
    for token in content {
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
    }
    let text: String = content.iter().map(|t| t["token"].as_str().unwrap()).collect();
    assert_eq!(choice.text.as_deref(), Some(text.as_str()));
}

#[tokio::test]
async fn a_prompt_too_long_is_refused_before_anything_is_sent() {
    let engine = engine(1, 4);
    let backend = backend(&engine);
    for streamed in [false, true] {
        let long = GenerateRequest {
            stream: streamed,
            ..GenerateRequest::chat(vec![Message::text(Role::User, "word ".repeat(2000))])
        };
        let error = reply(&backend, long).await.err().unwrap();
        assert_eq!(error.class, Class::ContextLength);
    }
    assert_eq!(answer(&backend, tokens(3, false)).await.usage.unwrap().completion, 3, "the engine goes on");
}

#[tokio::test]
async fn what_the_template_refuses_is_the_callers_fault() {
    let engine = engine(1, 4);
    let request = GenerateRequest::chat(vec![Message::text(Role::Assistant, "me first")]);
    assert_eq!(reply(&backend(&engine), request).await.err().unwrap().class, Class::CallerError);
}

#[tokio::test]
async fn leaving_frees_the_place_between_two_tokens() {
    let engine = engine(1, 4);
    let backend = backend(&engine);
    let mut events = opened(&backend, tokens(400, true)).await;
    assert!(events.next().await.unwrap().is_ok());
    drop(events);
    assert!(active(&engine, 0).await < Duration::from_millis(250));
    assert!(engine.load_now().tokens_generated < 400);
    // Nor does one that is not polled to its reply leave anything behind.
    drop(backend.generate(call(tokens(400, false))));
    assert_eq!(engine.load_now().queued, 0);
}

#[tokio::test]
async fn a_reader_who_does_not_read_holds_up_nobody_else() {
    let engine = engine(2, 4);
    let backend = backend(&engine);
    let idle_reader = opened(&backend, tokens(400, true)).await;
    let whole = answer(&backend, tokens(100, false)).await;
    assert_eq!(whole.usage.unwrap().completion, 100);
    // The one that is done gives its place back; the other is parked, not over.
    active(&engine, 1).await;
    let (_, finish, tokens) = hear_out(idle_reader).await;
    assert_eq!((tokens, finish), (Some(400), Some(FinishReason::Length)));
}

#[tokio::test]
async fn a_full_queue_asks_to_come_again() {
    let engine = engine(1, 1);
    let backend = backend(&engine);
    let running = opened(&backend, tokens(400, true)).await;
    let waiting = tokio::spawn({
        let backend = backend.clone();
        async move { backend.generate(call(tokens(3, false))).await.map(drop) }
    });
    while engine.load_now().queued == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = reply(&backend, chat(true)).await.err().unwrap();
    assert_eq!((error.class, error.retry_after), (Class::RateLimited, Some(Duration::from_secs(1))));
    drop(running);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_in_the_engine_costs_its_sequences_and_no_more() {
    let file = TempModel::new(&TinyLlama::default());
    let steps = Arc::new(AtomicU32::new(0));
    let fault = FaultHook(Arc::new(move || assert!(steps.fetch_add(1, Ordering::Relaxed) != 10, "scripted")));
    let config = EngineConfig { fault: Some(fault), threads: 1, ..EngineConfig::new(file.path()) };
    let engine = LocalEngine::load("m".into(), config).unwrap();
    let backend = backend(&engine);
    let error = reply(&backend, tokens(50, false)).await.err().unwrap();
    assert_eq!(error.class, Class::ServerError);
    assert_eq!(answer(&backend, tokens(5, false)).await.usage.unwrap().completion, 5);
    assert_eq!(engine.load_now().restarts, 1);
    assert_eq!(engine.status().state, LocalState::Ready);
}

#[tokio::test]
async fn it_is_alive_and_says_what_it_runs() {
    let engine = engine(1, 1);
    let backend = backend(&engine);
    backend.probe().await.unwrap();
    assert_eq!(engine.status().state, LocalState::Ready);
    let model = engine.models().remove(0);
    assert_eq!((model.name.as_str(), model.architecture.as_str()), ("m", "llama"));
    assert_eq!((model.context_tokens, model.device.as_str()), (512, "cpu"));
    let other = opossum_backends::Call { model: "other".into(), ..call(chat(false)) };
    assert_eq!(backend.generate(other).await.err().unwrap().class, Class::ModelMissing);
}

#[test]
fn a_file_that_is_no_model_is_not_loaded() {
    let error = LocalEngine::load("m".into(), EngineConfig::new("no/such/file.gguf")).err().unwrap();
    assert_eq!(error.class, Class::ModelMissing);
}
