//! Words of the domain and pure decisions.
//!
//! This crate knows nobody: no actor, socket, clock or runtime. Whatever decides takes `now` and randomness
//! as arguments, so that each decision is proven by unit and property tests without a sleep.
//!
//! | module | what it decides or names |
//! | --- | --- |
//! | [`ids`] | names of services, models and the arms made of both |
//! | [`request`], [`answer`] | what is asked and what comes back, in no vendor's dialect |
//! | [`embed`] | the same for embeddings |
//! | [`needs`] | what a request needs and a backend can do |
//! | [`class`] | how an attempt ended, and what that means for breaker, retry, caller and router |
//! | [`collect`] | stream events into a whole answer, and back |
//! | [`moment`] | the two clocks a decision may need |
//! | [`breaker`] | who may call a backend now, and when to come again |
//! | [`router`] | which arm answers: the order of candidates, and what is learned of them |
//! | [`cache`] | keys of answers, the store of answers, who computes what many ask at once |
//! | [`admission`] | who may work now, who waits, who is turned away |
//! | [`retry`] | when to try again, how long to wait before, how long one attempt may take |
//! | [`quota`] | when a spent allowance comes back, and how long an upstream asks to be left alone |
//! | [`jobs`] | what a job message must say, who runs it, what follows when it fails |
//! | [`batches`] | from a file of requests to jobs, and from their replies to files |

pub mod admission;
pub mod answer;
pub mod batches;
pub mod breaker;
pub mod cache;
pub mod class;
pub mod collect;
pub mod embed;
pub mod ids;
pub mod jobs;
pub mod moment;
pub mod needs;
pub mod quota;
pub mod request;
pub mod retry;
pub mod router;
