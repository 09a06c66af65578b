//! What both databases promise: each case gets a database of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opossum_core::answer::Usage;
use opossum_core::ids::ArmId;
use opossum_core::jobs::{BodyHash, Claim, Claimed, Entry, Finished, JobKey, JobState, Renewal, StoredReply};
use opossum_ledger::{
    Address, Claiming, Enqueued, Ledger, LedgerConfig, LedgerError, NoObserver, UsageRecord,
};
use opossum_testkit::{Dice, eventually};

mod batches;
mod files;

pub(crate) use batches::*;
pub(crate) use files::*;

pub(crate) const LEASE: Duration = Duration::from_secs(60);
const ENDPOINT: &str = "/v1/chat/completions";
pub(crate) const HASH: BodyHash = BodyHash([7; 32]);
const OTHER_HASH: BodyHash = BodyHash([8; 32]);

/// Every case by name.
macro_rules! cases {
    ($use:ident) => {
        $use! {
            a_claim_is_won_once_however_many_want_it
            the_first_reply_is_the_reply_for_good
            the_statements_decide_as_the_pure_machine_does
            a_lease_that_ended_lets_another_worker_in
            a_worker_gives_up_all_its_claims_at_once
            a_job_is_found_from_its_confirmation_on
            tenants_do_not_see_each_others_jobs
            names_that_cannot_be_stored_are_refused
            usage_comes_back_as_it_was_recorded
            only_what_is_old_is_deleted
            a_file_is_seen_once_it_is_whole_and_only_by_its_owner
            files_are_listed_in_order_page_by_page
            files_that_are_gone_leave_nothing_behind
            a_batch_is_one_workers_until_its_lease_ends
            a_batch_is_called_off_by_its_owner_whoever_works_on_it
            the_first_outcome_of_a_line_is_its_outcome_for_good
            batches_are_listed_in_order_page_by_page
            a_file_that_a_batch_reads_is_not_taken_away
            the_jobs_of_lines_are_found_by_their_ids
            ledgers_that_open_an_empty_database_at_once_agree_on_its_tables
            a_database_of_a_newer_version_is_not_touched
        }
    };
}
pub(crate) use cases;

/// A busy machine gets more time than a user would be given.
pub(crate) fn config(address: Address) -> LedgerConfig {
    LedgerConfig { timeout: Duration::from_secs(60), ..LedgerConfig::new(address) }
}

/// A ledger that is connected.
pub(crate) async fn open(address: Address) -> Ledger {
    open_with(config(address)).await
}

pub(crate) async fn open_with(config: LedgerConfig) -> Ledger {
    let ledger = Ledger::start(config, Arc::new(NoObserver));
    assert!(is_well(&ledger).await, "{:?}", ledger.probe().await);
    ledger
}

pub(crate) async fn is_well(ledger: &Ledger) -> bool {
    eventually(Duration::from_secs(60), async || ledger.probe().await.is_ok()).await
}

pub(crate) fn key(message: &str) -> JobKey {
    JobKey::new("tenant", message)
}

pub(crate) fn claiming(message: &str, worker: &str, lease: Duration) -> Claiming {
    Claiming { key: key(message), hash: HASH, worker: worker.to_owned(), lease }
}

pub(crate) fn reply(status: u16, body: &[u8]) -> StoredReply {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    StoredReply { status, headers, body: body.to_vec().into() }
}

pub(crate) async fn claim(ledger: &Ledger, message: &str, worker: &str) -> Claimed {
    ledger.claim(claiming(message, worker, LEASE)).await.unwrap()
}

pub(crate) async fn finish(ledger: &Ledger, message: &str, reply: StoredReply) -> Finished {
    ledger.finish(key(message), HASH, reply).await.unwrap()
}

async fn state(ledger: &Ledger, message: &str) -> Option<JobState> {
    ledger.job(key(message)).await.unwrap().map(|job| job.summary.state)
}

pub(crate) fn usage(request: &str) -> UsageRecord {
    UsageRecord {
        at_ms: now_ms(),
        request_id: request.into(),
        tenant: "tenant".into(),
        endpoint: ENDPOINT.into(),
        asked_model: "auto".into(),
        arm: Some(ArmId::new("gemini", "flash")),
        attempts: 2,
        cache: "miss".into(),
        tokens: Some(Usage { prompt: 12, completion: 34, cached: 5, reasoning: 6 }),
        cost_nano_usd: Some(1_234),
        latency: Duration::from_micros(56_789),
        first_token: Some(Duration::from_micros(1_001)),
        outcome: "ok".into(),
    }
}

pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// The request identities in the ledger.
pub(crate) async fn recorded(ledger: &Ledger) -> Vec<String> {
    let rows = ledger.usage(0, u32::MAX).await.unwrap_or_default();
    rows.iter().map(|row| row.request_id.to_string()).collect()
}

pub(crate) async fn a_claim_is_won_once_however_many_want_it(url: String) {
    const JOBS: usize = 40;
    const WORKERS: usize = 12;
    let address = Address::parse(&url).unwrap();
    // Two ledgers share the database as two processes would.
    let ledgers = [open(address.clone()).await, open(address).await];
    let mut tasks = Vec::new();
    for worker in 0..WORKERS {
        let ledger = ledgers[worker % 2].clone();
        tasks.push(tokio::spawn(async move {
            let name = format!("worker-{worker}");
            let mut won = BTreeSet::new();
            // Each begins elsewhere, so that all orders of arrival occur.
            for job in (0..JOBS).map(|job| (job + worker * 7) % JOBS) {
                match claim(&ledger, &format!("job-{job}"), &name).await {
                    Claimed::Yours => assert!(won.insert(job)),
                    Claimed::Running { until } => {
                        let left = until - now_ms();
                        assert!((30_000..=61_000).contains(&left), "{left} ms");
                    }
                    other => panic!("{other:?}"),
                }
            }
            won
        }));
    }
    let mut winners = vec![0; JOBS];
    for task in tasks {
        for job in task.await.unwrap() {
            winners[job] += 1;
        }
    }
    assert_eq!(winners, vec![1; JOBS]);
}

/// Random calls, each made to the ledger and to a row of [`Entry`]s.
pub(crate) async fn the_statements_decide_as_the_pure_machine_does(url: String) {
    const FAR: i64 = i64::MAX;
    let dice = &mut Dice::from_env();
    let ledger = open(Address::parse(&url).unwrap()).await;
    let mut known: BTreeMap<u64, Entry> = BTreeMap::new();
    for step in 0..600 {
        // A few identities at a time, so that each meets many calls in many orders.
        let job = step / 30 * 3 + dice.below(3);
        let (message, worker) = (format!("job-{job}"), format!("w{}", dice.below(2)));
        let hash = if dice.below(6) == 0 { OTHER_HASH } else { HASH };
        let entry = known.get(&job);
        let next = match dice.below(7) {
            0 => {
                let want = if entry.is_none() { Some(Entry::Queued { hash }) } else { None };
                let noted = ledger.enqueue(key(&message), hash).await.unwrap();
                assert_eq!(noted == Enqueued::New, want.is_some(), "{step}: {entry:?}");
                want
            }
            1 | 2 => {
                // Either a lease that outlives the test, or one that has ended already.
                let ended = dice.below(3) == 0;
                let (lease, until) = if ended { (Duration::ZERO, 0) } else { (LEASE * 60, FAR) };
                let (next, want) = Entry::claim(entry, Claim { worker: &worker, hash, now: 1, until });
                let claiming = Claiming { key: key(&message), hash, worker, lease };
                let got = match ledger.claim(claiming).await.unwrap() {
                    Claimed::Running { .. } => Claimed::Running { until: FAR },
                    other => other,
                };
                assert_eq!(got, want, "{step}: {entry:?}");
                next
            }
            3 => {
                let mut next = entry.cloned();
                let want = next.as_mut().map_or(Renewal::Lost, |entry| entry.renew(&worker, FAR));
                let got = ledger.renew(key(&message), worker, LEASE * 60).await;
                assert_eq!(got, Ok(want), "{step}: {entry:?}");
                next
            }
            4 => {
                let next = entry.and_then(|entry| entry.release(&worker));
                assert_eq!(
                    ledger.release(key(&message), worker).await,
                    Ok(next.is_some()),
                    "{step}: {entry:?}"
                );
                next
            }
            5 => {
                let next = Entry::cancel(entry);
                assert_eq!(ledger.cancel(key(&message)).await, Ok(next.is_some()), "{step}: {entry:?}");
                next
            }
            _ => {
                let made = reply([200, 400, 499][dice.below(3) as usize], format!("{step}").as_bytes());
                let (next, want) = Entry::finish(entry, hash, made.clone());
                assert_eq!(ledger.finish(key(&message), hash, made).await, Ok(want), "{step}: {entry:?}");
                next
            }
        };
        known.extend(next.map(|next| (job, next)));
        let want = known.get(&job).map(|entry| entry.state(1));
        assert_eq!(state(&ledger, &message).await, want, "{step}: {:?}", known.get(&job));
    }
}

pub(crate) async fn the_first_reply_is_the_reply_for_good(url: String) {
    let address = Address::parse(&url).unwrap();
    let ledger = open(address.clone()).await;
    assert_eq!(claim(&ledger, "m", "a").await, Claimed::Yours);
    assert_eq!(state(&ledger, "m").await, Some(JobState::Running));
    let first = reply(200, &[0, 1, 2, 255]);
    assert_eq!(finish(&ledger, "m", first.clone()).await, Finished::Stored);
    assert_eq!(finish(&ledger, "m", reply(500, b"later")).await, Finished::Already(first.clone()));
    assert_eq!(claim(&ledger, "m", "b").await, Claimed::Done(first.clone()));
    ledger.close(Duration::from_secs(60)).await;
    assert_eq!(ledger.claim(claiming("m", "b", LEASE)).await, Err(LedgerError::Closed));

    let ledger = open(address).await;
    let job = ledger.job(key("m")).await.unwrap().unwrap();
    assert_eq!((job.summary.state, job.summary.runs, job.reply), (JobState::Succeeded, 1, Some(first)));
    // A reply to a job that nobody claimed: it expired in the queue.
    assert_eq!(finish(&ledger, "late", reply(504, b"{}")).await, Finished::Stored);
    assert_eq!(state(&ledger, "late").await, Some(JobState::Failed));
}

pub(crate) async fn a_lease_that_ended_lets_another_worker_in(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    let short = Duration::from_millis(300);
    let begun = Instant::now();
    assert_eq!(ledger.claim(claiming("m", "a", short)).await, Ok(Claimed::Yours));
    // Renewal it lasts, and counts from the renewal.
    assert_eq!(ledger.renew(key("m"), "a".to_owned(), LEASE).await, Ok(Renewal::Held));
    tokio::time::sleep(short.saturating_sub(begun.elapsed()) + Duration::from_millis(50)).await;
    assert!(matches!(claim(&ledger, "m", "b").await, Claimed::Running { .. }));
    assert_eq!(ledger.renew(key("m"), "a".to_owned(), Duration::ZERO).await, Ok(Renewal::Held));
    assert_eq!(claim(&ledger, "m", "b").await, Claimed::Yours);
    assert_eq!(ledger.job(key("m")).await.unwrap().unwrap().summary.runs, 2);
    assert_eq!(ledger.renew(key("m"), "a".to_owned(), LEASE).await, Ok(Renewal::Lost));
    // The first worker was slow, not dead. Whoever stores first has answered.
    assert_eq!(finish(&ledger, "m", reply(200, b"of a")).await, Finished::Stored);
    assert_eq!(ledger.renew(key("m"), "b".to_owned(), LEASE).await, Ok(Renewal::Lost));
    assert_eq!(finish(&ledger, "m", reply(200, b"of b")).await, Finished::Already(reply(200, b"of a")));
}

pub(crate) async fn a_worker_gives_up_all_its_claims_at_once(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    for message in ["m", "n", "o"] {
        assert_eq!(claim(&ledger, message, "a").await, Claimed::Yours);
    }
    assert_eq!(claim(&ledger, "p", "b").await, Claimed::Yours);
    finish(&ledger, "n", reply(200, b"")).await;
    assert_eq!(ledger.release_all("a".to_owned()).await, Ok(2));
    assert_eq!(claim(&ledger, "o", "c").await, Claimed::Yours);
    assert!(matches!(claim(&ledger, "p", "c").await, Claimed::Running { .. }));
    assert_eq!(claim(&ledger, "n", "c").await, Claimed::Done(reply(200, b"")));
}

pub(crate) async fn a_job_is_found_from_its_confirmation_on(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    assert_eq!(ledger.job(key("m")).await, Ok(None));
    let noted = |hash| ledger.enqueue(key("m"), hash);
    let before = now_ms();
    assert_eq!(noted(HASH).await, Ok(Enqueued::New));
    assert_eq!(noted(HASH).await, Ok(Enqueued::Known(JobState::Queued)));
    assert_eq!(noted(OTHER_HASH).await, Ok(Enqueued::Reused));
    let job = ledger.job(key("m")).await.unwrap().unwrap();
    assert_eq!((job.summary.state, job.summary.runs, job.reply), (JobState::Queued, 0, None));
    assert!((job.summary.created_ms - before).abs() < 5_000, "{before} {:?}", job.summary);
    assert_eq!(claim(&ledger, "m", "a").await, Claimed::Yours);
    assert_eq!(noted(HASH).await, Ok(Enqueued::Known(JobState::Running)));

    for message in ["x", "y", "z"] {
        finish(&ledger, message, reply(200, b"")).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let done = ledger.jobs(JobState::Succeeded, 2).await.unwrap();
    let newest: Vec<_> = done.iter().map(|job| &*job.key.id).collect();
    assert_eq!(newest, ["z", "y"]);
    assert_eq!(ledger.jobs(JobState::Running, 10).await.unwrap().len(), 1);
    assert_eq!(ledger.jobs(JobState::Failed, 10).await, Ok(Vec::new()));
}

pub(crate) async fn tenants_do_not_see_each_others_jobs(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    let other = JobKey::new("other", "m");
    assert_eq!(claim(&ledger, "m", "a").await, Claimed::Yours);
    let theirs = Claiming { key: other.clone(), hash: OTHER_HASH, ..claiming("m", "a", LEASE) };
    assert_eq!(ledger.claim(theirs).await, Ok(Claimed::Yours));
    assert_eq!(ledger.cancel(other.clone()).await, Ok(true));
    assert_eq!(state(&ledger, "m").await, Some(JobState::Running));
    assert_eq!(ledger.job(other).await.unwrap().unwrap().summary.state, JobState::Cancelled);
}

pub(crate) async fn names_that_cannot_be_stored_are_refused(url: String) {
    let ledger = open(Address::parse(&url).unwrap()).await;
    for (tenant, id) in [("", "m"), ("t", ""), ("t", "a\0b"), ("t", &*"x".repeat(256))] {
        assert_eq!(ledger.job(JobKey::new(tenant, id)).await, Err(LedgerError::Refused), "{tenant}/{id}");
    }
    assert_eq!(ledger.claim(claiming("m", "", LEASE)).await, Err(LedgerError::Refused));
    assert_eq!(ledger.probe().await, Ok(()), "what a caller sends says nothing about the database");
    assert_eq!(claim(&ledger, &"x".repeat(255), "a").await, Claimed::Yours);
}

pub(crate) async fn usage_comes_back_as_it_was_recorded(url: String) {
    let address = Address::parse(&url).unwrap();
    let ledger = open(address).await;
    let full = usage("full");
    let bare = UsageRecord {
        request_id: "bare".into(),
        arm: None,
        tokens: None,
        cost_nano_usd: None,
        first_token: None,
        outcome: "backends_unavailable".into(),
        at_ms: full.at_ms - 1,
        ..full.clone()
    };
    let odd = UsageRecord {
        request_id: "a\0b".into(),
        asked_model: "ü".repeat(1000).into(),
        tokens: Some(Usage { prompt: u64::MAX, ..Usage::default() }),
        at_ms: full.at_ms - 2,
        ..full.clone()
    };
    for row in [&full, &bare, &odd] {
        ledger.record(row.clone());
    }
    // More than one statement's worth, of every size.
    for n in 0..200 {
        ledger.record(UsageRecord { at_ms: full.at_ms - 1000, ..usage(&format!("more-{n}")) });
    }
    let all = eventually(Duration::from_secs(60), async || recorded(&ledger).await.len() == 203).await;
    let rows = ledger.usage(full.at_ms - 500, 10).await.unwrap();
    assert!(all && rows.len() == 3, "{rows:?}");
    assert_eq!(rows[..2], [full, bare]);
    assert_eq!(&*rows[2].request_id, "a\u{fffd}b");
    assert_eq!(rows[2].asked_model.chars().count(), 256);
    assert_eq!(rows[2].tokens.unwrap().prompt, u64::try_from(i64::MAX).unwrap());
    let names: BTreeSet<String> = recorded(&ledger).await.into_iter().collect();
    assert_eq!(names.len(), 203, "no row twice, none lost");
}

pub(crate) async fn only_what_is_old_is_deleted(url: String) {
    let address = Address::parse(&url).unwrap();
    let kept = open(address.clone()).await;
    for message in ["done", "failed"] {
        finish(&kept, message, reply(200, b"")).await;
    }
    assert_eq!(claim(&kept, "running", "a").await, Claimed::Yours);
    kept.record(UsageRecord { at_ms: now_ms() - 60_000, ..usage("old") });
    kept.record(UsageRecord { at_ms: now_ms() + 60_000, ..usage("new") });
    kept.close(Duration::from_secs(60)).await;

    let quick = LedgerConfig {
        keep_jobs: Duration::ZERO,
        keep_usage: Duration::from_secs(30),
        prune_interval: Duration::from_millis(50),
        ..config(address)
    };
    let ledger = open_with(quick).await;
    let gone = eventually(Duration::from_secs(60), async || {
        state(&ledger, "done").await.is_none() && recorded(&ledger).await == ["new"]
    });
    assert!(gone.await, "{:?}", recorded(&ledger).await);
    assert_eq!(state(&ledger, "failed").await, None);
    assert_eq!(state(&ledger, "running").await, Some(JobState::Running));
}

pub(crate) async fn ledgers_that_open_an_empty_database_at_once_agree_on_its_tables(url: String) {
    let address = Address::parse(&url).unwrap();
    let started: Vec<Ledger> =
        (0..4).map(|_| Ledger::start(config(address.clone()), Arc::new(NoObserver))).collect();
    for (n, ledger) in started.iter().enumerate() {
        assert!(is_well(ledger).await, "{:?}", ledger.probe().await);
        assert_eq!(claim(ledger, &format!("m{n}"), "a").await, Claimed::Yours);
    }
    assert_eq!(started[0].jobs(JobState::Running, 10).await.unwrap().len(), 4);
}

pub(crate) async fn a_database_of_a_newer_version_is_not_touched(url: String) {
    let address = Address::parse(&url).unwrap();
    let ledger = open(address.clone()).await;
    ledger.close(Duration::from_secs(60)).await;
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let newer = "INSERT INTO opossum_migrations (version, description, success, checksum, execution_time)
        SELECT 99, description, success, checksum, execution_time FROM opossum_migrations WHERE version = 1";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;

    let ledger = Ledger::start(config(address), Arc::new(NoObserver));
    let said = eventually(Duration::from_secs(60), async || ledger.probe().await == Err(LedgerError::Schema));
    assert!(said.await, "{:?}", ledger.probe().await);
    assert_eq!(ledger.claim(claiming("m", "a", LEASE)).await, Err(LedgerError::Schema));
}
