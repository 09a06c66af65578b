//! The one path behind every door.
//!
//! Admission, cache, router, breaker, attempts, answer: see [`Service::generate`] and, for vectors,
//! [`Service::embed`], which differ only in what comes back. It knows no protocol and
//! holds no policy; what decides is in `opossum-core`, what owns state in `opossum-actors`.

mod ask;
pub mod catalogue;
pub mod context;
pub mod error;
mod lookup;
mod order;
mod outcome;
mod report;
mod run;
mod storing;
mod stream;
mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use opossum_actors::{CacheHandle, CachedAnswer, CachedBody, InferenceHandle, MonitorHandle, RouterHandle};
use opossum_core::answer::{Answer, FinishReason};
use opossum_core::embed::{EmbedRequest, Embeddings};
use opossum_core::request::GenerateRequest;
use opossum_core::retry::{Retry, RetryBudget, RetryConfig};
use opossum_ledger::Ledger;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::admission::{Admission, Permit};
use crate::telemetry::Metrics;
use ask::Ask;
use catalogue::Catalogue;
pub use context::{AnswerMeta, CacheMode, CacheStatus, RequestContext, Timing};
pub use error::PipelineError;
use lookup::Looked;
use opossum_core::collect::replay;
use outcome::AttemptRecord;
pub(crate) use report::LEDGER;
pub use report::{Health, ModelEntry};
use run::{Committed, Opened, Run};
use storing::{Folding, Storing};
pub use stream::AnswerStream;
use stream::{Committing, Watch};
pub use usage::Price;
use usage::UsageRow;

/// The path. Clones share everything.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

/// What the path is made of.
pub struct Parts {
    /// What can be asked for; replaced as a whole when discovery changes it.
    pub catalogue: Arc<ArcSwap<Catalogue>>,
    /// The door's count.
    pub admission: Admission,
    /// The cache's owner; `None` when caching is off.
    pub cache: Option<CacheHandle>,
    /// The router's owner.
    pub router: RouterHandle,
    /// What is known of the backends' health.
    pub monitor: MonitorHandle,
    /// The embedded engine, if there is one.
    pub inference: Option<InferenceHandle>,
    /// Where every request is written down.
    pub ledger: Ledger,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Longest silence between two tokens.
    pub token_idle: Duration,
    /// Longest time for a whole, unstreamed answer.
    pub total: Duration,
    /// When an answer is good but too slow.
    pub slow: SlowLimits,
}

/// When an answer is good but too slow.
#[derive(Clone, Copy, Debug)]
pub struct SlowLimits {
    /// First content of a stream later than this.
    pub first_token: Duration,
    /// Fewer tokens a second than this.
    pub tokens_per_second: f64,
    /// An unstreamed answer later than this.
    pub whole: Duration,
}

struct Inner {
    catalogue: Arc<ArcSwap<Catalogue>>,
    admission: Admission,
    cache: Option<CacheHandle>,
    router: RouterHandle,
    monitor: MonitorHandle,
    inference: Option<InferenceHandle>,
    ledger: Ledger,
    metrics: Arc<Metrics>,
    timeouts: Timeouts,
    budget: Mutex<RetryBudget>,
    /// Set once an answer was stored that is not repeatable by itself, because its caller asked for it:
    /// from then on such requests are looked up too.
    stored_on_request: AtomicBool,
}

/// An answer, or the beginning of one.
pub struct Served {
    /// What the caller is told about it.
    pub meta: AnswerMeta,
    /// The answer.
    pub body: ServedBody,
}

/// Vectors of inputs.
pub struct Embedded {
    /// What the caller is told about them.
    pub meta: AnswerMeta,
    /// The vectors.
    pub vectors: Arc<Embeddings>,
}

/// The two forms of an answer.
pub enum ServedBody {
    /// All of it.
    Whole(Arc<Answer>),
    /// As it comes; dropping it cancels the work.
    Stream(AnswerStream),
}

impl Service {
    /// Puts the path together.
    pub fn new(parts: Parts) -> Self {
        let Parts { catalogue, admission, cache, router, monitor, inference, ledger, metrics, timeouts } =
            parts;
        let budget = Mutex::new(RetryBudget::new(RetryConfig::default(), Instant::now().into_std()));
        let stored_on_request = AtomicBool::new(false);
        let inner = Inner {
            catalogue,
            admission,
            cache,
            router,
            monitor,
            inference,
            ledger,
            metrics,
            timeouts,
            budget,
            stored_on_request,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers a request: from the cache, or by the best backend that can, whatever is down.
    ///
    /// `model` is `auto`, an alias, `service/model` or a model's bare name. Dropping the future, or the
    /// stream it returned, cancels the work wherever it is.
    ///
    /// # Errors
    /// See [`PipelineError`]; nothing of an answer has been given to the caller then.
    pub async fn generate(
        &self,
        context: RequestContext,
        request: GenerateRequest,
        model: &str,
    ) -> Result<Served, PipelineError> {
        let stream = request.stream;
        let (answered, row) = self.inner.answer(&context, request, model).await?;
        match answered {
            Answered::Kept { meta, body: CachedBody::Answer(answer), permit } => {
                row.succeed(None);
                let body = if stream {
                    ServedBody::Stream(stream::replayed(replay(answer), permit))
                } else {
                    ServedBody::Whole(Arc::new(answer))
                };
                Ok(Served { meta, body })
            }
            Answered::Kept { .. } => Err(failed(row, PipelineError::Internal)),
            Answered::Made(made) => Ok(self.inner.serve(made, row, context.deadline)),
        }
    }

    /// Embeds inputs, by the same path.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub async fn embed(
        &self,
        context: RequestContext,
        request: EmbedRequest,
        model: &str,
    ) -> Result<Embedded, PipelineError> {
        let (answered, row) = self.inner.answer(&context, request, model).await?;
        match answered {
            Answered::Kept { meta, body: CachedBody::Embeddings(vectors), .. } => {
                row.succeed(None);
                Ok(Embedded { meta, vectors })
            }
            Answered::Kept { .. } => Err(failed(row, PipelineError::Internal)),
            Answered::Made(Made { meta, opened, record, storing, .. }) => {
                record.succeed(opened.usage.as_ref(), false);
                row.succeed(opened.usage.as_ref());
                let vectors = Arc::new(opened);
                if let Some(storing) = storing {
                    storing.store_vectors(Arc::clone(&vectors));
                }
                Ok(Embedded { meta, vectors })
            }
        }
    }

    /// The door's count, for draining and gauges.
    pub fn admission(&self) -> &Admission {
        &self.inner.admission
    }
}

/// Reads off how long each part took.
struct Clock {
    last: Instant,
    timing: Timing,
}

impl Clock {
    /// What passed since the request came in was waiting.
    fn start(received: Instant) -> Self {
        let last = Instant::now();
        Self { last, timing: Timing { queue: last - received, ..Timing::default() } }
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.last;
        self.last = now;
        lap
    }
}

/// An answer and where it comes from.
enum Answered<O> {
    /// It was stored.
    Kept { meta: AnswerMeta, body: CachedBody, permit: Permit },
    /// It was made for this request.
    Made(Made<O>),
}

/// An answer made for a request, or the beginning of one.
struct Made<O> {
    meta: AnswerMeta,
    opened: O,
    record: AttemptRecord,
    storing: Option<Storing>,
    permit: Permit,
}

impl Inner {
    fn may_retry(&self, retry: Retry) -> bool {
        self.budget.lock().try_spend(retry, Instant::now().into_std())
    }

    /// The path from a name to an answer that can no longer be undone, with the request's row, which is at its
    /// end where there is no answer.
    async fn answer<A: Ask>(
        &self,
        context: &RequestContext,
        request: A,
        model: &str,
    ) -> Result<(Answered<A::Opened>, UsageRow), PipelineError> {
        let mut row = UsageRow::begin(&self.ledger, context, model);
        match self.find_answer(context, request, model, &mut row).await {
            Ok(answered) => Ok((answered, row)),
            Err(error) => Err(failed(row, error)),
        }
    }

    async fn find_answer<A: Ask>(
        &self,
        context: &RequestContext,
        request: A,
        model: &str,
        row: &mut UsageRow,
    ) -> Result<Answered<A::Opened>, PipelineError> {
        let catalogue = self.catalogue.load_full();
        let target = catalogue.resolve(model)?;
        let needs = request.needs();
        let eligible = catalogue.eligible(target, needs, &context.only)?;
        let permit = self.admission.admit(context.lane, context.deadline).await?;
        let mut clock = Clock::start(context.received);
        self.budget.lock().on_request(clock.last.into_std());
        let looked = self.look_up(context, &request, model, target).await;
        clock.timing.cache = clock.lap();
        let (lead, status) = match looked {
            Looked::Found(cached) => {
                let meta = cached_meta(&catalogue, &cached, clock.timing)?;
                row.answered_by(&meta.arm, CacheStatus::Hit);
                return Ok(Answered::Kept { meta, body: cached.body.clone(), permit });
            }
            Looked::Lead(lead) => (Some(lead), CacheStatus::Miss),
            Looked::Unused(status) => (None, status),
        };
        let order = self.order(target, eligible, &request, needs, &context.only);
        clock.timing.route = clock.lap();
        let request = Arc::new(request);
        let committed = Run::new(self, context, &request, order, row).into_answer().await?;
        clock.timing.upstream = clock.lap();
        let Committed { candidate, opened, record, attempts, degraded } = committed;
        let arm = candidate.arm;
        row.answered_by(&arm, status);
        let storing = lead.map(|lead| Storing { lead, arm: arm.id.clone(), degraded });
        let meta = AnswerMeta { arm, attempts, cache: status, degraded, timing: clock.timing };
        Ok(Answered::Made(Made { meta, opened, record, storing, permit }))
    }

    fn serve(&self, made: Made<Opened>, row: UsageRow, deadline: Instant) -> Served {
        let Made { meta, opened, record, storing, permit } = made;
        let body = match opened {
            Opened::Whole(answer) => {
                record.succeed(answer.usage.as_ref(), is_refused(&answer));
                row.succeed(answer.usage.as_ref());
                ServedBody::Whole(keep(*answer, storing))
            }
            Opened::Stream { first, rest } => {
                let fold = storing.map(Folding::new);
                let idle = self.timeouts.token_idle;
                let watch = Watch { record, row, fold, idle, deadline, permit };
                ServedBody::Stream(Box::pin(Committing::new(first, rest, watch)))
            }
        };
        Served { meta, body }
    }
}

/// Ends the row of a request that gets no answer.
fn failed(row: UsageRow, error: PipelineError) -> PipelineError {
    row.fail(&error);
    error
}

fn cached_meta(
    catalogue: &Catalogue,
    cached: &CachedAnswer,
    timing: Timing,
) -> Result<AnswerMeta, PipelineError> {
    // The key covers the catalogue's revision, so the arm that made the answer is still there.
    let arm = catalogue.arms().iter().find(|arm| arm.id == cached.arm).ok_or(PipelineError::Internal)?;
    Ok(AnswerMeta {
        arm: Arc::clone(arm),
        attempts: 0,
        cache: CacheStatus::Hit,
        degraded: cached.degraded,
        timing,
    })
}

/// Stores an answer if that is wanted, and shares it with the caller.
fn keep(answer: Answer, storing: Option<Storing>) -> Arc<Answer> {
    match storing {
        // A refusal may be of this moment; asked again, the model may answer.
        Some(storing) if is_refused(&answer) => {
            storing.decline();
            Arc::new(answer)
        }
        Some(storing) => {
            let shared = Arc::new(answer);
            storing.store((*shared).clone());
            shared
        }
        None => Arc::new(answer),
    }
}

fn is_refused(answer: &Answer) -> bool {
    answer.choices.iter().any(|c| c.finish == FinishReason::ContentFilter)
}

/// A request's fingerprint for the breaker, which counts the server errors of one request once.
fn fingerprint(request_id: &str) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::OnceLock;
    // Keyed, so that a caller who chooses request ids cannot choose fingerprints.
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    KEYS.get_or_init(RandomState::new).hash_one(request_id)
}
