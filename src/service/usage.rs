//! One request's row in the ledger, written when the request is over, however it ends.
//!
//! The row is a guard value that travels with the answer: it is told what is learned on the way, and handed
//! to the ledger exactly once. Dropped before its end was told, it belongs to a caller who left, or to a
//! defect of ours. Handing it over neither waits nor fails.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opossum_core::answer::Usage;
use opossum_ledger::{Ledger, UsageRecord};
use tokio::time::Instant;

use super::catalogue::Arm;
use super::context::{CacheMode, CacheStatus, RequestContext};
use super::error::PipelineError;

/// What an arm's tokens cost, in US dollars for a million of them, where that is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Price {
    /// Of the prompt.
    pub prompt: Option<f64>,
    /// Of the answer.
    pub answer: Option<f64>,
}

impl Price {
    /// Billionths of a US dollar; `None` where the count or the price of any of the tokens is not known.
    fn of(self, tokens: &Usage) -> Option<i64> {
        // A dollar for a million tokens is a thousand billionths for each.
        let part = |count: u64, price: f64| count as f64 * price * 1000.0;
        // No prompt is without tokens: theirs were not told.
        let prompt = (tokens.prompt > 0).then_some(part(tokens.prompt, self.prompt?))?;
        let answer = if tokens.completion == 0 { 0.0 } else { part(tokens.completion, self.answer?) };
        Some((prompt + answer).round() as i64)
    }
}

/// A request's row while the request is under way.
pub(super) struct UsageRow {
    ledger: Ledger,
    request_id: Arc<str>,
    tenant: Arc<str>,
    endpoint: &'static str,
    asked_model: Arc<str>,
    received: Instant,
    first_content: Option<Instant>,
    arm: Option<Arc<Arm>>,
    cache: CacheStatus,
    tokens: Option<Usage>,
    outcome: Option<&'static str>,
    comes_again: bool,
    /// The request is not over: the row is its next try's.
    put_off: bool,
    /// Calls to backends made so far.
    pub(super) attempts: u32,
}

impl UsageRow {
    /// Begins with a request.
    pub(super) fn begin(ledger: &Ledger, context: &RequestContext, model: &str) -> Self {
        let bypass = context.cache == CacheMode::Bypass;
        Self {
            ledger: ledger.clone(),
            request_id: Arc::clone(&context.request_id),
            tenant: Arc::clone(&context.tenant),
            endpoint: context.endpoint,
            asked_model: Arc::from(model),
            received: context.received,
            first_content: None,
            arm: None,
            cache: if bypass { CacheStatus::Bypass } else { CacheStatus::Miss },
            tokens: None,
            outcome: None,
            comes_again: context.comes_again,
            put_off: false,
            attempts: 0,
        }
    }

    /// Who answers, or has answered what was stored.
    pub(super) fn answered_by(&mut self, arm: &Arc<Arm>, cache: CacheStatus) {
        self.arm = Some(Arc::clone(arm));
        self.cache = cache;
    }

    /// The first content of a stream is here.
    pub(super) fn content_began(&mut self, at: Instant) {
        self.first_content = Some(at);
    }

    /// What has been used until now, should the request end here.
    pub(super) fn used(&mut self, tokens: Option<Usage>) {
        self.tokens = tokens;
    }

    /// The answer is whole.
    pub(super) fn succeed(mut self, tokens: Option<&Usage>) {
        self.tokens = tokens.copied();
        self.outcome = Some("ok");
    }

    /// The request ended with an error.
    pub(super) fn fail(mut self, error: &PipelineError) {
        let no_place = matches!(error, PipelineError::Overloaded { .. } | PipelineError::Draining { .. });
        self.put_off = self.comes_again && no_place;
        self.outcome = Some(error.label());
    }

    fn cost(&self) -> Option<i64> {
        match (self.cache, &self.arm, &self.tokens) {
            (CacheStatus::Hit, ..) => Some(0),
            (_, Some(arm), Some(tokens)) => arm.price.of(tokens),
            _ => None,
        }
    }
}

impl Drop for UsageRow {
    fn drop(&mut self) {
        if self.put_off {
            return;
        }
        let unsaid =
            if std::thread::panicking() { PipelineError::Internal } else { PipelineError::Cancelled };
        let outcome = self.outcome.unwrap_or_else(|| unsaid.label());
        self.ledger.record(UsageRecord {
            at_ms: now_ms(),
            request_id: Arc::clone(&self.request_id),
            tenant: Arc::clone(&self.tenant),
            endpoint: Cow::Borrowed(self.endpoint),
            asked_model: Arc::clone(&self.asked_model),
            arm: self.arm.as_ref().map(|arm| arm.id.clone()),
            attempts: self.attempts,
            cache: Cow::Borrowed(self.cache.as_str()),
            tokens: self.tokens,
            cost_nano_usd: self.cost(),
            latency: self.received.elapsed(),
            first_token: self.first_content.map(|first| first - self.received),
            outcome: Cow::Borrowed(outcome),
        });
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_known_where_every_token_has_a_price() {
        let tokens = |prompt, completion| Usage { prompt, completion, ..Usage::default() };
        let price = |prompt, answer| Price { prompt, answer };
        // 1000 tokens at 0.3 dollars and 100 at 2.5 dollars a million are 0.00055 dollars.
        assert_eq!(price(Some(0.3), Some(2.5)).of(&tokens(1000, 100)), Some(550_000));
        assert_eq!(price(Some(0.3), None).of(&tokens(1000, 0)), Some(300_000));
        assert_eq!(price(Some(0.3), None).of(&tokens(1000, 1)), None);
        assert_eq!(price(None, Some(2.5)).of(&tokens(1, 1)), None);
        assert_eq!(price(Some(0.3), Some(2.5)).of(&tokens(0, 100)), None);
        assert_eq!(price(Some(0.0), Some(0.0)).of(&tokens(7, 7)), Some(0));
        assert_eq!(price(Some(1.0), Some(1.0)).of(&tokens(u64::MAX, 1)), Some(i64::MAX));
    }
}
