//! The ledger on a real PostgreSQL, started by the tests: the same promises, and what it does when the server
//! goes away.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod suite;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opossum_core::jobs::{Claimed, Finished};
use opossum_ledger::{Address, Ledger, LedgerConfig, LedgerError, NoObserver};
use opossum_testkit::{Postgres, eventually};
use suite::{LEASE, cases, claim, claiming, config, finish, is_well, recorded, reply, usage};

/// A server, or a word that there is none.
async fn server() -> Option<Postgres> {
    let server = Postgres::start().await;
    if server.is_none() {
        eprintln!("PostgreSQL is not installed: this test did not run");
    }
    server
}

macro_rules! all_on {
    ($($case:ident)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn every_promise_holds() {
            let Some(server) = server().await else { return };
            $(
                eprintln!("{}", stringify!($case));
                suite::$case(server.database(stringify!($case))).await;
            )*
        }
    };
}

cases!(all_on);

#[tokio::test]
async fn a_killed_server_is_reported_and_nothing_recorded_meanwhile_is_lost() {
    let Some(mut server) = server().await else { return };
    let usual = LedgerConfig::new(Address::parse(&server.database("ledger")).unwrap());
    let ledger = suite::open_with(usual).await;
    assert_eq!(claim(&ledger, "before", "a").await, Claimed::Yours);
    finish(&ledger, "before", reply(200, b"kept")).await;
    for n in 0..300 {
        // Some batches are on their way when the server dies.
        ledger.record(usage(&format!("r{n}")));
        if n == 150 {
            tokio::time::sleep(Duration::from_millis(210)).await;
            server.kill();
        }
    }
    let begun = Instant::now();
    assert_eq!(ledger.claim(claiming("during", "a", LEASE)).await, Err(LedgerError::Unreachable));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(ledger.probe().await, Err(LedgerError::Unreachable));

    server.resume().await;
    assert!(is_well(&ledger).await, "{:?}", ledger.probe().await);
    assert_eq!(claim(&ledger, "before", "b").await, Claimed::Done(reply(200, b"kept")));
    let all = eventually(Duration::from_secs(60), async || recorded(&ledger).await.len() >= 300);
    assert!(all.await, "{}", recorded(&ledger).await.len());
    let rows = recorded(&ledger).await;
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), 300);
    assert_eq!(rows.len(), 300, "a row counts twice");
}

#[tokio::test]
async fn a_server_that_comes_later_is_found() {
    let Some(mut server) = Postgres::stopped() else { return };
    let ledger = Ledger::start(
        LedgerConfig::new(Address::parse(&server.url("postgres")).unwrap()),
        Arc::new(NoObserver),
    );
    ledger.record(usage("early"));
    let said =
        eventually(Duration::from_secs(60), async || ledger.probe().await == Err(LedgerError::Unreachable));
    assert!(said.await, "{:?}", ledger.probe().await);
    server.resume().await;
    assert!(is_well(&ledger).await, "{:?}", ledger.probe().await);
    let late = eventually(Duration::from_secs(60), async || recorded(&ledger).await == ["early"]);
    assert!(late.await, "{:?}", recorded(&ledger).await);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_reported_as_refused() {
    let Some(server) = server().await else { return };
    let ledger = Ledger::start(config(Address::parse(&server.url("nowhere")).unwrap()), Arc::new(NoObserver));
    let said = eventually(Duration::from_secs(60), async || ledger.probe().await == Err(LedgerError::Denied));
    assert!(said.await, "{:?}", ledger.probe().await);
}

#[tokio::test]
async fn a_call_that_waits_for_somebody_elses_lock_ends_in_time() {
    let Some(server) = server().await else { return };
    let url = server.database("ledger");
    let quick = LedgerConfig { timeout: Duration::from_secs(4), ..config(Address::parse(&url).unwrap()) };
    let ledger = suite::open_with(quick).await;
    assert_eq!(claim(&ledger, "m", "a").await, Claimed::Yours);
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let mut held = pool.begin().await.unwrap();
    sqlx::query("SELECT runs FROM opossum_jobs FOR UPDATE").execute(&mut *held).await.unwrap();
    let begun = Instant::now();
    let waited = finishing(&ledger).await;
    assert_eq!(waited, Err(LedgerError::Timeout));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    held.rollback().await.unwrap();
    let stored = eventually(Duration::from_secs(5), async || finishing(&ledger).await.is_ok());
    assert!(stored.await, "{:?}", finishing(&ledger).await);
}

async fn finishing(ledger: &Ledger) -> Result<Finished, LedgerError> {
    ledger.finish(suite::key("m"), suite::HASH, reply(200, b"")).await
}
