//! The engine's events as the domain's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use opossum_core::answer::{self, Answer, Choice, StreamEvent, Usage};
use opossum_core::class::FailureClass;
use opossum_core::request::ToolCall;
use opossum_inference::{FinishReason, TokenEvent, TokenLogprob, TokenUsage, ToolSyntax};

use super::calls::{CallReader, Said};
use super::errors::backend_error;
use super::logprobs::{self, Shape};
use super::sink::LocalStream;
use crate::BackendError;

/// Translates the events of one sequence.
pub(super) struct Reader {
    shape: Shape,
    /// Where the answer may hold tool calls.
    calls: Option<CallReader>,
    /// Log probabilities of tokens whose text has not come yet.
    waiting: Vec<TokenLogprob>,
    /// Characters of the answer so far, and where the first waiting token begins.
    characters: usize,
    /// The tool call that is being read.
    current_call: Option<u32>,
    done: bool,
}

impl Reader {
    pub(super) fn new(shape: Shape, calls: Option<ToolSyntax>) -> Self {
        Self {
            shape,
            calls: calls.map(CallReader::new),
            waiting: Vec::new(),
            characters: 0,
            current_call: None,
            done: false,
        }
    }

    fn read(&mut self, event: TokenEvent, out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        match event {
            TokenEvent::Started { prompt_tokens } => {
                out.push(StreamEvent::Usage(Usage { prompt: prompt_tokens as u64, ..Usage::default() }));
            }
            TokenEvent::Text { text, logprobs, .. } => {
                self.waiting.extend(logprobs);
                match &mut self.calls {
                    None => self.say(text, out),
                    Some(calls) => {
                        let mut said = Vec::new();
                        calls.push(&text, &mut said);
                        self.say_all(said, out);
                    }
                }
            }
            TokenEvent::Done { finish, usage } => {
                self.done = true;
                let reason = self.finish(finish, out);
                out.push(StreamEvent::Finish { index: 0, reason });
                out.push(StreamEvent::Usage(total(usage)));
            }
            TokenEvent::Failed(error) => {
                self.done = true;
                return Err(backend_error(&error));
            }
        }
        Ok(())
    }

    /// Lets out what was held back; a turn that ended by itself with calls ended for them.
    fn finish(&mut self, finish: FinishReason, out: &mut Vec<StreamEvent>) -> answer::FinishReason {
        let Some(calls) = &mut self.calls else { return reason(finish) };
        let mut said = Vec::new();
        calls.finish(&mut said);
        let called = calls.calls() > 0;
        self.say_all(said, out);
        match finish {
            FinishReason::Stop if called => answer::FinishReason::ToolCalls,
            finish => reason(finish),
        }
    }

    fn say_all(&mut self, said: Vec<Said>, out: &mut Vec<StreamEvent>) {
        for part in said {
            match part {
                Said::Text(text) => self.say(text, out),
                Said::Call(name) => {
                    self.current_call = self.current_call.map_or(Some(0), |call| Some(call + 1));
                    // Log probabilities are told of words only.
                    self.waiting.clear();
                    out.push(self.call_event(Some(name), String::new()));
                }
                Said::Arguments(more) => {
                    self.waiting.clear();
                    match out.last_mut() {
                        Some(StreamEvent::ToolCall { arguments, .. }) => arguments.push_str(&more),
                        _ => out.push(self.call_event(None, more)),
                    }
                }
            }
        }
    }

    /// An event of the current call; its first one carries name and identity.
    fn call_event(&self, name: Option<String>, arguments: String) -> StreamEvent {
        // 96 random bits: unique in any conversation.
        let id = name.is_some().then(|| format!("call_{:024x}", rand::random::<u128>() >> 32));
        let call = self.current_call.unwrap_or_default();
        StreamEvent::ToolCall { index: 0, call, id, name, arguments, signature: None }
    }

    /// Text that comes together is one event; log probabilities wait for the text of their tokens. What
    /// still waits at the end belongs to text that is no part of the answer, such as a stop string.
    fn say(&mut self, text: String, out: &mut Vec<StreamEvent>) {
        if text.is_empty() {
            return;
        }
        let offset = self.characters;
        self.characters += text.chars().count();
        if self.waiting.is_empty() {
            if let Some(StreamEvent::Text { text: so_far, logprobs: None, .. }) = out.last_mut() {
                so_far.push_str(&text);
                return;
            }
            out.push(StreamEvent::Text { index: 0, text, logprobs: None });
            return;
        }
        let tokens = std::mem::take(&mut self.waiting);
        out.push(StreamEvent::Text { index: 0, text, logprobs: logprobs::json(self.shape, &tokens, offset) });
    }
}

/// The engine let go of a job without its last word.
fn vanished() -> BackendError {
    BackendError::new(FailureClass::ServerError, "the engine let go of the job")
}

fn reason(finish: FinishReason) -> answer::FinishReason {
    match finish {
        FinishReason::Stop => answer::FinishReason::Stop,
        FinishReason::Length => answer::FinishReason::Length,
    }
}

fn total(usage: TokenUsage) -> Usage {
    Usage {
        prompt: usage.prompt_tokens as u64,
        completion: usage.completion_tokens as u64,
        ..Usage::default()
    }
}

/// A sequence as a stream of events; all that is ready comes in one batch.
pub(super) struct EventsOf {
    /// `None` once the sequence is over.
    stream: Option<LocalStream>,
    reader: Reader,
    /// What the next batch begins with.
    batch: Vec<StreamEvent>,
    /// An error that waits for the events before it to be taken.
    failed: Option<BackendError>,
    /// Kept to save an allocation for every batch.
    taken: Vec<TokenEvent>,
}

impl EventsOf {
    /// A stream that begins with an event already received.
    ///
    /// # Errors
    /// That of the first event, when it is the last.
    pub(super) fn start(
        stream: LocalStream,
        mut reader: Reader,
        first: Option<TokenEvent>,
    ) -> Result<Self, BackendError> {
        let mut batch = Vec::new();
        reader.read(first.ok_or_else(vanished)?, &mut batch)?;
        let stream = (!reader.done).then_some(stream);
        Ok(Self { stream, reader, batch, failed: None, taken: Vec::new() })
    }

    /// Takes everything that is ready; an error or the end drops the stream.
    fn take_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(()) };
        let mut result = match ready!(stream.poll_many(cx, &mut self.taken)) {
            0 => Err(vanished()),
            _ => Ok(()),
        };
        for event in self.taken.drain(..) {
            if result.is_ok() && !self.reader.done {
                result = self.reader.read(event, &mut self.batch);
            }
        }
        if result.is_err() || self.reader.done {
            self.stream = None;
        }
        self.failed = result.err();
        Poll::Ready(())
    }
}

impl Stream for EventsOf {
    type Item = Result<Vec<StreamEvent>, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let pending = this.failed.is_none() && this.take_ready(cx).is_pending();
        if !this.batch.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut this.batch))));
        }
        match this.failed.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None if pending => Poll::Pending,
            None if this.stream.is_none() => Poll::Ready(None),
            // Tokens without text: there is something to tell, but nothing to show.
            None => Poll::Ready(Some(Ok(Vec::new()))),
        }
    }
}

/// A sequence as a whole answer.
pub(super) async fn whole(
    mut stream: LocalStream,
    mut reader: Reader,
    first: Option<TokenEvent>,
    model: &str,
) -> Result<Answer, BackendError> {
    let (mut events, mut tokens, mut waiting, mut next) = (Vec::new(), Vec::new(), Vec::new(), first);
    loop {
        let mut event = next.ok_or_else(vanished)?;
        // Written once for the whole answer, instead of piece by piece by the reader.
        if let TokenEvent::Text { text, logprobs, .. } = &mut event {
            waiting.append(logprobs);
            if !text.is_empty() {
                tokens.append(&mut waiting);
            }
        }
        reader.read(event, &mut events)?;
        if reader.done {
            break;
        }
        next = stream.recv().await;
    }
    let mut answer = Answer { model: model.to_owned(), choices: Vec::new(), usage: None };
    let mut choice = Choice::text(0, "", answer::FinishReason::Stop);
    for event in events {
        match event {
            StreamEvent::Text { text, .. } => choice.text.get_or_insert_default().push_str(&text),
            StreamEvent::ToolCall { id, name, arguments, signature, .. } => match (id, name) {
                (Some(id), Some(name)) => choice.tool_calls.push(ToolCall { id, name, arguments, signature }),
                _ => {
                    if let Some(call) = choice.tool_calls.last_mut() {
                        call.arguments.push_str(&arguments);
                    }
                }
            },
            StreamEvent::Finish { reason, .. } => choice.finish = reason,
            StreamEvent::Usage(usage) => answer.usage = Some(usage),
            // The engine gives nothing else.
            StreamEvent::Reasoning { .. } | StreamEvent::Refusal { .. } | StreamEvent::Model(_) => {}
        }
    }
    if !choice.tool_calls.is_empty() && choice.text.as_deref() == Some("") {
        choice.text = None;
    }
    // They are told of words, and cannot be told apart from those of calls here.
    if !tokens.is_empty() && choice.tool_calls.is_empty() {
        choice.logprobs = logprobs::json(reader.shape, &tokens, 0);
    }
    answer.choices.push(choice);
    Ok(answer)
}
