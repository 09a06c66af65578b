//! The backend over an engine that is played by the test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Mutex;

use futures::StreamExt;
use opossum_core::answer::{self, Answer, StreamEvent};
use opossum_core::request::{Content, GenerateRequest, Message, Role, Tool};
use opossum_inference::{Grammar, InferenceError, TokenLogprob, TopLogprob};

use super::*;
use crate::{EventStream, ParamDefaults};

/// An engine that keeps what it is given and says what it is told.
#[derive(Default)]
pub(super) struct Played {
    pub(super) jobs: Mutex<Vec<(LocalJob, LocalSink)>>,
    says: Mutex<Vec<TokenEvent>>,
    refuses: Option<BackendError>,
    state: LocalState,
    tools: Option<ToolSyntax>,
    only_continues: bool,
}

impl Played {
    /// One whose model knows tools.
    pub(super) fn with_tools(says: Vec<TokenEvent>) -> Self {
        Self { says: Mutex::new(says), tools: Some(ToolSyntax::Tagged), ..Self::default() }
    }
}

impl LocalInference for Played {
    fn submit(&self, job: LocalJob) -> BoxFuture<'static, Result<LocalStream, BackendError>> {
        if let Some(error) = &self.refuses {
            return futures::future::ready(Err(error.clone())).boxed();
        }
        let (mut sink, stream) = LocalStream::channel();
        for event in self.says.lock().unwrap().drain(..) {
            assert!(sink.send(event));
        }
        self.jobs.lock().unwrap().push((job, sink));
        futures::future::ready(Ok(stream)).boxed()
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        vec![LocalModelInfo {
            name: "tiny".into(),
            architecture: "llama".into(),
            context_tokens: 64,
            parameters: 1,
            quantization: "F32".into(),
            licence: None,
            device: "cpu".into(),
            chat: !self.only_continues,
            tools: self.tools,
        }]
    }

    fn status(&self) -> LocalStatus {
        LocalStatus { state: self.state.clone(), load: LocalLoad::default() }
    }
}

fn saying(says: Vec<TokenEvent>) -> (Arc<Played>, TransformersBackend) {
    let played = Arc::new(Played { says: Mutex::new(says), ..Played::default() });
    (Arc::clone(&played), TransformersBackend::new("transformers".into(), played))
}

pub(super) fn call(request: GenerateRequest) -> Call {
    Call {
        request: Arc::new(request),
        model: "tiny".into(),
        defaults: Arc::new(ParamDefaults {
            max_tokens: Some(9),
            json_object: true,
            ..ParamDefaults::default()
        }),
        request_id: "r".into(),
        traceparent: None,
    }
}

fn chat(stream: bool) -> GenerateRequest {
    let messages = vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "hi")];
    GenerateRequest { stream, ..GenerateRequest::chat(messages) }
}

pub(super) fn started() -> TokenEvent {
    TokenEvent::Started { prompt_tokens: 5 }
}

pub(super) fn text(text: &str) -> TokenEvent {
    TokenEvent::Text { text: text.into(), tokens: 1, logprobs: Vec::new() }
}

fn with_logprob(text: &str, token: &str) -> TokenEvent {
    let chosen = TopLogprob { id: 1, bytes: token.as_bytes().to_vec(), logprob: -0.5 };
    TokenEvent::Text {
        text: text.into(),
        tokens: 1,
        logprobs: vec![TokenLogprob { chosen, top: Vec::new() }],
    }
}

pub(super) fn done(finish: FinishReason) -> TokenEvent {
    TokenEvent::Done { finish, usage: TokenUsage { prompt_tokens: 5, completion_tokens: 3 } }
}

async fn whole(backend: &TransformersBackend, request: GenerateRequest) -> Result<Answer, BackendError> {
    match backend.generate(call(request)).await? {
        Reply::Whole(answer) => Ok(*answer),
        Reply::Stream(_) => panic!("a stream was not asked for"),
    }
}

async fn stream(backend: &TransformersBackend) -> Result<EventStream, BackendError> {
    match backend.generate(call(chat(true))).await? {
        Reply::Stream(stream) => Ok(stream),
        Reply::Whole(_) => panic!("a stream was asked for"),
    }
}

#[tokio::test]
async fn a_whole_answer() {
    let (_, backend) = saying(vec![started(), text("Hel"), text("lo"), done(FinishReason::Length)]);
    let answer = whole(&backend, chat(false)).await.unwrap();
    let choice = &answer.choices[0];
    assert_eq!(choice.text.as_deref(), Some("Hello"));
    assert_eq!(choice.finish, answer::FinishReason::Length);
    assert!(choice.logprobs.is_none());
    assert_eq!(answer.usage.map(|u| (u.prompt, u.completion)), Some((5, 3)));
    assert_eq!(answer.model, "tiny");
}

#[tokio::test]
async fn a_job_says_what_the_request_said() {
    let (played, backend) = saying(vec![started(), done(FinishReason::Stop)]);
    let mut request = chat(false);
    request.params.temperature = Some(0.0);
    request.params.top_k = Some(3);
    request.params.seed = Some(-1);
    request.params.stop = vec!["END".into()];
    request.params.logprobs = Some(2);
    request.params.presence_penalty = Some(0.5);
    whole(&backend, request).await.unwrap();
    let jobs = played.jobs.lock().unwrap();
    let job = &jobs[0].0;
    let Prompt::Chat { messages, add_generation_prompt: true, .. } = &job.prompt else { panic!("a chat") };
    let turns: Vec<_> = messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
    assert_eq!(turns, [("system", "be brief"), ("user", "hi")]);
    let expected = GenerationParams {
        max_tokens: Some(9),
        temperature: 0.0,
        top_k: Some(3),
        seed: Some(u64::MAX),
        stop: vec!["END".into()],
        logprobs: Some(2),
        presence_penalty: 0.5,
        grammar: Some(Grammar::json_object().unwrap()),
        ..GenerationParams::default()
    };
    assert_eq!(job.params, expected);
}

#[tokio::test]
async fn a_raw_prompt_is_continued_as_it_is() {
    let (played, backend) = saying(vec![started(), with_logprob("x", "x"), done(FinishReason::Stop)]);
    let prompt =
        opossum_core::request::Prompt::Text { prompt: "Once <|x|>".into(), suffix: None, echo: false };
    let answer = whole(&backend, GenerateRequest { prompt, ..chat(false) }).await.unwrap();
    assert!(matches!(&played.jobs.lock().unwrap()[0].0.prompt, Prompt::Raw(text) if text == "Once <|x|>"));
    let logprobs = answer.choices[0].logprobs.as_ref().unwrap().get();
    assert!(logprobs.contains("\"text_offset\":[0]"), "{logprobs}");
}

#[tokio::test]
async fn what_a_local_model_cannot_do_is_refused_by_name() {
    let (played, backend) = saying(Vec::new());
    let mut many = chat(false);
    many.params.n = 2;
    let tools = vec![Tool { name: "f".into(), description: None, parameters: None, strict: None }];
    let image = Message { content: Content::Parts(vec![image()]), ..Message::text(Role::User, "") };
    for (request, name) in [
        (many, "n"),
        (GenerateRequest { tools, ..chat(false) }, "tools"),
        (GenerateRequest::chat(vec![image]), "messages.content.image_url"),
    ] {
        let error = whole(&backend, request).await.unwrap_err();
        assert_eq!(error.class, FailureClass::CallerError);
        assert!(error.detail.ends_with(name), "{error}");
    }
    assert!(played.jobs.lock().unwrap().is_empty());
}

fn image() -> opossum_core::request::Part {
    let source = opossum_core::request::ImageSource::Url("https://a.example/i.png".into());
    opossum_core::request::Part::Image(opossum_core::request::Image { source, detail: None })
}

#[tokio::test]
async fn a_stream_drains_what_is_ready_into_one_batch() {
    let (played, backend) = saying(vec![started(), text("a"), text("b")]);
    let mut stream = stream(&backend).await.unwrap();
    let batch = stream.next().await.unwrap().unwrap();
    assert!(
        matches!(&batch[..], [StreamEvent::Usage(u), StreamEvent::Text { text, .. }]
        if u.prompt == 5 && text == "ab"),
        "{batch:?}"
    );
    let mut sink = played.jobs.lock().unwrap().remove(0).1;
    assert!(sink.send(text("c")) && sink.send(done(FinishReason::Stop)));
    let batch = stream.next().await.unwrap().unwrap();
    assert!(
        matches!(&batch[..], [
        StreamEvent::Text { text, .. },
        StreamEvent::Finish { reason: answer::FinishReason::Stop, .. },
        StreamEvent::Usage(u),
    ] if text == "c" && u.completion == 3),
        "{batch:?}"
    );
    assert!(stream.next().await.is_none());
    assert_eq!(sink.ready(), Readiness::Closed);
}

#[tokio::test]
async fn dropping_a_stream_closes_the_sink() {
    let (played, backend) = saying(vec![started()]);
    let stream = stream(&backend).await.unwrap();
    let mut sink = played.jobs.lock().unwrap().remove(0).1;
    assert_eq!(sink.ready(), Readiness::Ready);
    drop(stream);
    assert_eq!(sink.ready(), Readiness::Closed);
}

#[tokio::test]
async fn dropping_an_unfinished_whole_answer_closes_the_sink() {
    let (played, backend) = saying(vec![started(), text("a")]);
    let pending = backend.generate(call(chat(false)));
    assert!(tokio::time::timeout(Duration::from_millis(20), pending).await.is_err());
    let mut sink = played.jobs.lock().unwrap().remove(0).1;
    assert_eq!(sink.ready(), Readiness::Closed);
}

#[tokio::test]
async fn a_refusal_comes_in_the_head_and_a_later_failure_in_the_stream() {
    let too_long = InferenceError::ContextLengthExceeded { prompt: 99, max: 64 };
    let (_, backend) = saying(vec![TokenEvent::Failed(too_long)]);
    assert_eq!(stream(&backend).await.err().unwrap().class, FailureClass::ContextLength);

    let panicked = InferenceError::EnginePanicked { message: "index".into() };
    let (_, backend) = saying(vec![started(), text("a"), TokenEvent::Failed(panicked)]);
    let mut stream = stream(&backend).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().len(), 2, "what came before is not lost");
    assert_eq!(stream.next().await.unwrap().unwrap_err().class, FailureClass::ServerError);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_engine_that_lets_go_is_an_error_never_an_end() {
    let (played, backend) = saying(vec![started(), text("a")]);
    let mut stream = stream(&backend).await.unwrap();
    stream.next().await.unwrap().unwrap();
    played.jobs.lock().unwrap().clear();
    assert_eq!(stream.next().await.unwrap().unwrap_err().class, FailureClass::ServerError);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn log_probabilities_wait_for_their_text() {
    let says = vec![
        started(),
        with_logprob("", "\u{20}S"),
        with_logprob(" STO", "TO"),
        with_logprob("", "END"),
        done(FinishReason::Stop),
    ];
    let (_, backend) = saying(says);
    let batch = stream(&backend).await.unwrap().next().await.unwrap().unwrap();
    let texts: Vec<_> = batch
        .iter()
        .filter_map(|e| match e {
            StreamEvent::Text { text, logprobs, .. } => {
                Some((text.as_str(), logprobs.as_ref().unwrap().get()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(texts.len(), 1, "{batch:?}");
    assert_eq!(texts[0].0, " STO");
    assert!(texts[0].1.contains("\" S\"") && texts[0].1.contains("\"TO\"") && !texts[0].1.contains("END"));
}

#[tokio::test]
async fn a_full_queue_is_passed_on() {
    let full = errors::not_taken(opossum_inference::SubmitError::QueueFull);
    let played = Arc::new(Played { refuses: Some(full), ..Played::default() });
    let backend = TransformersBackend::new("transformers".into(), played);
    let error = whole(&backend, chat(false)).await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (FailureClass::RateLimited, Some(BUSY_WAIT)));
}

#[tokio::test]
async fn life_and_models() {
    for (state, class) in [
        (LocalState::Ready, None),
        (LocalState::Absent, None),
        (LocalState::Loading, None),
        (LocalState::Failed("no memory".into()), Some(FailureClass::NotLoaded)),
    ] {
        let played = Arc::new(Played { state, ..Played::default() });
        let backend = TransformersBackend::new("transformers".into(), played);
        assert_eq!(backend.probe().await.err().map(|e| e.class), class);
        let models = backend.models().await.unwrap();
        assert_eq!((models[0].name.as_str(), models[0].context_tokens), ("tiny", Some(64)));
        assert!(!models[0].can.intersects(Needs::TOOLS | Needs::IMAGES | Needs::MANY_CHOICES));
    }
    let base = Arc::new(Played { only_continues: true, ..Played::default() });
    let base = TransformersBackend::new("transformers".into(), base);
    let can = base.models().await.unwrap()[0].can;
    assert!(can.contains(Needs::COMPLETION) && !can.contains(Needs::CHAT));
    let refused = base.generate(call(GenerateRequest::chat(vec![Message::text(Role::User, "hi")]))).await;
    let refused = refused.err().map(|error| (error.class, error.param));
    assert_eq!(refused, Some((FailureClass::CallerError, Some("messages"))));
    let caller = Arc::new(Played::with_tools(Vec::new()));
    let models = TransformersBackend::new("transformers".into(), caller).models().await.unwrap();
    assert!(models[0].can.contains(Needs::TOOLS | Needs::TOOL_CHOICE | Needs::SERIAL_TOOLS));
}
