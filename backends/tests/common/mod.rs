//! What the suites of the remote backends share.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use opossum_backends::http::{HttpClient, HttpConfig};
use opossum_backends::{Backend, BackendError, Call, EventStream, ParamDefaults, Reply};
use opossum_core::answer::{Answer, FinishReason, StreamEvent};
use opossum_core::class::FailureClass;
use opossum_core::request::{GenerateRequest, Message, Role};

/// Longer than anything here takes unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How soon an upstream must notice that we left.
pub(crate) const ABORT_LIMIT: Duration = Duration::from_millis(250);

pub(crate) fn client() -> HttpClient {
    HttpClient::new(HttpConfig::default()).expect("a client")
}

pub(crate) fn chat(stream: bool) -> GenerateRequest {
    GenerateRequest { stream, ..GenerateRequest::chat(vec![Message::text(Role::User, "hi")]) }
}

pub(crate) fn call(request: GenerateRequest) -> Call {
    Call {
        request: Arc::new(request),
        model: "m".into(),
        defaults: Arc::new(ParamDefaults::default()),
        request_id: "req-1".into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

/// Calls and waits for the reply; a hang fails the test.
pub(crate) async fn reply(backend: &impl Backend, request: GenerateRequest) -> Result<Reply, BackendError> {
    tokio::time::timeout(PATIENCE, backend.generate(call(request))).await.expect("no hang")
}

pub(crate) async fn whole(backend: &impl Backend) -> Result<Answer, BackendError> {
    match reply(backend, chat(false)).await? {
        Reply::Whole(answer) => Ok(*answer),
        Reply::Stream(_) => panic!("no stream was asked for"),
    }
}

pub(crate) async fn stream(backend: &impl Backend) -> Result<EventStream, BackendError> {
    match reply(backend, chat(true)).await? {
        Reply::Stream(stream) => Ok(stream),
        Reply::Whole(_) => panic!("a stream was asked for"),
    }
}

/// What a stream gave before it ended, and how it ended.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) tokens: Option<u64>,
    pub(crate) error: Option<BackendError>,
}

impl Heard {
    pub(crate) fn class(&self) -> Option<FailureClass> {
        self.error.as_ref().map(|error| error.class)
    }
}

/// Asks for a stream and hears it to its end.
pub(crate) async fn hear(backend: &impl Backend) -> Heard {
    match stream(backend).await {
        Ok(stream) => hear_out(stream).await,
        Err(error) => Heard { text: String::new(), finish: None, tokens: None, error: Some(error) },
    }
}

pub(crate) async fn hear_out(mut stream: EventStream) -> Heard {
    let mut heard = Heard { text: String::new(), finish: None, tokens: None, error: None };
    while let Some(batch) = tokio::time::timeout(PATIENCE, stream.next()).await.expect("no hang") {
        assert!(heard.error.is_none(), "nothing follows an error");
        match batch {
            Ok(events) => events.into_iter().for_each(|event| heard.take(event)),
            Err(error) => heard.error = Some(error),
        }
    }
    heard
}

impl Heard {
    fn take(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Text { text, .. } => {
                assert!(!text.is_empty());
                self.text.push_str(&text);
            }
            StreamEvent::Finish { reason, .. } => {
                assert!(self.finish.replace(reason).is_none(), "a choice finishes once");
            }
            StreamEvent::Usage(usage) => self.tokens = Some(usage.completion),
            _ => {}
        }
    }
}

/// The class of a whole call and of a streamed one, which must fail alike.
pub(crate) async fn classes(backend: &impl Backend) -> (Option<FailureClass>, Option<FailureClass>) {
    let unstreamed = whole(backend).await.err().map(|error| error.class);
    (unstreamed, hear(backend).await.class())
}
