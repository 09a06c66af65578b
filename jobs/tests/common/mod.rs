//! What the suites of the queue share: a runner that does as the job says, and a worker around it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use opossum_core::jobs::StoredReply;
use opossum_jobs::{BrokerUri, Door, DoorConfig, Fault, JobStore, NoEvents, Ran, Runner, Task};
use opossum_testkit::eventually;
pub(crate) use opossum_testkit::requester::{PATIENCE, Requester};
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::{Value, json};

/// What ran, by message id.
#[derive(Clone, Default)]
pub(crate) struct Runs(Arc<Mutex<HashMap<String, u32>>>);

impl Runs {
    pub(crate) fn of(&self, id: &str) -> u32 {
        self.0.lock().get(id).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> u32 {
        self.0.lock().values().sum()
    }

    /// The ids in the order in which they were begun is not kept; this is their number.
    pub(crate) fn begin(&self, id: &str) -> u32 {
        let mut runs = self.0.lock();
        let run = runs.entry(id.to_owned()).or_default();
        *run += 1;
        *run
    }
}

/// Does as the job's body says: `ms` to work for, `chunks` to send, `fail` or `panic` to do so, `stop` to stop
/// at a 400.
pub(crate) struct Obedient {
    pub(crate) runs: Runs,
    pub(crate) order: Arc<Mutex<Vec<String>>>,
}

impl Runner for Obedient {
    fn run<'a>(&'a self, task: Task<'a>) -> LocalBoxFuture<'a, Ran> {
        async move {
            let id = &*task.job.key.id;
            let run = self.runs.begin(id);
            self.order.lock().push(id.to_owned());
            let wish: Value = serde_json::from_str(&task.job.body).expect("a body of JSON");
            for n in 0..wish["chunks"].as_u64().unwrap_or_default() {
                task.chunks.send(Bytes::from(json!({ "n": n }).to_string())).await;
            }
            tokio::time::sleep(Duration::from_millis(wish["ms"].as_u64().unwrap_or_default())).await;
            assert!(wish["panic"] != true, "as it was told");
            if wish["fail"] == true {
                return Ran::Failed { reply: reply(503, "no backend"), retry_after: None };
            }
            if wish["stop"] == true {
                return Ran::Reply(reply(400, "a bad request"));
            }
            let body = json!({ "answer": id, "run": run }).to_string();
            let headers = vec![("x-opossum-backend".to_owned(), "fake".to_owned())];
            Ran::Reply(StoredReply { status: 200, headers, body: Bytes::from(body) })
        }
        .boxed_local()
    }

    fn error(&self, fault: &Fault, _request_id: &str) -> StoredReply {
        let (status, code) = match fault {
            Fault::Refused(refusal) => (refusal.status(), refusal.to_string()),
            Fault::MessageIdReused => (422, "message_id_reused".to_owned()),
            Fault::DeadlineExceeded => (504, "deadline_exceeded".to_owned()),
            Fault::Cancelled => (499, "cancelled".to_owned()),
            Fault::JobFailed => (500, "job_failed".to_owned()),
        };
        reply(status, &code)
    }
}

fn reply(status: u16, code: &str) -> StoredReply {
    let body = json!({ "error": { "code": code } }).to_string();
    StoredReply { status, headers: Vec::new(), body: Bytes::from(body) }
}

/// A worker in this process.
pub(crate) struct Worker {
    pub(crate) door: Door,
    pub(crate) runs: Runs,
    pub(crate) order: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn config(url: &str) -> DoorConfig {
    let uri = BrokerUri::parse(&SecretString::from(url)).expect("an address");
    DoorConfig::new(uri)
}

impl Worker {
    pub(crate) fn open(config: DoorConfig, store: Arc<dyn JobStore>) -> Self {
        let (runs, order) = (Runs::default(), Arc::new(Mutex::new(Vec::new())));
        let runner = Obedient { runs: runs.clone(), order: Arc::clone(&order) };
        let door = Door::open(config, store, Arc::new(NoEvents), move || runner).expect("a door");
        Self { door, runs, order }
    }

    /// Opens a door and waits until it is open.
    pub(crate) async fn ready(config: DoorConfig, store: Arc<dyn JobStore>) -> Self {
        let worker = Self::open(config, store);
        worker.until_well(PATIENCE).await;
        worker
    }

    pub(crate) async fn until_well(&self, limit: Duration) {
        let well = eventually(limit, async || self.door.health().fault().is_none()).await;
        assert!(well, "the door is not well: {:?}", self.door.health());
    }
}
