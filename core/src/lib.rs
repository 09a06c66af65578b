//! Words of the domain and pure decisions.
//!
//! This crate knows nobody: no actor, socket, clock or runtime. Whatever decides takes `now` and randomness
//! as arguments, so that each decision is proven by unit and property tests without a sleep.
//!
//! | module | what it decides or names |
//! | --- | --- |
//! | [`ids`] | names of services, models and the arms made of both |
//! | [`request`], [`answer`] | what is asked and what comes back, in no vendor's dialect |
//! | [`needs`] | what a request needs and a backend can do |
//! | [`class`] | how an attempt ended, and what that means for breaker, retry, caller and router |

pub mod answer;
pub mod class;
pub mod ids;
pub mod needs;
pub mod request;
