//! Per-service policy (breaker, retries, limits), parameter defaults, cache, monitor and routing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::codec::{seconds, seconds_opt};
use super::error::{SettingsError, ensure};

/// `[breaker]`: the circuit breakers' defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// Failures in a row that open a breaker.
    pub failure_threshold: u32,
    /// The first open interval; it doubles while trials fail.
    #[serde(with = "seconds")]
    pub reset_timeout: Duration,
    /// The longest open interval.
    #[serde(with = "seconds")]
    pub max_reset_timeout: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            reset_timeout: Duration::from_secs(60),
            max_reset_timeout: Duration::from_secs(300),
        }
    }
}

impl BreakerSettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        ensure(self.failure_threshold >= 1, "breaker.failure_threshold", "must be at least 1")?;
        ensure(!self.reset_timeout.is_zero(), "breaker.reset_timeout", "must be longer than 0 seconds")?;
        ensure(
            !self.max_reset_timeout.is_zero(),
            "breaker.max_reset_timeout",
            "must be longer than 0 seconds",
        )
    }
}

/// `[retry]`: the retries' defaults. They count repetitions of one backend; failing over to another is not a
/// retry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Times that the same backend is asked again.
    pub max_retries: u32,
    /// The base of the delay before that, with full jitter.
    #[serde(with = "seconds")]
    pub delay: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { max_retries: 3, delay: Duration::from_secs(1) }
    }
}

impl RetrySettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        ensure(self.max_retries <= 20, "retry.max_retries", "must be at most 20")
    }
}

/// `[policy.NAME]`: what differs for one service. Unset fields follow `[breaker]` and `[retry]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// Whether the breaker may open. Unset: true, false for `transformers`.
    pub circuit_breaker_enabled: Option<bool>,
    /// Failures in a row that open the breaker.
    pub failure_threshold: Option<u32>,
    /// The first open interval.
    #[serde(with = "seconds_opt")]
    pub reset_timeout: Option<Duration>,
    /// Times that the backend is asked again. Unset: as in `[retry]`, 0 for `transformers`.
    pub max_retries: Option<u32>,
    /// The base of the delay before that.
    #[serde(with = "seconds_opt")]
    pub retry_delay: Option<Duration>,
    /// Requests a minute that we send at most.
    pub rpm_limit: Option<u32>,
    /// Tokens a minute that we use at most.
    pub tpm_limit: Option<u32>,
    /// Requests a day that we send at most.
    pub daily_limit: Option<u32>,
    /// Multiplies the service's score in routing.
    pub weight: Option<f64>,
    /// Whether the service is asked only when all others are out. Unset: false, true for `transformers`.
    pub last_resort: Option<bool>,
}

impl PolicySettings {
    pub(super) fn validate(&self, name: &str) -> Result<(), SettingsError> {
        let key = |field: &str| format!("policy.{name}.{field}");
        ensure(self.failure_threshold != Some(0), &key("failure_threshold"), "must be at least 1")?;
        let at_once = self.reset_timeout.is_some_and(|span| span.is_zero());
        ensure(!at_once, &key("reset_timeout"), "must be longer than 0 seconds")?;
        ensure(self.max_retries.is_none_or(|n| n <= 20), &key("max_retries"), "must be at most 20")?;
        let limits =
            [("rpm_limit", self.rpm_limit), ("tpm_limit", self.tpm_limit), ("daily_limit", self.daily_limit)];
        for (field, limit) in limits {
            ensure(limit != Some(0), &key(field), "must be at least 1; leave it out for no limit")?;
        }
        let weight = self.weight.is_none_or(|w| w.is_finite() && (0.0..=1000.0).contains(&w));
        ensure(weight, &key("weight"), "must be from 0 to 1000")
    }
}

/// What holds for one service once all defaults are in.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePolicy {
    /// Whether the breaker may open.
    pub breaker_enabled: bool,
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// The first open interval.
    pub reset_timeout: Duration,
    /// The longest open interval, at least `reset_timeout`.
    pub max_reset_timeout: Duration,
    /// Times that the backend is asked again.
    pub max_retries: u32,
    /// The base of the delay before that, with full jitter.
    pub retry_delay: Duration,
    /// Requests a minute, where limited.
    pub rpm: Option<u32>,
    /// Tokens a minute, where limited.
    pub tpm: Option<u32>,
    /// Requests a day, where limited.
    pub daily: Option<u32>,
    /// Multiplies the service's score in routing; 1 by default.
    pub weight: f64,
    /// Whether it is asked only when all others are out.
    pub last_resort: bool,
}

impl ServicePolicy {
    /// Joins a service's own settings with the defaults of all.
    pub(super) fn join(
        name: &str,
        own: &PolicySettings,
        breaker: &BreakerSettings,
        retry: &RetrySettings,
    ) -> Self {
        // The embedded engine has no network to fail and no one to be spared: it is the last to answer, so
        // its breaker stays shut and a failure of it is final.
        let embedded = name == "transformers";
        let reset_timeout = own.reset_timeout.unwrap_or(breaker.reset_timeout);
        Self {
            breaker_enabled: own.circuit_breaker_enabled.unwrap_or(!embedded),
            failure_threshold: own.failure_threshold.unwrap_or(breaker.failure_threshold),
            reset_timeout,
            max_reset_timeout: breaker.max_reset_timeout.max(reset_timeout),
            max_retries: own.max_retries.unwrap_or(if embedded { 0 } else { retry.max_retries }),
            retry_delay: own.retry_delay.unwrap_or(retry.delay),
            rpm: own.rpm_limit,
            tpm: own.tpm_limit,
            daily: own.daily_limit,
            weight: own.weight.unwrap_or(1.0),
            last_resort: own.last_resort.unwrap_or(embedded),
        }
    }
}

/// `[params]`: values for what neither a request nor its alias says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParamSettings {
    /// Tokens to generate at most.
    pub max_tokens: Option<u32>,
    /// 0 to 2.
    pub temperature: Option<f32>,
    /// Above 0 to 1.
    pub top_p: Option<f32>,
    /// At least 1.
    pub top_k: Option<u32>,
}

impl ParamSettings {
    /// Checks the ranges; `prefix` is the path of the section.
    pub(super) fn validate(&self, prefix: &str) -> Result<(), SettingsError> {
        let key = |field: &str| format!("{prefix}.{field}");
        ensure(self.max_tokens != Some(0), &key("max_tokens"), "must be at least 1")?;
        let temperature = self.temperature.is_none_or(|t| (0.0..=2.0).contains(&t));
        ensure(temperature, &key("temperature"), "must be from 0 to 2")?;
        ensure(
            self.top_p.is_none_or(|p| p > 0.0 && p <= 1.0),
            &key("top_p"),
            "must be above 0 and at most 1",
        )?;
        ensure(self.top_k != Some(0), &key("top_k"), "must be at least 1")
    }
}

/// `[cache]`: the exact cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// Whether answers are kept at all.
    pub enabled: bool,
    /// How long an answer may be given again.
    #[serde(with = "seconds")]
    pub ttl: Duration,
    /// Memory for answers, in bytes.
    pub max_bytes: usize,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { enabled: true, ttl: Duration::from_secs(3600), max_bytes: 64 << 20 }
    }
}

impl CacheSettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        ensure(!self.ttl.is_zero(), "cache.ttl", "must be longer than 0 seconds; cache.enabled turns it off")
    }
}

/// `[monitor]`: how backends are watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSettings {
    /// Time between two probes of a backend.
    #[serde(with = "seconds")]
    pub interval: Duration,
    /// The longest a probe may take.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(2) }
    }
}

impl MonitorSettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let least = Duration::from_millis(50);
        ensure(self.interval >= least, "monitor.interval", "must be at least 50 ms")?;
        ensure(!self.timeout.is_zero(), "monitor.timeout", "must be longer than 0 seconds")
    }
}

/// `[routing]`: what the router believes before it has learned anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingSettings {
    /// By `service` or, stronger, `service/model`.
    pub arms: BTreeMap<String, ArmSettings>,
}

/// `[routing.arms."SERVICE/MODEL"]`: one arm, or all arms of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArmSettings {
    /// How good its answers are thought to be, 0 to 1. Only the order among arms matters.
    pub capability: Option<f32>,
    /// US dollars for a million tokens of prompt.
    pub price_in: Option<f64>,
    /// US dollars for a million tokens of answer.
    pub price_out: Option<f64>,
    /// Longest context in tokens.
    pub context_tokens: Option<u32>,
}

impl ArmSettings {
    fn or(self, weaker: Self) -> Self {
        Self {
            capability: self.capability.or(weaker.capability),
            price_in: self.price_in.or(weaker.price_in),
            price_out: self.price_out.or(weaker.price_out),
            context_tokens: self.context_tokens.or(weaker.context_tokens),
        }
    }
}

impl RoutingSettings {
    /// What is believed of an arm: its own entry, else its service's, field by field.
    pub fn arm(&self, service: &str, model: &str) -> ArmSettings {
        let own = self.arms.get(&format!("{service}/{model}")).copied().unwrap_or_default();
        own.or(self.arms.get(service).copied().unwrap_or_default())
    }

    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        for (name, arm) in &self.arms {
            let key = |field: &str| format!("routing.arms.{name}.{field}");
            let capability = arm.capability.is_none_or(|c| (0.0..=1.0).contains(&c));
            ensure(capability, &key("capability"), "must be from 0 to 1")?;
            for (field, price) in [("price_in", arm.price_in), ("price_out", arm.price_out)] {
                let good = price.is_none_or(|p| p.is_finite() && p >= 0.0);
                ensure(good, &key(field), "must be at least 0")?;
            }
            ensure(arm.context_tokens != Some(0), &key("context_tokens"), "must be at least 1")?;
        }
        Ok(())
    }
}
