//! `opossum chat`: a question or a conversation, streamed as it comes.

use std::sync::Arc;

use futures::StreamExt;
use opossum_backends::http::{HttpClient, HttpConfig};
use opossum_backends::openai::{OpenAiBackend, OpenAiConfig};
use opossum_backends::{Backend, BackendError, Call, ParamDefaults, Reply};
use opossum_core::answer::StreamEvent;
use opossum_core::ids::ModelName;
use opossum_core::request::{GenerateRequest, Message, Role};
use secrecy::SecretString;

use crate::settings::Settings;

use super::args::Chat;
use super::{Failure, Outcome, block_on, embedded, remote, term};

pub(super) fn run(settings: &Settings, chat: Chat) -> Outcome {
    block_on(async {
        let (backend, model) = if chat.embedded {
            embedded::backend(settings, chat.model.as_deref()).await?
        } else {
            service(settings, &chat)?
        };
        let mut conversation = Conversation::new(backend, model, &chat);
        if chat.embedded {
            conversation.defaults = Arc::new(embedded::defaults(settings));
        }
        match chat.prompt {
            Some(prompt) => conversation.say(prompt).await,
            None if term::is_conversation() => conversation.go_on().await,
            None => conversation.say(term::read_all()?).await,
        }
    })
}

/// The service at `--url`, else the one that these settings describe.
fn service(settings: &Settings, chat: &Chat) -> Result<(Arc<dyn Backend>, ModelName), Failure> {
    let url = remote::base_url(settings, &chat.at);
    let mut config = OpenAiConfig::new("opossum", url.as_str());
    config.api_key = chat.at.key.clone().map(SecretString::from);
    let client = HttpClient::new(HttpConfig::default()).map_err(|error| Failure::of("TLS", error))?;
    let backend = OpenAiBackend::new(config, client).map_err(|error| Failure::of(&url, error))?;
    Ok((Arc::new(backend), ModelName::from(chat.model.as_deref().unwrap_or("auto"))))
}

/// What has been said so far, and to whom.
struct Conversation {
    backend: Arc<dyn Backend>,
    model: ModelName,
    turns: Vec<(Role, String)>,
    max_tokens: Option<u32>,
    /// What the backend is told where a request says nothing; a service knows its own.
    defaults: Arc<ParamDefaults>,
}

impl Conversation {
    fn new(backend: Arc<dyn Backend>, model: ModelName, chat: &Chat) -> Self {
        let turns = chat.system.iter().map(|text| (Role::System, text.clone())).collect();
        Self { backend, model, turns, max_tokens: chat.max_tokens, defaults: Arc::default() }
    }

    /// A conversation on a terminal, until the end of input. A failed turn is told and forgotten.
    async fn go_on(&mut self) -> Outcome {
        term::note("An empty line or Ctrl-D ends the conversation.");
        while let Some(text) = term::ask("> ")?.filter(|text| !text.is_empty()) {
            match self.say(text).await {
                Err(Failure::Failed(why)) => term::note(&format!("error: {why}")),
                other => other?,
            }
        }
        Ok(())
    }

    /// One turn: what is said, and the answer, printed as it comes.
    async fn say(&mut self, text: String) -> Outcome {
        if text.trim().is_empty() {
            return Err(Failure::Failed("there is nothing to ask".to_owned()));
        }
        self.turns.push((Role::User, text));
        let answer = self.answer().await;
        match answer {
            Ok(text) => {
                self.turns.push((Role::Assistant, text));
                Ok(())
            }
            Err(failure) => {
                self.turns.pop();
                Err(failure)
            }
        }
    }

    async fn answer(&self) -> Result<String, Failure> {
        let told = |error: BackendError| Failure::Failed(error.to_string());
        let mut shown = Shown::default();
        match self.backend.generate(self.call()).await.map_err(told)? {
            Reply::Whole(answer) => {
                let text = answer.choices.into_iter().next().and_then(|choice| choice.text);
                shown.text(&text.unwrap_or_default())?;
            }
            Reply::Stream(mut stream) => {
                while let Some(events) = stream.next().await {
                    events.map_err(told)?.iter().try_for_each(|event| shown.event(event))?;
                }
            }
        }
        term::print("\n")?;
        Ok(shown.text)
    }

    fn call(&self) -> Call {
        let turns = self.turns.iter().map(|(role, text)| Message::text(*role, text.clone())).collect();
        let mut request = GenerateRequest::chat(turns);
        request.stream = true;
        request.params.max_tokens = self.max_tokens;
        Call {
            request: Arc::new(request),
            model: self.model.clone(),
            defaults: Arc::clone(&self.defaults),
            request_id: "chat".into(),
            traceparent: None,
        }
    }
}

/// What of an answer has been shown.
#[derive(Default)]
struct Shown {
    text: String,
    reasoning: bool,
}

impl Shown {
    fn event(&mut self, event: &StreamEvent) -> Outcome {
        match event {
            StreamEvent::Text { text, .. } | StreamEvent::Refusal { text, .. } => self.text(text),
            StreamEvent::Reasoning { text, .. } => {
                self.reasoning = true;
                term::aside(text);
                Ok(())
            }
            StreamEvent::ToolCall { .. }
            | StreamEvent::Finish { .. }
            | StreamEvent::Usage(_)
            | StreamEvent::Model(_) => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Outcome {
        if std::mem::take(&mut self.reasoning) {
            term::aside("\n\n");
        }
        self.text.push_str(text);
        term::print(text)
    }
}
