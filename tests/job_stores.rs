//! Every store of jobs keeps the same promises: in memory, in the ledger on SQLite, and on PostgreSQL.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opossum::jobs::LedgerStore;
use opossum_core::jobs::{BodyHash, Claimed, Finished, JobKey, JobState, Renewal, StoredReply};
use opossum_jobs::{Claiming, JobStore, JobView, MemoryStore};
use opossum_ledger::{Address, Ledger, LedgerConfig, NoObserver};
use opossum_testkit::temp::TempDir;
use opossum_testkit::{Postgres, eventually};

/// Longer than a test on a busy machine.
const LEASE: Duration = Duration::from_secs(600);
const HASH: BodyHash = BodyHash([1; 32]);
const OTHER: BodyHash = BodyHash([2; 32]);

fn key(id: &str) -> JobKey {
    JobKey::new("acme", id)
}

fn reply(status: u16, body: &str) -> StoredReply {
    let headers = vec![("x-opossum-backend".to_owned(), "fake".to_owned())];
    StoredReply { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
}

async fn claim_for(store: &dyn JobStore, id: &str, worker: &str, hash: BodyHash, lease: Duration) -> Claimed {
    let key = key(id);
    store.claim(Claiming { key: &key, hash, worker, lease }).await.unwrap()
}

async fn claim(store: &dyn JobStore, id: &str, worker: &str) -> Claimed {
    claim_for(store, id, worker, HASH, LEASE).await
}

async fn finish(store: &dyn JobStore, id: &str, hash: BodyHash, reply: &StoredReply) -> Finished {
    store.finish(&key(id), hash, reply).await.unwrap()
}

async fn view(store: &dyn JobStore, id: &str) -> Option<JobView> {
    store.get(&key(id)).await.unwrap()
}

async fn state(store: &dyn JobStore, id: &str) -> Option<JobState> {
    view(store, id).await.map(|view| view.state)
}

async fn a_job_goes_from_queued_to_its_reply(store: &dyn JobStore) {
    assert_eq!(view(store, "way").await, None);
    store.enqueue(&key("way"), HASH).await.unwrap();
    assert_eq!(state(store, "way").await, Some(JobState::Queued));
    assert_eq!(claim(store, "way", "a").await, Claimed::Yours);
    // A note that comes late does not set it back.
    store.enqueue(&key("way"), HASH).await.unwrap();
    assert_eq!(state(store, "way").await, Some(JobState::Running));
    let made = reply(200, "{\"answer\":\"\u{fc}\"}");
    assert_eq!(finish(store, "way", HASH, &made).await, Finished::Stored);
    let kept = Some(JobView { state: JobState::Succeeded, reply: Some(made.clone()) });
    assert_eq!(view(store, "way").await, kept);
    assert_eq!(claim(store, "way", "b").await, Claimed::Done(made.clone()));
    assert_eq!(finish(store, "way", HASH, &reply(500, "later")).await, Finished::Already(made));
    assert_eq!(view(store, "way").await, kept);
}

async fn one_worker_has_a_job_until_it_gives_it_up_or_its_lease_ends(store: &dyn JobStore) {
    assert_eq!(claim(store, "lease", "a").await, Claimed::Yours);
    assert_eq!(claim(store, "lease", "a").await, Claimed::Yours, "its own claim again");
    assert!(matches!(claim(store, "lease", "b").await, Claimed::Running { .. }));
    assert_eq!(store.renew(&key("lease"), "b", LEASE).await, Ok(Renewal::Lost));
    store.release(&key("lease"), "b").await.unwrap();
    assert!(matches!(claim(store, "lease", "b").await, Claimed::Running { .. }), "not its to give up");
    store.release(&key("lease"), "a").await.unwrap();
    assert_eq!(state(store, "lease").await, Some(JobState::Queued));
    assert_eq!(claim_for(store, "lease", "b", HASH, Duration::ZERO).await, Claimed::Yours);
    assert_eq!(state(store, "lease").await, Some(JobState::Queued), "its worker let the lease end");
    assert_eq!(claim(store, "lease", "c").await, Claimed::Yours);
    assert_eq!(store.renew(&key("lease"), "b", LEASE).await, Ok(Renewal::Lost));
    assert_eq!(store.renew(&key("lease"), "c", LEASE).await, Ok(Renewal::Held));
    // Whoever answers first has answered, with a claim or without.
    assert_eq!(finish(store, "lease", HASH, &reply(200, "b")).await, Finished::Stored);
    assert_eq!(finish(store, "lease", HASH, &reply(200, "c")).await, Finished::Already(reply(200, "b")));
}

async fn a_cancelled_job_gets_no_reply_but_that_it_was_cancelled(store: &dyn JobStore) {
    assert_eq!(store.cancel(&key("early")).await, Ok(JobState::Cancelled), "before it was seen");
    assert_eq!(claim(store, "early", "a").await, Claimed::Cancelled);
    assert_eq!(claim(store, "late", "a").await, Claimed::Yours);
    assert_eq!(store.cancel(&key("late")).await, Ok(JobState::Cancelled));
    assert_eq!(store.cancel(&key("late")).await, Ok(JobState::Cancelled), "twice is once");
    assert_eq!(store.renew(&key("late"), "a", LEASE).await, Ok(Renewal::Cancelled));
    assert_eq!(finish(store, "late", HASH, &reply(200, "made")).await, Finished::Cancelled);
    let told = reply(499, "cancelled");
    assert_eq!(finish(store, "late", HASH, &told).await, Finished::Stored);
    assert_eq!(view(store, "late").await, Some(JobView { state: JobState::Cancelled, reply: Some(told) }));
    finish(store, "done", HASH, &reply(200, "done")).await;
    assert_eq!(store.cancel(&key("done")).await, Ok(JobState::Succeeded), "too late");
    finish(store, "failed", HASH, &reply(504, "failed")).await;
    assert_eq!(store.cancel(&key("failed")).await, Ok(JobState::Failed));
}

async fn an_identity_belongs_to_what_was_asked_first(store: &dyn JobStore) {
    assert_eq!(claim(store, "reused", "a").await, Claimed::Yours);
    assert_eq!(claim_for(store, "reused", "b", OTHER, LEASE).await, Claimed::Reused);
    assert_eq!(finish(store, "reused", OTHER, &reply(200, "b")).await, Finished::Reused);
    assert_eq!(finish(store, "reused", HASH, &reply(200, "a")).await, Finished::Stored);
    assert_eq!(claim_for(store, "reused", "b", OTHER, LEASE).await, Claimed::Reused);
    let theirs = JobKey::new("globex", "reused");
    let claiming = Claiming { key: &theirs, hash: OTHER, worker: "b", lease: LEASE };
    assert_eq!(store.claim(claiming).await, Ok(Claimed::Yours), "another tenant's identities are its own");
}

async fn of_many_that_claim_a_job_at_once_one_gets_it(store: Arc<dyn JobStore>) {
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { claim(&*store, "raced", &format!("w{n}")).await == Claimed::Yours })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += u32::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

async fn every_promise(store: Arc<dyn JobStore>) {
    a_job_goes_from_queued_to_its_reply(&*store).await;
    one_worker_has_a_job_until_it_gives_it_up_or_its_lease_ends(&*store).await;
    a_cancelled_job_gets_no_reply_but_that_it_was_cancelled(&*store).await;
    an_identity_belongs_to_what_was_asked_first(&*store).await;
    of_many_that_claim_a_job_at_once_one_gets_it(store).await;
}

async fn open(address: Address) -> Ledger {
    let ledger = Ledger::start(LedgerConfig::new(address), Arc::new(NoObserver));
    let open = eventually(Duration::from_secs(30), async || ledger.probe().await.is_ok());
    assert!(open.await, "{:?}", ledger.fault());
    ledger
}

#[tokio::test]
async fn in_memory() {
    every_promise(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn in_sqlite_and_beyond_the_process() {
    let dir = TempDir::new("jobs");
    let ledger = open(Address::in_folder(dir.path())).await;
    every_promise(Arc::new(LedgerStore::new(ledger.clone()))).await;
    ledger.close(Duration::from_secs(30)).await;
    let closed = LedgerStore::new(ledger).get(&key("way")).await;
    assert!(closed.is_err_and(|error| error.to_string().contains("closed")));
    let store = LedgerStore::new(open(Address::in_folder(dir.path())).await);
    assert_eq!(claim(&store, "lease", "d").await, Claimed::Done(reply(200, "b")));
    assert_eq!(claim(&store, "early", "d").await, Claimed::Cancelled);
}

#[tokio::test]
async fn in_postgresql_and_between_replicas() {
    let Some(server) = Postgres::start().await else { return };
    let address = Address::parse(&server.database("jobs")).unwrap();
    let ledger = open(address.clone()).await;
    every_promise(Arc::new(LedgerStore::new(ledger))).await;
    let replica = LedgerStore::new(open(address).await);
    assert_eq!(claim(&replica, "lease", "d").await, Claimed::Done(reply(200, "b")));
}
