//! What the suites share: upstreams that misbehave exactly as told, a client that sees every byte, and the
//! service itself as a child process.
//!
//! Everything speaks raw TCP, so that a fault is produced on the wire and not by a library that would mend
//! it. Times are of the monotonic clock; durations count from the arrival of the request they belong to.
//! The kit fails a test by panicking with what it saw.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`script`] | what an upstream does with one request, step by step |
//! | [`upstream`] | a fake OpenAI, Gemini or Ollama server that follows scripts and records what it saw |
//! | [`dead_ends`] | addresses that refuse, swallow or never answer a connection |
//! | [`client`] | an HTTP/1.1 client that can half-close, reset and time each event of a stream |
//! | [`broker`] | a RabbitMQ that can be killed, frozen and started again |
//! | [`history`] | what must not have happened to jobs, judged from the logs of a run |
//! | [`proxy`] | a TCP proxy that mutes or cuts one connection of several |
//! | [`form`] | forms with files |
//! | [`requester`] | an AMQP client that publishes jobs and hears the replies |
//! | [`service`] | the real binary on a free port, with its logs, signals and memory |
//! | [`port`] | ports that no two tests take at once |
//! | [`metrics`] | the Prometheus text, read |
//! | [`models`] | where the model files of the embedded engine are |
//! | [`postgres`] | a PostgreSQL server of a test's own |
//! | [`sqlite`] | a lock on an SQLite file |
//! | [`tap`] | a look at a message on its way |
//! | [`wait`] | polling with a deadline, and reproducible random numbers |
#![expect(clippy::expect_used, clippy::panic, reason = "a test kit fails a test by panicking")]

pub mod broker;
pub mod client;
pub mod dead_ends;
pub mod form;
pub mod history;
pub mod metrics;
pub mod models;
pub mod port;
pub mod postgres;
pub mod proxy;
pub mod requester;
pub mod script;
pub mod service;
pub mod sqlite;
pub mod tap;
pub mod temp;
pub mod upstream;
pub mod wait;
mod wire;

pub use broker::Broker;
pub use client::{Answer, Client, End, EventStream, Transcript, ask, ask_stream};
pub use dead_ends::{BlackHole, RefusedAddr};
pub use history::History;
/// For suites whose clients misbehave in ways that [`Requester`] does not.
pub use lapin;
pub use metrics::Metrics;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use requester::Requester;
pub use script::{Script, Step};
pub use service::{Service, ServiceBuilder};
pub use sqlite::SqliteLock;
pub use tap::{Caught, Tap};
pub use upstream::{Seen, Upstream};
pub use wait::{Dice, eventually};
