//! A database that is away, locked, damaged or full: no request is slower or fails for it, and health says so.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opossum_ledger::{Address, Ledger, LedgerConfig, NoObserver};
use opossum_testkit::temp::TempDir;
use opossum_testkit::{Postgres, Service, ServiceBuilder, SqliteLock, Upstream, ask, eventually};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const SOON: Duration = Duration::from_secs(30);
/// What no request may take, whatever the database does; each of its own timeouts is longer.
const AT_ONCE: Duration = Duration::from_secs(1);

struct Setting {
    /// Answers every request.
    _up: Upstream,
    service: Service,
    /// The service's state folder.
    state: TempDir,
}

/// A service whose state folder was prepared by somebody.
async fn serve(
    prepare: impl FnOnce(PathBuf),
    build: impl FnOnce(ServiceBuilder) -> ServiceBuilder,
) -> Setting {
    let up = Upstream::openai().text("hello").start();
    let state = TempDir::new("state");
    prepare(state.path().join("ledger.db"));
    let builder = Service::of(BIN).named("only", &up).env("STATE_DIR", state.path().display());
    let service = build(builder.set("server.drain_delay", 0)).start().await;
    service.settled(&["only"]).await;
    Setting { _up: up, service, state }
}

impl Setting {
    /// So many requests, each answered at once.
    async fn answers(&self, count: usize) {
        for _ in 0..count {
            let answer = self.service.client().chat(&ask("x")).await;
            assert_eq!(answer.status, 200, "{}", answer.body_text());
            assert!(answer.elapsed < AT_ONCE, "{:?}", answer.elapsed);
        }
    }

    /// Health comes to say this of the database, and of everything.
    async fn health_says(&self, status: &str, database: &str) {
        let mut health = serde_json::Value::Null;
        let said = eventually(SOON, async || {
            health = self.service.client().health(false).await;
            health["status"] == status && health["services"]["database"] == database
        });
        assert!(said.await, "{health:#}");
    }

    async fn rows_come_to(&self, count: usize) {
        rows_at(Address::in_folder(self.state.path()), count).await;
    }
}

async fn rows_at(address: Address, count: usize) {
    let ledger = Ledger::start(LedgerConfig::new(address), Arc::new(NoObserver));
    let rows = async || ledger.usage(0, u32::MAX).await.map_or(0, |rows| rows.len());
    let there = eventually(SOON, async || rows().await == count);
    assert!(there.await, "{} rows instead of {count}", rows().await);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_said_and_opened_once_it_can_be() {
    let set = serve(|file| std::fs::create_dir(file).unwrap(), |builder| builder).await;
    set.answers(5).await;
    set.health_says("degraded", "error: the file cannot be opened, read or written").await;
    std::fs::remove_dir(set.state.path().join("ledger.db")).unwrap();
    set.health_says("ok", "ok").await;
    set.rows_come_to(5).await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_said_and_left_alone() {
    let junk = b"this is somebody's diary, not a database".repeat(200);
    let set = serve(|file| std::fs::write(file, &junk).unwrap(), |builder| builder).await;
    set.answers(5).await;
    set.health_says("degraded", "error: the file is damaged or no database").await;
    let mut service = set.service;
    service.terminate();
    assert!(service.wait_exit(SOON).await.is_some_and(|status| status.success()), "{}", service.logs());
    assert!(service.logs().contains("usage rows are lost"), "{}", service.logs());
    assert_eq!(std::fs::read(set.state.path().join("ledger.db")).unwrap(), junk);
}

#[tokio::test]
async fn a_locked_file_is_said_and_nothing_is_lost() {
    let set = serve(|_| {}, |builder| builder).await;
    set.health_says("ok", "ok").await;
    let lock = SqliteLock::take(&set.state.path().join("ledger.db"));
    set.answers(20).await;
    set.health_says("degraded", "error: locked by somebody else").await;
    set.answers(20).await;
    let asked_anew = set.service.client().health(true).await;
    assert_eq!(asked_anew["services"]["database"], "error: locked by somebody else");
    drop(lock);
    set.health_says("ok", "ok").await;
    set.rows_come_to(40).await;
    let metrics = set.service.client().metrics().await;
    assert!(metrics.count("opossum_ledger_failures_total", &[("reason", "locked")]) >= 1.0);
    assert_eq!(metrics.sum("opossum_ledger_usage_rows_total", &[("result", "dropped")]), Some(0.0));
}

#[tokio::test]
async fn a_full_disk_is_said_and_what_did_not_fit_is_written_once_there_is_space() {
    // 256 KiB: the tables fit, and not many rows.
    let set = serve(|_| {}, |builder| builder.file_blocks(512)).await;
    let mut asked = 0;
    let mut said = String::new();
    let full = eventually(SOON, async || {
        set.answers(50).await;
        asked += 50;
        let health = set.service.client().health(false).await;
        said = health["services"]["database"].to_string();
        health["status"] == "degraded" && said.contains("error: ")
    });
    assert!(full.await, "{asked} requests did not fill the disk: {said}");
    set.answers(20).await;
    set.service.lift_file_limit();
    set.rows_come_to(asked + 20).await;
    set.health_says("ok", "ok").await;
}

#[tokio::test]
async fn requests_do_not_notice_that_a_postgresql_went_away_and_their_rows_are_written_when_it_is_back() {
    let Some(mut server) = Postgres::start().await else { return };
    let url = server.database("usage");
    let secret = url.replace("opossum@", "opossum:canary-of-the-database@");
    assert_ne!(url, secret);
    let set = serve(|_| {}, |builder| builder.env("DATABASE_URL", &secret)).await;
    set.health_says("ok", "ok").await;
    set.answers(5).await;
    rows_at(Address::parse(&url).unwrap(), 5).await;
    assert!(!set.state.path().join("ledger.db").exists(), "there is one ledger");
    server.kill();
    set.answers(20).await;
    set.health_says("degraded", "error: cannot be reached").await;
    server.resume().await;
    rows_at(Address::parse(&url).unwrap(), 25).await;
    set.health_says("ok", "ok").await;
    let health = set.service.client().health(true).await.to_string();
    assert!(!set.service.logs().contains("canary") && !health.contains("canary"));
}

#[tokio::test]
async fn an_address_that_no_ledger_can_be_at_ends_the_start_and_is_not_quoted() {
    for url in [
        "sqlite://?mode=memory&canary",
        "sqlite://:memory:",
        "mysql://user:canary@host/db",
        "postgres://user:canary@host:port/db",
        "postgres://user:canary@host/db?sslmode=perhaps",
    ] {
        let (status, said) = Service::of(BIN).env("DATABASE_URL", url).refused().await;
        assert_eq!(status.code(), Some(78), "{url}: {said}");
        assert!(said.contains("DATABASE_URL") && !said.contains("canary"), "{url}: {said}");
    }
}
