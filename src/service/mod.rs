//! The one path behind every door.
//!
//! Admission, cache, router, breaker, attempts, answer: see [`Service::generate`]. It knows no protocol and
//! holds no policy; what decides is in `opossum-core`, what owns state in `opossum-actors`.

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

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use opossum_actors::{CacheHandle, InferenceHandle, LeadGuard, MonitorHandle, RouterHandle};
use opossum_core::answer::{Answer, FinishReason};
use opossum_core::request::GenerateRequest;
use opossum_core::retry::{Retry, RetryBudget, RetryConfig};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::admission::{Admission, Lane, Permit};
use crate::telemetry::Metrics;
use catalogue::Catalogue;
pub use context::{AnswerMeta, CacheMode, CacheStatus, RequestContext, Timing};
pub use error::PipelineError;
use lookup::Looked;
use opossum_core::collect::replay;
pub use report::{Health, ModelEntry};
use run::{Committed, Opened, Run};
use storing::{Folding, Storing};
pub use stream::AnswerStream;
use stream::{Committing, Watch};

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
        let Parts { catalogue, admission, cache, router, monitor, inference, metrics, timeouts } = parts;
        let budget = Mutex::new(RetryBudget::new(RetryConfig::default(), Instant::now().into_std()));
        let stored_on_request = AtomicBool::new(false);
        let inner = Inner {
            catalogue,
            admission,
            cache,
            router,
            monitor,
            inference,
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
        let inner = &*self.inner;
        let catalogue = inner.catalogue.load_full();
        let target = catalogue.resolve(model)?;
        let needs = request.needs();
        let eligible = catalogue.eligible(target, needs, &context.only)?;
        let permit = inner.admission.admit(Lane::Live, context.deadline).await?;
        let mut clock = Clock::start(context.received);
        inner.budget.lock().on_request(clock.last.into_std());
        let stream = request.stream;
        let looked = inner.look_up(&context, &request, model, target).await;
        clock.timing.cache = clock.lap();
        let (lead, status) = match looked {
            Looked::Found(cached) => {
                return inner.serve_cached(&catalogue, &cached, stream, clock.timing, permit);
            }
            Looked::Lead(lead) => (Some(lead), CacheStatus::Miss),
            Looked::Unused(status) => (None, status),
        };
        let order = inner.order(target, eligible, &request, needs, &context.only);
        clock.timing.route = clock.lap();
        let request = Arc::new(request);
        let committed = Run::new(inner, &context, &request, order).into_answer().await?;
        clock.timing.upstream = clock.lap();
        Ok(inner.serve(
            committed,
            Begun { lead, status, timing: clock.timing, deadline: context.deadline, permit },
        ))
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

/// What was settled before the attempts.
struct Begun {
    lead: Option<LeadGuard>,
    status: CacheStatus,
    timing: Timing,
    deadline: Instant,
    permit: Permit,
}

impl Inner {
    fn may_retry(&self, retry: Retry) -> bool {
        self.budget.lock().try_spend(retry, Instant::now().into_std())
    }

    fn serve(&self, committed: Committed, begun: Begun) -> Served {
        let Committed { candidate, opened, record, attempts, degraded } = committed;
        let arm = candidate.arm;
        let storing = begun.lead.map(|lead| Storing { lead, arm: arm.id.clone(), degraded });
        let meta = AnswerMeta { arm, attempts, cache: begun.status, degraded, timing: begun.timing };
        let body = match opened {
            Opened::Whole(answer) => {
                record.succeed(answer.usage.as_ref(), is_refused(&answer));
                ServedBody::Whole(keep(*answer, storing))
            }
            Opened::Stream { first, rest } => {
                let watch = Watch {
                    record,
                    fold: storing.map(Folding::new),
                    idle: self.timeouts.token_idle,
                    deadline: begun.deadline,
                    permit: begun.permit,
                };
                ServedBody::Stream(Box::pin(Committing::new(first, rest, watch)))
            }
        };
        Served { meta, body }
    }

    fn serve_cached(
        &self,
        catalogue: &Catalogue,
        cached: &opossum_actors::CachedAnswer,
        stream: bool,
        timing: Timing,
        permit: Permit,
    ) -> Result<Served, PipelineError> {
        // The key covers the catalogue's revision, so the arm that made the answer is still there.
        let arm = catalogue.arms().iter().find(|arm| arm.id == cached.arm).ok_or(PipelineError::Internal)?;
        let meta = AnswerMeta {
            arm: Arc::clone(arm),
            attempts: 0,
            cache: CacheStatus::Hit,
            degraded: cached.degraded,
            timing,
        };
        let body = if stream {
            ServedBody::Stream(stream::replayed(replay(cached.answer.clone()), permit))
        } else {
            ServedBody::Whole(Arc::new(cached.answer.clone()))
        };
        Ok(Served { meta, body })
    }
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
