//! Which arm answers: ordering the candidates of a request, best first.
//!
//! The order is the failover order. The owner of a [`Router`] feeds it what was seen of attempts and
//! publishes a [`Policy`]; the request path asks the policy, which costs neither a message nor an allocation.
//!
//! # Score
//! For each arm that can serve the request,
//!
//! ```text
//! score = weight · capability · s · v · (1 - λ_l · min(l / 10 s, 1))  -  λ_c · c
//! ```
//!
//! with `weight` and `capability` from the configuration, `s` the success rate and `l` the usual latency
//! ([`ArmHealth`]), `v` the availability given at the time of choice (0 takes the arm out), `c` this
//! request's estimated cost as a share of the dearest arm's, and λ_l, λ_c the caller's weights. Arms are
//! ordered by tier first: what surely fits before what may not, and the last resort after all others.
//!
//! # Health
//! Of every attempt, with `t` counting outcomes of all arms (a second without any counts as one) and
//! `h = 0.98`:
//!
//! ```text
//! s = (5 · 0.98 + Σ h^(t-ti) ok_i)      / (5 + Σ h^(t-ti))
//! ln l = (2 · ln l0 + Σ h^(t-ti) ln lat_i) / (2 + Σ h^(t-ti))
//! ```
//!
//! The sums fade, so an arm that is no longer chosen drifts back to its prior and is tried again: the slow
//! counterpart of a half-open breaker. Discounted sums as in A. Garivier and E. Moulines, "On
//! Upper-Confidence Bound Policies for Switching Bandit Problems" (2011).
//!
//! Whatever is not a finite number is replaced by its prior, on the way in and on the way out.

mod arm;
mod choose;
mod health;
mod learn;

#[cfg(test)]
mod tests;

pub use arm::{ArmIx, ArmSpec};
pub use choose::{ChooseContext, Decision, LeftOut, Policy, Ranked, Reason, Terms};
pub use health::ArmHealth;
pub use learn::{ArmState, ArmWeight, AttemptSeen, Router, RouterConfig, RouterState};
