//! The door: jobs in, whatever becomes of the broker.

use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection};
use opossum_core::jobs::message::TENANT;
use opossum_core::jobs::{BodyHash, Endpoint, JobKey, JobState, Lane, UnixMillis};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::broker::convert::{long, short};
use crate::broker::publisher::{self, Outgoing, Publisher};
use crate::broker::{Dialer, consumer, keep, names};
use crate::work::{self, Desk, DeskParts};
use crate::{DoorConfig, JobEvents, JobStore, JobView, LinkState, PublishError, Runner, StoreError, tasks};

/// The second door. Clones share it; it works until [`Door::leave`] or until the last clone is dropped.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    config: DoorConfig,
    store: Arc<dyn JobStore>,
    publisher: Publisher,
    publishing: watch::Receiver<LinkState>,
    consuming: watch::Receiver<LinkState>,
    leaving: watch::Sender<bool>,
    left: watch::Receiver<bool>,
    /// Cuts short what still goes on; dropped, it does the same.
    stop: mpsc::Sender<()>,
    thread: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

/// How the door is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorHealth {
    /// The connection that publishes.
    pub publishing: LinkState,
    /// The connection that consumes.
    pub consuming: LinkState,
}

impl DoorHealth {
    /// What is wrong, in a few words; `None` when jobs come and go.
    pub fn fault(&self) -> Option<&str> {
        self.publishing.fault().or(self.consuming.fault())
    }
}

/// A job of a caller whose reply is kept to be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// Whose job, and its identity.
    pub key: &'a JobKey,
    /// The queue.
    pub lane: Lane,
    /// What is asked.
    pub endpoint: Endpoint,
    /// The request's JSON.
    pub body: &'a RawValue,
    /// Until when it may run.
    pub deadline: Option<UnixMillis>,
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    endpoint: Endpoint,
    body: &'a RawValue,
}

impl Door {
    /// Opens the door on a thread of its own, so that nothing a broker does or does not do can slow down
    /// anything else. `runner` is made on that thread.
    ///
    /// # Errors
    /// The thread or its event loop cannot be made, or a root is no certificate.
    pub fn open<R: Runner>(
        config: DoorConfig,
        store: Arc<dyn JobStore>,
        events: Arc<dyn JobEvents>,
        runner: impl FnOnce() -> R + Send + 'static,
    ) -> std::io::Result<Self> {
        let dialer = Dialer::new(config.broker.clone(), &config.roots)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (publishing_tx, publishing) = watch::channel(LinkState::Connecting);
        let (consuming_tx, consuming) = watch::channel(LinkState::Connecting);
        let (leaving, leave) = watch::channel(false);
        let (gone, left) = watch::channel(false);
        let (stop, mut stopped) = mpsc::channel::<()>(1);
        let publisher = Publisher::new();
        let thread = {
            let (config, store, publisher) = (config.clone(), Arc::clone(&store), publisher.clone());
            std::thread::Builder::new().name("jobs".to_owned()).spawn(move || {
                let serve = async move {
                    let runner = Rc::new(runner());
                    let parts = DeskParts {
                        config,
                        store,
                        events: Arc::clone(&events),
                        publisher: publisher.clone(),
                        runner,
                    };
                    let desk = Rc::new(Desk::new(parts));
                    tell(publisher::NAME, &publishing_tx, Arc::clone(&events));
                    tell(consumer::NAME, &consuming_tx, events);
                    let publishes = publisher.keep(&dialer, &publishing_tx);
                    let consumes =
                        keep(consumer::NAME, &dialer, &consuming_tx, async |connection: &Connection| {
                            let lost = consumer::serve(connection, &desk, &consuming_tx, leave.clone()).await;
                            desk.events().uncounted();
                            lost
                        });
                    let leaves = async {
                        if leave.clone().wait_for(|leaving| *leaving).await.is_ok() {
                            desk.leave();
                            desk.empty().await;
                            gone.send_replace(true);
                        }
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        _ = async { tokio::join!(publishes, consumes, leaves) } => {}
                        _ = stopped.recv() => desk.release_all().await,
                    }
                };
                LocalSet::new().block_on(&runtime, serve);
            })?
        };
        let thread = parking_lot::Mutex::new(Some(thread));
        let inner = Inner { config, store, publisher, publishing, consuming, leaving, left, stop, thread };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Publishes a job. Once this returns without an error the broker has it on disk, and it will be answered.
    ///
    /// # Errors
    /// See [`PublishError`]; within five seconds.
    pub async fn submit(&self, job: Submission<'_>) -> Result<(), PublishError> {
        let Submission { key, lane, endpoint, body, deadline, traceparent } = job;
        let user = self.inner.config.broker.user();
        let payload = serde_json::to_vec(&Envelope { endpoint, body });
        let message = Outgoing {
            exchange: "",
            key: lane.queue().to_owned(),
            properties: work::job_properties(user, key, deadline, traceparent),
            // Strings into memory cannot fail to serialise.
            payload: Bytes::from(payload.unwrap_or_default()),
        };
        let published = self.inner.publisher.publish(&message).await;
        if published == Err(PublishError::Unroutable) {
            // Somebody deleted the queue: a new connection declares it anew.
            self.inner.publisher.suspect();
        }
        published?;
        let hash = BodyHash::of(endpoint, body.get());
        if let Err(error) = self.inner.store.enqueue(key, hash).await {
            tracing::warn!(job = %key, %error, "a job is published but not noted; it is seen once it runs");
        }
        Ok(())
    }

    /// Cancels a job, wherever it is; the state it is in then.
    ///
    /// # Errors
    /// The store failed. Workers that run it are told all the same.
    pub async fn cancel(&self, key: &JobKey) -> Result<JobState, StoreError> {
        let state = self.inner.store.cancel(key).await;
        if !matches!(state, Ok(state) if state.is_final() && state != JobState::Cancelled) {
            let mut headers = FieldTable::default();
            headers.insert(short(TENANT), long(&key.tenant));
            let properties = BasicProperties::default()
                .with_user_id(short(self.inner.config.broker.user()))
                .with_headers(headers);
            let payload = Bytes::from(work::cancellation(&key.id));
            let message = Outgoing { exchange: names::CONTROL, key: String::new(), properties, payload };
            // A worker that does not hear it finds the cancellation with its next renewal.
            self.inner.publisher.toss(&message).await.ok();
        }
        state
    }

    /// Where a job stands.
    ///
    /// # Errors
    /// The store failed.
    pub async fn job(&self, key: &JobKey) -> Result<Option<JobView>, StoreError> {
        self.inner.store.get(key).await
    }

    /// How the door is.
    pub fn health(&self) -> DoorHealth {
        DoorHealth {
            publishing: self.inner.publishing.borrow().clone(),
            consuming: self.inner.consuming.borrow().clone(),
        }
    }

    /// Takes no more jobs, gives back those that wait, lets those under way end, and closes the door. What is
    /// not over by then is cut off; the broker gives it to another worker.
    pub async fn leave(&self, within: Duration) {
        self.inner.leaving.send_replace(true);
        let mut left = self.inner.left.clone();
        let ended = tokio::time::timeout(within, left.wait_for(|left| *left)).await.is_ok();
        if !ended {
            tracing::warn!("jobs are still under way; they go to other workers");
        }
        self.inner.stop.send(()).await.ok();
        let thread = self.inner.thread.lock().take();
        if let Some(thread) = thread {
            tokio::task::spawn_blocking(move || thread.join().ok()).await.ok();
        }
    }
}

/// Tells of a connection's coming and going.
fn tell(name: &'static str, state: &watch::Sender<LinkState>, events: Arc<dyn JobEvents>) {
    let mut states = state.subscribe();
    tasks::local("link", async move {
        loop {
            let up = *states.borrow_and_update() == LinkState::Up;
            events.link(name, up);
            if states.changed().await.is_err() {
                return;
            }
        }
    });
}
