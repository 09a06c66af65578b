//! How an attempt ended, and what that means.
//!
//! The class of a failure decides, never its status code alone: a caller's own 400 must not trip a breaker,
//! a 429 must cool a backend without calling it broken, and a spent daily quota must not be probed.

use serde::Serialize;

/// How an attempt at a backend ended, when it did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Refused, unresolvable, TLS failed, or reset before the first byte of the answer.
    Transport,
    /// No content within the budget for the first token (or for the whole answer, unstreamed).
    FirstTokenTimeout,
    /// Silence between two tokens for longer than allowed.
    Stalled,
    /// The answer ended without its end mark.
    Truncated,
    /// 500, 502, 503, 529 and other errors of the upstream's own.
    ServerError,
    /// An answer of 200 that is not what the protocol says.
    BadResponse,
    /// 429 or a busy signal: wait and come again.
    RateLimited,
    /// The allowance of the day, or the paid credit, is spent.
    QuotaExhausted,
    /// The upstream does not accept our credential.
    BadCredential,
    /// The upstream does not have this model.
    ModelMissing,
    /// The embedded model cannot be loaded at present.
    NotLoaded,
    /// The embedded model's chat template cannot lay out these messages.
    Template,
    /// The request is wrong for any backend.
    CallerError,
    /// The request does not fit this model's context.
    ContextLength,
    /// The upstream refuses the content.
    Refused,
    /// The caller left.
    Cancelled,
    /// Our own limit: deadline passed or local queue full.
    Local,
}

/// What a failure does to the breaker of its arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerEffect {
    /// Counts as a failure of the whole backend and of the arm.
    TripBackend,
    /// Counts as a failure of the arm.
    Trip,
    /// No failure: cool until the time the upstream named.
    Cool,
    /// No failure: out of use until the allowance is renewed.
    Exhaust,
    /// Out of use until the configuration is mended; probed rarely. The whole backend.
    DisableBackend,
    /// Out of use until the configuration is mended; probed rarely. This model only.
    DisableModel,
    /// Nothing.
    None,
}

/// Where a request may go after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another backend at once; the same one again after a delay, when none is left.
    OtherThenSame,
    /// Another backend at once; never the same one.
    Other,
    /// Nowhere: the answer is the caller's.
    Stop,
}

impl FailureClass {
    /// Every class, for tables and tests.
    pub const ALL: [FailureClass; 17] = [
        FailureClass::Transport,
        FailureClass::FirstTokenTimeout,
        FailureClass::Stalled,
        FailureClass::Truncated,
        FailureClass::ServerError,
        FailureClass::BadResponse,
        FailureClass::RateLimited,
        FailureClass::QuotaExhausted,
        FailureClass::BadCredential,
        FailureClass::ModelMissing,
        FailureClass::NotLoaded,
        FailureClass::Template,
        FailureClass::CallerError,
        FailureClass::ContextLength,
        FailureClass::Refused,
        FailureClass::Cancelled,
        FailureClass::Local,
    ];

    /// What it does to the breaker.
    pub fn breaker(self) -> BreakerEffect {
        match self {
            FailureClass::Transport => BreakerEffect::TripBackend,
            FailureClass::FirstTokenTimeout
            | FailureClass::Stalled
            | FailureClass::Truncated
            | FailureClass::ServerError
            | FailureClass::BadResponse => BreakerEffect::Trip,
            FailureClass::RateLimited => BreakerEffect::Cool,
            FailureClass::QuotaExhausted => BreakerEffect::Exhaust,
            FailureClass::BadCredential => BreakerEffect::DisableBackend,
            FailureClass::ModelMissing => BreakerEffect::DisableModel,
            // Its owner loads it again by itself; a breaker would only make that later.
            FailureClass::NotLoaded
            | FailureClass::Template
            | FailureClass::CallerError
            | FailureClass::ContextLength
            | FailureClass::Refused
            | FailureClass::Cancelled
            | FailureClass::Local => BreakerEffect::None,
        }
    }

    /// Where the request may go next, as long as nothing has been sent to the caller.
    pub fn next(self) -> Next {
        match self {
            FailureClass::Transport | FailureClass::ServerError => Next::OtherThenSame,
            // Asked again, the same backend would most likely take the same long time or fail the same way.
            FailureClass::FirstTokenTimeout
            | FailureClass::Stalled
            | FailureClass::Truncated
            | FailureClass::BadResponse
            | FailureClass::RateLimited
            | FailureClass::QuotaExhausted
            | FailureClass::BadCredential
            | FailureClass::ModelMissing
            | FailureClass::NotLoaded
            | FailureClass::Template => Next::Other,
            FailureClass::CallerError
            | FailureClass::ContextLength
            | FailureClass::Refused
            | FailureClass::Cancelled
            | FailureClass::Local => Next::Stop,
        }
    }

    /// Whether the learned weight of the arm falls.
    pub fn lowers_weight(self) -> bool {
        matches!(self.breaker(), BreakerEffect::Trip | BreakerEffect::TripBackend)
    }

    /// The class's name in metrics, logs and answers to operators.
    pub fn label(self) -> &'static str {
        match self {
            FailureClass::Transport => "transport",
            FailureClass::FirstTokenTimeout => "first_token_timeout",
            FailureClass::Stalled => "stalled",
            FailureClass::Truncated => "truncated",
            FailureClass::ServerError => "server_error",
            FailureClass::BadResponse => "bad_response",
            FailureClass::RateLimited => "rate_limited",
            FailureClass::QuotaExhausted => "quota_exhausted",
            FailureClass::BadCredential => "bad_credential",
            FailureClass::ModelMissing => "model_missing",
            FailureClass::NotLoaded => "not_loaded",
            FailureClass::Template => "template",
            FailureClass::CallerError => "caller_error",
            FailureClass::ContextLength => "context_length",
            FailureClass::Refused => "refused",
            FailureClass::Cancelled => "cancelled",
            FailureClass::Local => "local",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_own_fault_touches_nothing() {
        for class in [FailureClass::CallerError, FailureClass::ContextLength, FailureClass::Refused] {
            assert_eq!(class.breaker(), BreakerEffect::None);
            assert!(!class.lowers_weight());
        }
    }

    #[test]
    fn limits_cool_but_never_trip() {
        assert_eq!(FailureClass::RateLimited.breaker(), BreakerEffect::Cool);
        assert_eq!(FailureClass::QuotaExhausted.breaker(), BreakerEffect::Exhaust);
        assert!(!FailureClass::RateLimited.lowers_weight());
    }

    #[test]
    fn labels_are_distinct() {
        let mut labels: Vec<_> = FailureClass::ALL.iter().map(|c| c.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), FailureClass::ALL.len());
    }
}
