//! One call of a scripted backend.

use std::time::Duration;

use futures::stream;
use opossum_core::answer::{Answer, Choice, FinishReason, StreamEvent, Usage};
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedInputs, Embeddings};
use opossum_core::request::{GenerateRequest, Prompt, ResponseFormat, Role, ToolCall, ToolChoice};

use super::{FakeScript, Running, Step};
use crate::{BackendError, Call, EmbedCall, Reply, vectors};

/// Plays a step.
pub(super) async fn play(
    script: &FakeScript,
    step: Step,
    call: &Call,
    mut running: Running,
) -> Result<Reply, BackendError> {
    let first_delay = Duration::from_millis(step.delay_ms.unwrap_or(script.first_delay_ms));
    if let Some((class, wait)) = step.failure() {
        pause(first_delay).await;
        running.end();
        return Err(BackendError::new(class, "as scripted").with_retry_after(wait));
    }
    let turn = Turn::of(call, step.answer.as_deref().unwrap_or(&script.answer));
    if call.request.stream {
        let faults = (step.stall_after, step.cut_after);
        let piece_delay = Duration::from_millis(script.piece_delay_ms);
        return Ok(Reply::Stream(Box::pin(turn.stream(faults, first_delay, piece_delay, running))));
    }
    hold_whole(&step, first_delay, &mut running).await?;
    Ok(Reply::Whole(Box::new(turn.whole(call))))
}

/// Plays a step for a call that wants vectors.
pub(super) async fn embed(
    script: &FakeScript,
    step: Step,
    call: &EmbedCall,
    mut running: Running,
) -> Result<Embeddings, BackendError> {
    let first_delay = Duration::from_millis(step.delay_ms.unwrap_or(script.first_delay_ms));
    if let Some((class, wait)) = step.failure() {
        pause(first_delay).await;
        running.end();
        return Err(BackendError::new(class, "as scripted").with_retry_after(wait));
    }
    hold_whole(&step, first_delay, &mut running).await?;
    let dimensions = call.request.dimensions.map_or(DIMENSIONS, |asked| asked as usize);
    let (vectors, prompt): (Vec<_>, u64) = match &call.request.inputs {
        EmbedInputs::Texts(texts) => (
            texts.iter().map(|text| vector(text.bytes().map(u32::from), dimensions)).collect(),
            texts.iter().map(|text| count(text)).sum(),
        ),
        EmbedInputs::Tokens(all) => (
            all.iter().map(|tokens| vector(tokens.iter().copied(), dimensions)).collect(),
            all.iter().map(|tokens| tokens.len() as u64).sum(),
        ),
    };
    let mut found = vectors::gather(call, None, vectors.into_iter())?;
    found.usage = Some(Usage { prompt, ..Usage::default() });
    Ok(found)
}

/// Waits as long as an answer that comes whole is told to, and fails where it is told to.
async fn hold_whole(step: &Step, first_delay: Duration, running: &mut Running) -> Result<(), BackendError> {
    pause(first_delay).await;
    if step.stall_after.is_some() {
        std::future::pending::<()>().await;
    }
    running.end();
    if step.cut_after.is_some() { Err(cut()) } else { Ok(()) }
}

/// Components of a vector where nothing is asked.
const DIMENSIONS: usize = 8;

/// A vector of unit length that depends on nothing but the input: its hash (FNV-1a), spread out.
fn vector(input: impl Iterator<Item = u32>, dimensions: usize) -> Vec<f32> {
    let fold = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x0100_0000_01b3);
    let seed = input.map(u64::from).fold(0xcbf2_9ce4_8422_2325, fold);
    let component = |place: usize| {
        let mixed = fold(fold(seed, place as u64), 0x9e37_79b9).rotate_left(29);
        f64::from((mixed >> 40) as u32) / f64::from(1u32 << 24) - 0.5
    };
    let raw: Vec<f64> = (0..dimensions).map(component).collect();
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    raw.into_iter().map(|x| (x / length) as f32).collect()
}

async fn pause(delay: Duration) {
    // A timer of zero length would still end only at the next tick.
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

fn cut() -> BackendError {
    BackendError::new(FailureClass::Truncated, "as scripted")
}

/// An answer before it takes its shape.
struct Turn {
    pieces: Vec<String>,
    call: Option<ToolCall>,
    finish: FinishReason,
    choices: u32,
    usage: Usage,
}

impl Turn {
    fn of(call: &Call, template: &str) -> Self {
        let request = &*call.request;
        let asked = last_text(request);
        let choices = request.params.n;
        let prompt = count(&asked);
        if let Some(name) = tool_to_call(request) {
            let arguments = "{}".to_owned();
            let call = ToolCall { id: "call_0".to_owned(), name, arguments, signature: None };
            let usage = Usage { prompt, completion: u64::from(choices), ..Usage::default() };
            let finish = FinishReason::ToolCalls;
            return Self { pieces: Vec::new(), call: Some(call), finish, choices, usage };
        }
        let mut text = template.replace("{prompt}", &asked);
        if matches!(call.response_format(), ResponseFormat::JsonObject) {
            text = serde_json::json!({ "answer": text }).to_string();
        }
        let stop = request.params.stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
        text.truncate(stop.unwrap_or(text.len()));
        let mut pieces: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let limit = call.max_tokens().map_or(usize::MAX, |limit| limit as usize);
        let finish = if pieces.len() > limit { FinishReason::Length } else { FinishReason::Stop };
        pieces.truncate(limit);
        let completion = pieces.len() as u64 * u64::from(choices);
        let usage = Usage { prompt, completion, ..Usage::default() };
        Self { pieces, call: None, finish, choices, usage }
    }

    fn whole(self, call: &Call) -> Answer {
        let text = self.pieces.concat();
        let choice = |index| {
            let mut choice = Choice::text(index, text.clone(), self.finish);
            if let Some(call) = &self.call {
                choice.text = None;
                choice.tool_calls.push(call.clone());
            }
            choice
        };
        let choices = (0..self.choices).map(choice).collect();
        Answer { model: call.model.to_string(), choices, usage: Some(self.usage) }
    }

    /// The batches: one for each piece (of every choice), then the end.
    fn batches(self) -> Vec<Vec<StreamEvent>> {
        let text = |piece: &String| {
            (0..self.choices)
                .map(|index| StreamEvent::Text { index, text: piece.clone(), logprobs: None })
                .collect()
        };
        let mut batches: Vec<Vec<StreamEvent>> = self.pieces.iter().map(text).collect();
        let mut last = Vec::new();
        for index in 0..self.choices {
            last.extend(self.call.clone().map(|call| StreamEvent::ToolCall {
                index,
                call: 0,
                id: Some(call.id),
                name: Some(call.name),
                arguments: call.arguments,
                signature: None,
            }));
            last.push(StreamEvent::Finish { index, reason: self.finish });
        }
        last.push(StreamEvent::Usage(self.usage));
        batches.push(last);
        batches
    }

    fn stream(
        self,
        (stall_after, cut_after): (Option<usize>, Option<usize>),
        first_delay: Duration,
        piece_delay: Duration,
        running: Running,
    ) -> impl stream::Stream<Item = Result<Vec<StreamEvent>, BackendError>> + Send + use<> {
        let batches = self.batches().into_iter();
        stream::unfold(Some((batches, 0, running)), move |state| async move {
            let (mut batches, sent, mut running) = state?;
            pause(if sent == 0 { first_delay } else { piece_delay }).await;
            if stall_after == Some(sent) {
                std::future::pending::<()>().await;
            }
            if cut_after == Some(sent) {
                running.end();
                return Some((Err(cut()), None));
            }
            match batches.next() {
                Some(batch) => Some((Ok(batch), Some((batches, sent + 1, running)))),
                None => {
                    running.end();
                    None
                }
            }
        })
    }
}

fn count(text: &str) -> u64 {
    text.split_inclusive(' ').count() as u64
}

/// The last user's text, or the raw prompt.
fn last_text(request: &GenerateRequest) -> String {
    match &request.prompt {
        Prompt::Text { prompt, .. } => prompt.clone(),
        Prompt::Chat(messages) => {
            let last = messages.iter().rev().find(|message| message.role == Role::User);
            last.map(|message| message.content.joined_text().into_owned()).unwrap_or_default()
        }
    }
}

/// A tool is called when one must be.
fn tool_to_call(request: &GenerateRequest) -> Option<String> {
    match &request.tool_choice {
        ToolChoice::Function(name) => Some(name.clone()),
        ToolChoice::Required => request.tools.first().map(|tool| tool.name.clone()),
        ToolChoice::Auto | ToolChoice::None => None,
    }
}
