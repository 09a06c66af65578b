//! Metrics of the embedded engine.

use std::time::Duration;

use opossum_backends::transformers::{EngineObserver, LocalLoad, StepReport};
use prometheus::{Counter, Histogram, IntCounter, IntGauge};

use super::metrics::{Builder, RESPONSE_BUCKETS};
use super::names;

/// Sequences; `TRANSFORMERS_WORKERS` is at most the last of them.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The series of the embedded engine. Tokens per second of a phase are the rate of its tokens over the rate of its
/// seconds.
#[derive(Debug)]
pub struct EngineMetrics {
    active: IntGauge,
    queued: IntGauge,
    blocks: IntGauge,
    blocks_in_use: IntGauge,
    batch: Histogram,
    wait: Histogram,
    first_token: Histogram,
    prefill: Phase,
    decode: Phase,
    reused: IntCounter,
    preemptions: IntCounter,
}

/// What one phase did, and how long it took.
#[derive(Debug)]
struct Phase {
    tokens: IntCounter,
    seconds: Counter,
}

impl Phase {
    fn add(&self, tokens: usize, time: Duration) {
        self.tokens.inc_by(tokens as u64);
        self.seconds.inc_by(time.as_secs_f64());
    }
}

impl EngineMetrics {
    pub(super) fn new(make: &Builder) -> prometheus::Result<Self> {
        let tokens = make.counters(
            names::ENGINE_TOKENS,
            "Tokens the embedded engine computed, of prompts (prefill) and of answers (decode).",
            &["phase"],
        )?;
        let seconds = make.seconds(
            names::ENGINE_SECONDS,
            "Seconds the embedded engine computed; in a step of both phases, what it took beyond a step of decodes \
             alone is prefill.",
            &["phase"],
        )?;
        let phase = |name| Phase {
            tokens: tokens.with_label_values(&[name]),
            seconds: seconds.with_label_values(&[name]),
        };
        Ok(Self {
            active: make.gauge(names::ENGINE_ACTIVE, "Sequences the embedded engine works on.")?,
            queued: make.gauge(names::ENGINE_QUEUED, "Sequences that wait for the embedded engine.")?,
            blocks: make
                .gauge(names::ENGINE_BLOCKS, "Blocks of 32 tokens in the embedded engine's KV cache.")?,
            blocks_in_use: make
                .gauge(names::ENGINE_BLOCKS_IN_USE, "Blocks of the KV cache that sequences hold.")?,
            batch: make.histogram(
                names::ENGINE_BATCH,
                "Sequences computed in one step of the embedded engine.",
                BATCH_BUCKETS,
            )?,
            wait: make.histogram(
                names::ENGINE_WAIT,
                "Seconds from a job's submission to its start in the embedded engine.",
                RESPONSE_BUCKETS,
            )?,
            first_token: make.histogram(
                names::ENGINE_FIRST_TOKEN,
                "Seconds from a job's submission to its first token in the embedded engine.",
                RESPONSE_BUCKETS,
            )?,
            prefill: phase("prefill"),
            decode: phase("decode"),
            reused: make.counter(
                names::ENGINE_REUSED,
                "Prompt tokens not computed because the KV cache held them from an earlier prompt.",
            )?,
            preemptions: make.counter(
                names::ENGINE_PREEMPTIONS,
                "Sequences that gave their KV blocks to others, to be computed again later.",
            )?,
        })
    }

    /// Brings the gauges up to date.
    pub fn set(&self, load: &LocalLoad) {
        let gauge = |gauge: &IntGauge, n: usize| gauge.set(i64::try_from(n).unwrap_or(i64::MAX));
        gauge(&self.active, load.active);
        gauge(&self.queued, load.queued);
        gauge(&self.blocks, load.blocks);
        gauge(&self.blocks_in_use, load.blocks_in_use);
    }
}

impl EngineObserver for EngineMetrics {
    fn step(&self, report: &StepReport) {
        self.batch.observe(report.sequences as f64);
        self.prefill.add(report.prefilled, report.prefill);
        self.decode.add(report.decoded, report.took.saturating_sub(report.prefill));
        self.reused.inc_by(report.reused as u64);
        self.preemptions.inc_by(report.preempted as u64);
    }

    fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    fn first_token(&self, time: Duration) {
        self.first_token.observe(time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::Metrics;
    use super::*;

    #[test]
    fn a_step_is_counted_by_phase_and_gauges_show_the_cache() {
        let metrics = Metrics::new("1").unwrap();
        let took = Duration::from_millis(250);
        let prefill = Duration::from_millis(125);
        let step = StepReport {
            sequences: 3,
            decoded: 2,
            prefilled: 64,
            generated: 2,
            reused: 32,
            ..Default::default()
        };
        metrics.engine.step(&StepReport { took, prefill, preempted: 1, ..step });
        metrics.engine.waited(Duration::from_millis(3));
        metrics.engine.first_token(Duration::from_millis(30));
        metrics.engine.set(&LocalLoad {
            active: 3,
            queued: 4,
            blocks: 128,
            blocks_in_use: 7,
            ..LocalLoad::default()
        });
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "opossum_engine_batch_size_bucket{le=\"2\"} 0",
            "opossum_engine_batch_size_bucket{le=\"4\"} 1",
            "opossum_engine_tokens_total{phase=\"prefill\"} 64",
            "opossum_engine_tokens_total{phase=\"decode\"} 2",
            "opossum_engine_compute_seconds_total{phase=\"prefill\"} 0.125",
            "opossum_engine_compute_seconds_total{phase=\"decode\"} 0.125",
            "opossum_engine_prefix_reused_tokens_total 32",
            "opossum_engine_preemptions_total 1",
            "opossum_engine_queue_wait_seconds_count 1",
            "opossum_engine_time_to_first_token_seconds_bucket{le=\"0.05\"} 1",
            "opossum_engine_kv_blocks 128",
            "opossum_engine_kv_blocks_in_use 7",
            "opossum_engine_active_sequences 3",
            "opossum_engine_queued_sequences 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
