//! Names of metrics. Dashboards and alerts lean on them.

/// Requests by method, route and status.
pub const REQUESTS: &str = "opossum_requests_total";
/// Time from a request's head to the end of its answer.
pub const RESPONSE_TIME: &str = "opossum_response_time_seconds";
/// Answers by model.
pub const MODEL_USAGE: &str = "opossum_model_usage_total";
/// Answers out of a cache.
pub const CACHE_HITS: &str = "opossum_cache_hits_total";
/// Look-ups that found nothing in a cache.
pub const CACHE_MISSES: &str = "opossum_cache_misses_total";
/// 1 when a backend can be used, else 0.
pub const AVAILABILITY: &str = "opossum_service_availability";
/// State of a backend's breaker.
pub const BREAKER_STATE: &str = "opossum_breaker_state";
/// Changes of a breaker's state.
pub const BREAKER_CHANGES: &str = "opossum_breaker_transitions_total";
/// The router's first choices.
pub const CHOICES: &str = "opossum_router_choices_total";
/// The router's weights.
pub const WEIGHT: &str = "opossum_router_weight";
/// Calls to backends by how they ended.
pub const ATTEMPTS: &str = "opossum_attempts_total";
/// Requests that went on to another backend.
pub const FAILOVERS: &str = "opossum_failovers_total";
/// Tokens in and out.
pub const TOKENS: &str = "opossum_tokens_total";
/// Time to the first content of a stream.
pub const FIRST_TOKEN: &str = "opossum_time_to_first_token_seconds";
/// Time between two tokens of a stream.
pub const TOKEN_TIME: &str = "opossum_time_per_output_token_seconds";
/// Requests at work.
pub const IN_FLIGHT: &str = "opossum_requests_in_flight";
/// Requests waiting for admission.
pub const WAITING: &str = "opossum_requests_waiting";
/// Restarts of actors by cause.
pub const ACTOR_RESTARTS: &str = "opossum_actor_restarts_total";
/// Events lost because an actor's outbox was full.
pub const OUTBOX_DROPPED: &str = "opossum_outbox_dropped_total";
/// Sequences the embedded engine works on.
pub const ENGINE_ACTIVE: &str = "opossum_engine_active_sequences";
/// Sequences that wait for the embedded engine.
pub const ENGINE_QUEUED: &str = "opossum_engine_queued_sequences";
/// Sequences in one step of the embedded engine.
pub const ENGINE_BATCH: &str = "opossum_engine_batch_size";
/// Time between a job's submission and its start in the embedded engine.
pub const ENGINE_WAIT: &str = "opossum_engine_queue_wait_seconds";
/// Time between a job's submission and its first token in the embedded engine.
pub const ENGINE_FIRST_TOKEN: &str = "opossum_engine_time_to_first_token_seconds";
/// Tokens the embedded engine computed.
pub const ENGINE_TOKENS: &str = "opossum_engine_tokens_total";
/// Time the embedded engine computed.
pub const ENGINE_SECONDS: &str = "opossum_engine_compute_seconds_total";
/// Prompt tokens the embedded engine did not have to compute.
pub const ENGINE_REUSED: &str = "opossum_engine_prefix_reused_tokens_total";
/// Sequences that had to give their KV blocks to others.
pub const ENGINE_PREEMPTIONS: &str = "opossum_engine_preemptions_total";
/// Blocks of the embedded engine's KV cache.
pub const ENGINE_BLOCKS: &str = "opossum_engine_kv_blocks";
/// Blocks of it that sequences hold.
pub const ENGINE_BLOCKS_IN_USE: &str = "opossum_engine_kv_blocks_in_use";
/// Entries in the exact cache.
pub const CACHE_KEYS: &str = "opossum_cache_entries";
/// Bytes in the exact cache.
pub const CACHE_BYTES: &str = "opossum_cache_bytes";
/// Messages that wait in a queue of the broker.
pub const QUEUE_DEPTH: &str = "opossum_queue_depth";
/// How long the oldest job of a queue has waited.
pub const QUEUE_AGE: &str = "opossum_queue_age_seconds";
/// Time between a job's publishing and an attempt at it.
pub const JOB_WAIT: &str = "opossum_job_wait_seconds";
/// Messages of the job queues by what became of them.
pub const JOBS: &str = "opossum_jobs_total";
/// 1 when a connection to the broker works, else 0.
pub const AMQP_CONNECTED: &str = "opossum_amqp_connected";
/// Rows of usage by what became of them.
pub const LEDGER_ROWS: &str = "opossum_ledger_usage_rows_total";
/// Calls to the ledger's database that failed.
pub const LEDGER_FAILURES: &str = "opossum_ledger_failures_total";
/// Version, as a constant 1.
pub const BUILD: &str = "opossum_build_info";
