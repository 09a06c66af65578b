//! Prometheus metrics.
//!
//! Every label value is bounded: routes are patterns, services and models are those of the catalogue, all
//! else is an enum of ours. A caller cannot create a series. Series of the hot path are looked up once and
//! kept ([`ArmMetrics`], [`EndpointMetrics`]), because a look-up by labels hashes and locks.

use std::sync::Arc;
use std::time::Duration;

use opossum_core::class::FailureClass;
use opossum_core::ids::ArmId;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::{EngineMetrics, JobMetrics, LedgerMetrics, names};

/// Seconds; from a cache hit to a long generation.
pub(super) const RESPONSE_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Seconds; from 1000 tokens/s to 1 token/s.
const TOKEN_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    response_time: HistogramVec,
    model_usage: IntCounterVec,
    cache_hits: IntCounterVec,
    cache_misses: IntCounterVec,
    availability: IntGaugeVec,
    breaker_state: IntGaugeVec,
    breaker_changes: IntCounterVec,
    choices: IntCounterVec,
    weight: GaugeVec,
    attempts: IntCounterVec,
    failovers: IntCounterVec,
    tokens: IntCounterVec,
    first_token: HistogramVec,
    token_time: HistogramVec,
    actor_restarts: IntCounterVec,
    /// Requests at work.
    pub in_flight: IntGauge,
    /// Requests waiting for admission.
    pub waiting: IntGauge,
    /// The embedded engine.
    pub engine: Arc<EngineMetrics>,
    /// The job queue.
    pub jobs: Arc<JobMetrics>,
    /// The ledger.
    pub ledger: Arc<LedgerMetrics>,
    /// Entries in the exact cache.
    pub cache_entries: IntGauge,
    /// Bytes in the exact cache.
    pub cache_bytes: IntGauge,
    /// Events lost because an actor's outbox was full.
    pub outbox_dropped: IntCounter,
}

/// The series of one arm.
#[derive(Clone)]
pub struct ArmMetrics {
    /// Answers by this model.
    pub answers: IntCounter,
    /// Attempts that ended well.
    pub attempts_ok: IntCounter,
    /// Prompt tokens.
    pub tokens_in: IntCounter,
    /// Generated tokens.
    pub tokens_out: IntCounter,
    /// Time to the first content, in seconds.
    pub first_token: Histogram,
    /// Time between two tokens, in seconds.
    pub token_time: Histogram,
}

/// The series of one route.
#[derive(Clone)]
pub struct EndpointMetrics {
    method: &'static str,
    endpoint: &'static str,
    ok: IntCounter,
    time: Histogram,
    all: IntCounterVec,
}

impl EndpointMetrics {
    /// Counts one answered request.
    pub fn seen(&self, status: u16, took: Duration) {
        if status == 200 {
            self.ok.inc();
        } else {
            let mut digits = [0_u8; 3];
            self.all.with_label_values(&[self.method, self.endpoint, status_text(status, &mut digits)]).inc();
        }
        self.time.observe(took.as_secs_f64());
    }
}

/// The three digits of a status, without an allocation.
fn status_text(status: u16, digits: &mut [u8; 3]) -> &str {
    let status = status.min(999);
    for (digit, unit) in digits.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + u8::try_from(status / unit % 10).unwrap_or(0);
    }
    std::str::from_utf8(digits).unwrap_or("000")
}

pub(super) struct Builder(Registry);

impl Builder {
    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let collector = made?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.keep(IntCounter::new(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.keep(IntGauge::new(name, help))
    }

    pub(super) fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        self.keep(CounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    pub(super) fn times(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Two metrics of one name: a defect, found at start.
    pub fn new(version: &str) -> prometheus::Result<Self> {
        let make = Builder(Registry::new());
        make.gauges(names::BUILD, "The running version; always 1.", &["version"])?
            .with_label_values(&[version])
            .set(1);
        let arm = ["service_name", "model_name"];
        Ok(Self {
            requests: make.counters(
                names::REQUESTS,
                "Requests by method, route and HTTP status; 499 is a caller who left.",
                &["method", "endpoint", "status"],
            )?,
            response_time: make.times(
                names::RESPONSE_TIME,
                "Seconds from a request's head to the end of its answer.",
                &["method", "endpoint"],
                RESPONSE_BUCKETS,
            )?,
            model_usage: make.counters(names::MODEL_USAGE, "Answers by model.", &["model_name"])?,
            cache_hits: make.counters(names::CACHE_HITS, "Answers out of a cache.", &["cache_type"])?,
            cache_misses: make.counters(
                names::CACHE_MISSES,
                "Look-ups that found nothing.",
                &["cache_type"],
            )?,
            availability: make.gauges(
                names::AVAILABILITY,
                "1 when the backend can be used, else 0.",
                &["service_name"],
            )?,
            breaker_state: make.gauges(
                names::BREAKER_STATE,
                "Breaker of a backend: 0 closed, 1 half-open, 2 open, 3 cooling or out of quota, 4 disabled.",
                &["service_name"],
            )?,
            breaker_changes: make.counters(
                names::BREAKER_CHANGES,
                "Changes of a breaker's state by the state it went to.",
                &["service_name", "to"],
            )?,
            choices: make.counters(
                names::CHOICES,
                "First choices of the router by reason.",
                &["service_name", "model_name", "reason"],
            )?,
            weight: make
                .keep(GaugeVec::new(Opts::new(names::WEIGHT, "The router's weight of an arm."), &arm))?,
            attempts: make.counters(
                names::ATTEMPTS,
                "Calls to backends by how they ended.",
                &["service_name", "model_name", "outcome"],
            )?,
            failovers: make.counters(
                names::FAILOVERS,
                "Requests that went on to another backend, by the backend that failed and why.",
                &["service_name", "class"],
            )?,
            tokens: make.counters(
                names::TOKENS,
                "Tokens in and out.",
                &["service_name", "model_name", "direction"],
            )?,
            first_token: make.times(
                names::FIRST_TOKEN,
                "Seconds from the call of a backend to the first content of its stream.",
                &arm,
                RESPONSE_BUCKETS,
            )?,
            token_time: make.times(
                names::TOKEN_TIME,
                "Mean seconds between two tokens of a stream.",
                &arm,
                TOKEN_BUCKETS,
            )?,
            actor_restarts: make.counters(
                names::ACTOR_RESTARTS,
                "Restarts of actors by cause.",
                &["actor", "cause"],
            )?,
            in_flight: make.gauge(names::IN_FLIGHT, "Requests at work.")?,
            waiting: make.gauge(names::WAITING, "Requests waiting for admission.")?,
            engine: Arc::new(EngineMetrics::new(&make)?),
            jobs: Arc::new(JobMetrics::new(&make)?),
            ledger: Arc::new(LedgerMetrics::new(&make)?),
            cache_entries: make.gauge(names::CACHE_KEYS, "Entries in the exact cache.")?,
            cache_bytes: make.gauge(names::CACHE_BYTES, "Bytes in the exact cache.")?,
            outbox_dropped: make
                .counter(names::OUTBOX_DROPPED, "Events lost because an actor's outbox was full.")?,
            registry: make.0,
        })
    }

    /// The series of a route.
    pub fn endpoint(&self, method: &'static str, endpoint: &'static str) -> EndpointMetrics {
        EndpointMetrics {
            method,
            endpoint,
            ok: self.requests.with_label_values(&[method, endpoint, "200"]),
            time: self.response_time.with_label_values(&[method, endpoint]),
            all: self.requests.clone(),
        }
    }

    /// The series of an arm.
    pub fn arm(&self, arm: &ArmId) -> ArmMetrics {
        let (service, model) = (arm.service.as_str(), arm.model.as_str());
        ArmMetrics {
            answers: self.model_usage.with_label_values(&[model]),
            attempts_ok: self.attempts.with_label_values(&[service, model, "ok"]),
            tokens_in: self.tokens.with_label_values(&[service, model, "input"]),
            tokens_out: self.tokens.with_label_values(&[service, model, "output"]),
            first_token: self.first_token.with_label_values(&[service, model]),
            token_time: self.token_time.with_label_values(&[service, model]),
        }
    }

    /// An attempt failed.
    pub fn attempt_failed(&self, arm: &ArmId, class: FailureClass) {
        self.attempts.with_label_values(&[arm.service.as_str(), arm.model.as_str(), class.label()]).inc();
    }

    /// A request goes on to another backend.
    pub fn failed_over(&self, arm: &ArmId, class: FailureClass) {
        self.failovers.with_label_values(&[arm.service.as_str(), class.label()]).inc();
    }

    /// The router's first choice of a request.
    pub fn chosen(&self, arm: &ArmId, reason: &str) {
        self.choices.with_label_values(&[arm.service.as_str(), arm.model.as_str(), reason]).inc();
    }

    /// A look-up in a cache.
    pub fn cache_seen(&self, kind: &str, hit: bool) {
        if hit { &self.cache_hits } else { &self.cache_misses }.with_label_values(&[kind]).inc();
    }

    /// Whether a backend can be used.
    pub fn set_available(&self, service: &str, available: bool) {
        self.availability.with_label_values(&[service]).set(i64::from(available));
    }

    /// The state of a backend's breaker, coded as the metric's help says.
    pub fn set_breaker(&self, service: &str, code: i64) {
        self.breaker_state.with_label_values(&[service]).set(code);
    }

    /// A breaker changed its state.
    pub fn breaker_changed(&self, service: &str, to: &str) {
        self.breaker_changes.with_label_values(&[service, to]).inc();
    }

    /// The router's weight of an arm.
    pub fn set_weight(&self, arm: &ArmId, weight: f64) {
        self.weight.with_label_values(&[arm.service.as_str(), arm.model.as_str()]).set(weight);
    }

    /// An actor came back.
    pub fn actor_restarted(&self, actor: &str, cause: &str) {
        self.actor_restarts.with_label_values(&[actor, cause]).inc();
    }

    /// All metrics in the Prometheus text format.
    ///
    /// # Errors
    /// Writing a metric failed: a defect.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn text_has_help_and_the_counted_series() {
        let metrics = Metrics::new("1.2.3").unwrap();
        let endpoint = metrics.endpoint("POST", "/v1/chat/completions");
        endpoint.seen(200, Duration::from_millis(3));
        endpoint.seen(503, Duration::from_millis(1));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("# HELP opossum_requests_total "));
        let ok = r#"opossum_requests_total{endpoint="/v1/chat/completions",method="POST",status="200"} 1"#;
        let bad = r#"opossum_requests_total{endpoint="/v1/chat/completions",method="POST",status="503"} 1"#;
        assert!(text.contains(ok) && text.contains(bad), "{text}");
        assert!(text.contains(r#"opossum_build_info{version="1.2.3"} 1"#));
    }
}
