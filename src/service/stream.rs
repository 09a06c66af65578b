//! A committed stream on its way to the door: watched for silence and the deadline, folded for the cache.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use opossum_backends::{BackendError, EventStream};
use opossum_core::answer::{FinishReason, StreamEvent, Usage};
use opossum_core::breaker::Outcome;
use opossum_core::class::FailureClass;
use tokio::time::{Instant, Sleep};

use super::error::PipelineError;
use super::outcome::AttemptRecord;
use super::storing::Folding;
use super::usage::UsageRow;
use crate::admission::Permit;

/// What a door reads: events, then the end, or an error after which nothing comes.
pub type AnswerStream = Pin<Box<dyn Stream<Item = Result<Vec<StreamEvent>, PipelineError>>>>;

/// A committed stream. Dropping it cancels the work upstream.
pub(super) struct Committing {
    first: Option<Vec<StreamEvent>>,
    upstream: EventStream,
    record: Option<AttemptRecord>,
    row: Option<UsageRow>,
    fold: Option<Folding>,
    usage: Option<Usage>,
    /// Pieces of content so far.
    pieces: u64,
    finished: bool,
    refused: bool,
    last_content: Instant,
    idle: Duration,
    deadline: Instant,
    alarm: Pin<Box<Sleep>>,
    _permit: Permit,
}

/// What a committed stream needs besides its events.
pub(super) struct Watch {
    pub record: AttemptRecord,
    pub row: UsageRow,
    pub fold: Option<Folding>,
    pub idle: Duration,
    pub deadline: Instant,
    pub permit: Permit,
}

impl Committing {
    pub(super) fn new(first: Vec<StreamEvent>, upstream: EventStream, mut watch: Watch) -> Self {
        let now = Instant::now();
        watch.record.content_began();
        watch.row.content_began(now);
        let mut made = Self {
            first: None,
            upstream,
            record: Some(watch.record),
            row: Some(watch.row),
            fold: watch.fold,
            usage: None,
            pieces: 0,
            finished: false,
            refused: false,
            last_content: now,
            idle: watch.idle,
            deadline: watch.deadline,
            alarm: Box::pin(tokio::time::sleep_until(watch.deadline.min(now + watch.idle))),
            _permit: watch.permit,
        };
        made.take_note(&first);
        made.first = Some(first);
        made
    }

    fn take_note(&mut self, batch: &[StreamEvent]) {
        for event in batch {
            match event {
                StreamEvent::Usage(usage) => self.usage = Some(*usage),
                StreamEvent::Finish { reason, .. } => {
                    self.finished = true;
                    self.refused |= *reason == FinishReason::ContentFilter;
                }
                _ => {}
            }
        }
        if let Some(fold) = self.fold.as_mut() {
            fold.add(batch);
        }
        // Running totals without a token are no sign of life.
        let pieces = batch.iter().filter(|event| event.is_content()).count();
        self.pieces += pieces as u64;
        if pieces > 0 {
            self.last_content = Instant::now();
        }
    }

    /// The alarm is set once and re-set only when it rings too early, so that a token costs no timer.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<PipelineError> {
        loop {
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(PipelineError::DeadlineExceeded);
            }
            let due = self.last_content + self.idle;
            if now >= due {
                return Poll::Ready(PipelineError::UpstreamStalled);
            }
            self.alarm.as_mut().reset(due.min(self.deadline));
        }
    }

    /// What an answer that was cut off has used at least: what was said of it, and a token for each piece.
    fn used_so_far(&self) -> Usage {
        let said = self.usage.unwrap_or_default();
        Usage { completion: said.completion.max(self.pieces), ..said }
    }

    fn end_well(&mut self) {
        if let Some(record) = self.record.take() {
            record.succeed(self.usage.as_ref(), self.refused);
        }
        if let Some(row) = self.row.take() {
            row.succeed(self.usage.as_ref());
        }
        match self.fold.take() {
            Some(fold) if self.refused => fold.decline(),
            Some(fold) => fold.store(),
            None => {}
        }
    }

    fn end_badly(&mut self, class: FailureClass) -> PipelineError {
        if let Some(record) = self.record.take() {
            record.finish(Outcome::Failed { class, retry_after: None });
        }
        self.fold = None;
        let error = PipelineError::from_class(class, Duration::from_secs(1));
        let used = self.used_so_far();
        if let Some(mut row) = self.row.take() {
            row.used(Some(used));
            row.fail(&error);
        }
        error
    }

    fn broke(&mut self, error: &BackendError) -> PipelineError {
        tracing::warn!(class = error.class.label(), detail = %error.detail, "a stream broke after its first content");
        // The head is sent: what would have been an outage before is a cut answer now.
        let class =
            if error.class == FailureClass::Transport { FailureClass::Truncated } else { error.class };
        self.end_badly(class)
    }
}

impl Stream for Committing {
    type Item = Result<Vec<StreamEvent>, PipelineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if this.record.is_none() {
            return Poll::Ready(None);
        }
        match this.upstream.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(batch))) => {
                this.take_note(&batch);
                // An upstream that is always ready never lets the alarm ring.
                if !this.finished && this.last_content >= this.deadline {
                    this.end_badly(FailureClass::Local);
                    return Poll::Ready(Some(Err(PipelineError::DeadlineExceeded)));
                }
                Poll::Ready(Some(Ok(batch)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.broke(&error)))),
            Poll::Ready(None) => {
                this.end_well();
                Poll::Ready(None)
            }
            Poll::Pending => this.poll_alarm(cx).map(|error| {
                let class = match error {
                    PipelineError::DeadlineExceeded => FailureClass::Local,
                    _ => FailureClass::Stalled,
                };
                this.end_badly(class);
                Some(Err(error))
            }),
        }
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        // A caller may leave between the last token and the end of the transfer: the backend did its work. But
        // other choices and the usage may have been to come, so this is no answer to store.
        let used = self.used_so_far();
        if self.finished && self.record.is_some() {
            self.fold = None;
            if let Some(row) = self.row.take() {
                row.succeed(Some(&used));
            }
            self.end_well();
        } else if let Some(row) = self.row.as_mut() {
            row.used(Some(used));
        }
    }
}

/// A stored answer, given as a stream.
pub(super) fn replayed(events: Vec<StreamEvent>, permit: Permit) -> AnswerStream {
    let mut events = Some(events);
    Box::pin(futures::stream::poll_fn(move |_| {
        // The permit lives as long as the body.
        let _held = &permit;
        Poll::Ready(events.take().map(Ok))
    }))
}
