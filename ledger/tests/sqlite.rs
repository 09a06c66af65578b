//! The ledger on an embedded SQLite: what it promises, and what it does when the disk does not.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod suite;

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opossum_core::jobs::{Claimed, Finished};
use opossum_ledger::{Address, Ledger, LedgerConfig, LedgerError, LedgerObserver, NoObserver, UsageRecord};
use opossum_testkit::temp::TempDir;
use opossum_testkit::{Dice, eventually};
use sqlx::Executor as _;
use suite::{HASH, cases, claim, config, is_well, key, open, open_with, recorded, reply, usage};

macro_rules! on_sqlite {
    ($($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let dir = TempDir::new("ledger");
            suite::$case(format!("sqlite://{}/a.db", dir.path().display())).await;
        }
    )*};
}

cases!(on_sqlite);

/// Counts what became of usage rows.
#[derive(Default)]
struct Counter {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl LedgerObserver for Counter {
    fn usage_written(&self, rows: u64) {
        self.written.fetch_add(rows, Ordering::SeqCst);
    }

    fn usage_dropped(&self, rows: u64) {
        self.dropped.fetch_add(rows, Ordering::SeqCst);
    }

    fn failed(&self, _error: LedgerError) {}
}

/// Somebody who takes the file's write lock and keeps it.
async fn lock(dir: &Path) -> sqlx::AnyPool {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}/ledger.db", dir.display());
    let pool = sqlx::any::AnyPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    pool.execute("BEGIN IMMEDIATE").await.unwrap();
    pool
}

#[tokio::test]
async fn a_locked_file_is_reported_and_nothing_recorded_meanwhile_is_lost() {
    let dir = TempDir::new("ledger");
    let ledger = open(Address::in_folder(dir.path())).await;
    let thief = lock(dir.path()).await;
    let begun = Instant::now();
    for n in 0..1000 {
        ledger.record(usage(&format!("r{n}")));
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "recording waited: {:?}", begun.elapsed());
    assert_eq!(ledger.probe().await, Err(LedgerError::Locked));
    assert_eq!(ledger.job(key("m")).await, Ok(None), "reading needs no lock");
    assert_eq!(ledger.fault(), Some(LedgerError::Locked), "and does not show that writing works again");

    thief.execute("ROLLBACK").await.unwrap();
    let all = eventually(Duration::from_secs(60), async || recorded(&ledger).await.len() == 1000);
    assert!(all.await, "{}", recorded(&ledger).await.len());
    assert_eq!((ledger.probe().await, ledger.fault()), (Ok(()), None));
}

#[tokio::test]
async fn rows_of_requests_that_cost_nothing_leave_room_for_others() {
    let dir = TempDir::new("ledger");
    drop(open(Address::in_folder(dir.path())).await);
    let _thief = lock(dir.path()).await;
    let counter = Arc::new(Counter::default());
    let small = LedgerConfig { usage_queue: 16, ..config(Address::in_folder(dir.path())) };
    let ledger = Ledger::start(small, Arc::clone(&counter) as Arc<dyn LedgerObserver>);
    for n in 0..100 {
        ledger.record(UsageRecord { attempts: 0, ..usage(&format!("refused-{n}")) });
    }
    let dropped = || counter.dropped.load(Ordering::SeqCst);
    let before = dropped();
    assert!(before >= 80, "{before}");
    for n in 0..8 {
        ledger.record(usage(&format!("paid-{n}")));
    }
    assert_eq!(dropped(), before, "the other half of the places is theirs");
    ledger.record(UsageRecord { attempts: 0, ..usage("one more") });
    assert_eq!(dropped(), before + 1);
}

#[tokio::test]
async fn a_row_is_written_or_counted_as_dropped() {
    let dir = TempDir::new("ledger");
    drop(open(Address::in_folder(dir.path())).await);
    let _thief = lock(dir.path()).await;
    let counter = Arc::new(Counter::default());
    let small = LedgerConfig { usage_queue: 16, ..config(Address::in_folder(dir.path())) };
    let ledger = Ledger::start(small, Arc::clone(&counter) as Arc<dyn LedgerObserver>);
    for n in 0..1000 {
        ledger.record(usage(&format!("r{n}")));
    }
    assert!(counter.dropped.load(Ordering::SeqCst) > 900, "a full queue drops at once");
    ledger.close(Duration::from_secs(60)).await;
    assert_eq!(counter.written.load(Ordering::SeqCst), 0);
    assert_eq!(counter.dropped.load(Ordering::SeqCst), 1000);
}

#[tokio::test]
async fn closing_writes_what_waits() {
    let dir = TempDir::new("ledger");
    let counter = Arc::new(Counter::default());
    let address = Address::in_folder(dir.path());
    let ledger = Ledger::start(config(address.clone()), Arc::clone(&counter) as Arc<dyn LedgerObserver>);
    assert!(is_well(&ledger).await);
    for n in 0..1500 {
        ledger.record(usage(&format!("r{n}")));
    }
    ledger.close(Duration::from_secs(60)).await;
    assert_eq!(counter.written.load(Ordering::SeqCst), 1500);
    // Complete in one file: the log is folded into it and gone.
    assert!(!dir.path().join("ledger.db-wal").exists());
    assert_eq!(recorded(&open(address).await).await.len(), 1500);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_reported_until_it_can() {
    let dir = TempDir::new("ledger");
    let folder = dir.path().join("state");
    std::fs::write(&folder, "a file in the way").unwrap();
    let ledger = Ledger::start(config(Address::in_folder(&folder)), Arc::new(NoObserver));
    ledger.record(usage("early"));
    let said = eventually(Duration::from_secs(60), async || ledger.probe().await == Err(LedgerError::Disk));
    assert!(said.await, "{:?}", ledger.probe().await);
    std::fs::remove_file(&folder).unwrap();
    assert!(is_well(&ledger).await, "{:?}", ledger.probe().await);
    let late = eventually(Duration::from_secs(60), async || recorded(&ledger).await == ["early"]);
    assert!(late.await, "{:?}", recorded(&ledger).await);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_reported_and_left_alone() {
    let dir = TempDir::new("ledger");
    let junk = b"this is somebody's diary, not a database".repeat(200);
    std::fs::write(dir.path().join("ledger.db"), &junk).unwrap();
    let ledger = Ledger::start(config(Address::in_folder(dir.path())), Arc::new(NoObserver));
    let said =
        eventually(Duration::from_secs(60), async || ledger.probe().await == Err(LedgerError::Damaged));
    assert!(said.await, "{:?}", ledger.probe().await);
    ledger.close(Duration::from_secs(60)).await;
    assert_eq!(std::fs::read(dir.path().join("ledger.db")).unwrap(), junk);
}

#[tokio::test]
async fn a_full_disk_is_reported_and_harms_nothing_that_was_stored() {
    let dir = TempDir::new("ledger");
    let address = Address::in_folder(dir.path());
    // A file may not grow beyond 1 MiB (in blocks of 512 bytes) in that process; a write beyond fails.
    let mut child = child("stores_until_told_otherwise", dir.path(), Some(2048));
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{lines:?}");
    let stored = lines.iter().filter_map(|line| line.strip_prefix("stored ")).count();
    let fault = lines.iter().find_map(|line| line.strip_prefix("fault "));
    assert!(stored >= 3 && fault == Some("disk"), "{lines:?}");

    let ledger = open(address).await;
    for n in 0..stored {
        assert_eq!(claim(&ledger, &format!("m{n}"), "a").await, Claimed::Done(reply(200, &body(n))));
    }
    assert_eq!(claim(&ledger, "after", "a").await, Claimed::Yours);
}

#[tokio::test]
async fn what_was_confirmed_survives_kill_9() {
    let dice = &mut Dice::from_env();
    let dir = TempDir::new("ledger");
    let mut stored = 0;
    for _ in 0..5 {
        let wanted = 5 + dice.below(40) as usize;
        let mut child = child("stores_until_told_otherwise", dir.path(), None);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.by_ref().filter_map(|line| line.strip_prefix("stored ").map(str::to_owned));
        stored = stored.max(said.take(wanted).last().unwrap().parse::<usize>().unwrap() + 1);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ledger = open(Address::in_folder(dir.path())).await;
    for n in 0..stored {
        assert_eq!(claim(&ledger, &format!("m{n}"), "a").await, Claimed::Done(reply(200, &body(n))), "{n}");
    }
}

/// Large enough for a small disk to be full soon.
fn body(n: usize) -> Vec<u8> {
    format!("reply {n} ").repeat(4000).into_bytes()
}

/// One of the tests below in a process of its own, with a limit on its files in blocks of 512 bytes.
fn child(test: &str, dir: &Path, blocks: Option<u32>) -> std::process::Child {
    let limit = blocks.map_or(String::new(), |blocks| format!("trap '' XFSZ; ulimit -f {blocks}; "));
    Command::new("/bin/sh")
        .args(["-c", &format!("{limit}exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env("OPOSSUM_TEST_FOLDER", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Stores replies, each after the last confirmed one, and says so; ends at the first fault.
#[tokio::test]
#[ignore = "other tests run it in a process of its own"]
async fn stores_until_told_otherwise() {
    let dir = std::env::var("OPOSSUM_TEST_FOLDER").unwrap();
    let ledger = open_with(LedgerConfig::new(Address::in_folder(Path::new(&dir)))).await;
    let mut out = std::io::stdout();
    for n in 0.. {
        let wanted = reply(200, &body(n));
        match ledger.finish(key(&format!("m{n}")), HASH, wanted.clone()).await {
            Ok(Finished::Stored) => writeln!(out, "stored {n}").unwrap(),
            Ok(Finished::Already(known)) => {
                assert_eq!(known, wanted);
                writeln!(out, "stored {n}").unwrap();
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                writeln!(out, "fault {}", error.label()).unwrap();
                ledger.close(Duration::from_secs(60)).await;
                return;
            }
        }
    }
}
