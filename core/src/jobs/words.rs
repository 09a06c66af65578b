//! Queues, endpoints, states, a job's identity and its stored reply.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The three queues of jobs, by how soon they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Someone waits.
    High,
    /// The usual one.
    Normal,
    /// Nobody waits; it is served from what is left, but never starved.
    Batch,
}

impl Lane {
    /// All lanes, the first served first.
    pub const ALL: [Lane; 3] = [Lane::High, Lane::Normal, Lane::Batch];

    /// The lane's place in [`Lane::ALL`].
    pub fn index(self) -> usize {
        match self {
            Lane::High => 0,
            Lane::Normal => 1,
            Lane::Batch => 2,
        }
    }

    /// Its name in metrics and in `POST /v1/jobs`.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::High => "high",
            Lane::Normal => "normal",
            Lane::Batch => "batch",
        }
    }

    /// Its queue at the broker.
    pub fn queue(self) -> &'static str {
        match self {
            Lane::High => "opossum.jobs.high",
            Lane::Normal => "opossum.jobs.normal",
            Lane::Batch => "opossum.jobs.batch",
        }
    }

    /// The lane of a queue's name.
    pub fn of_queue(queue: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.queue() == queue)
    }
}

/// What a job may ask: the routes of the HTTP face that answer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`.
    #[serde(rename = "/v1/chat/completions")]
    Chat,
    /// `POST /v1/completions`.
    #[serde(rename = "/v1/completions")]
    Completions,
    /// `POST /v1/embeddings`.
    #[serde(rename = "/v1/embeddings")]
    Embeddings,
}

impl Endpoint {
    /// All endpoints.
    pub const ALL: [Endpoint; 3] = [Endpoint::Chat, Endpoint::Completions, Endpoint::Embeddings];

    /// The route.
    pub fn as_str(self) -> &'static str {
        match self {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
            Endpoint::Embeddings => "/v1/embeddings",
        }
    }

    /// The endpoint of a route.
    pub fn of(route: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.as_str() == route)
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Published, or waiting for its next attempt.
    Queued,
    /// A worker has claimed it.
    Running,
    /// Answered with a status below 300.
    Succeeded,
    /// Answered with an error.
    Failed,
    /// Cancelled before it was answered.
    Cancelled,
}

impl JobState {
    /// The state of a job that was answered with this status.
    pub fn of_status(status: u16) -> Self {
        match status {
            0..300 => JobState::Succeeded,
            499 => JobState::Cancelled,
            _ => JobState::Failed,
        }
    }

    /// Its name over HTTP, in metrics and in stores.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen to the job.
    pub fn is_final(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }
}

/// A job's identity: two tenants may use the same message id for different jobs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct JobKey {
    /// Whose job it is.
    pub tenant: Arc<str>,
    /// Its message id.
    pub id: Arc<str>,
}

impl JobKey {
    /// Joins a tenant and a message id.
    pub fn new(tenant: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), id: id.into() }
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.id)
    }
}

/// SHA-256 over what a job asks. The same identity with another hash is another job under a used name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BodyHash(pub [u8; 32]);

impl BodyHash {
    /// The hash of an endpoint and the request's JSON, white space around it aside.
    pub fn of(endpoint: Endpoint, body: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(endpoint.as_str());
        hash.update([0]);
        hash.update(body.trim());
        Self(hash.finalize().into())
    }
}

/// A reply as it is kept: what a second message of the same identity gets, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReply {
    /// The HTTP status.
    pub status: u16,
    /// Answer headers, such as `x-opossum-backend`, in lower case.
    pub headers: Vec<(String, String)>,
    /// The HTTP body, as JSON.
    pub body: Bytes,
}

impl StoredReply {
    /// The state of the job that was answered so.
    pub fn state(&self) -> JobState {
        JobState::of_status(self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_they_name() {
        for lane in Lane::ALL {
            assert_eq!(Lane::of_queue(lane.queue()), Some(lane));
            assert_eq!(Lane::ALL[lane.index()], lane);
        }
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::of(endpoint.as_str()), Some(endpoint));
        }
        assert_eq!((Lane::of_queue("opossum.jobs.dead"), Endpoint::of("/v1/models")), (None, None));
    }

    #[test]
    fn a_status_says_how_a_job_ended() {
        assert_eq!(JobState::of_status(200), JobState::Succeeded);
        assert_eq!(JobState::of_status(499), JobState::Cancelled);
        for status in [400, 422, 500, 504] {
            assert_eq!(JobState::of_status(status), JobState::Failed);
        }
    }

    #[test]
    fn a_hash_tells_bodies_and_endpoints_apart_but_not_white_space_around() {
        let hash = BodyHash::of(Endpoint::Chat, "{\"n\":1}");
        assert_eq!(hash, BodyHash::of(Endpoint::Chat, " {\"n\":1}\n"));
        assert_ne!(hash, BodyHash::of(Endpoint::Chat, "{\"n\":2}"));
        assert_ne!(hash, BodyHash::of(Endpoint::Completions, "{\"n\":1}"));
    }
}
