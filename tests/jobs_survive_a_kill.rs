//! Replicas are killed as `kill -9` does, again and again, while jobs come: every job that the broker confirmed
//! is answered, by what it asked, and alike however often.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use opossum_testkit::requester::{PATIENCE, payload};
use opossum_testkit::temp::TempDir;
use opossum_testkit::{Broker, Dice, History, Requester, Script, Service, Step, Upstream, ask, eventually};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const LANES: [&str; 3] = ["opossum.jobs.high", "opossum.jobs.normal", "opossum.jobs.batch"];
const REPLICAS: usize = 2;
const KILLS: usize = 12;

/// Jobs that come before each kill: more than the replicas have places for.
const JOBS: usize = 40;

/// Jobs that one replica works on at once.
const SLOTS: usize = 8;

/// How long the upstream takes.
const WORK: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_confirmed_job_is_answered_alike_whichever_replica_is_killed() {
    let broker = Broker::start("").await;
    let mut dice = Dice::from_env();
    let shared = TempDir::new("ledger");
    let up = Upstream::openai().script(Script::new().delay(WORK).then(Step::Echo)).start();
    let builder = Service::of(BIN)
        .named("only", &up)
        .set("server.max_in_flight", SLOTS)
        .env("AMQP_URL", broker.url("opossum", 0))
        .env("DATABASE_URL", format!("sqlite://{}", shared.path().join("ledger.db").display()));
    let mut replicas = vec![builder.clone().start().await, builder.start().await];
    for replica in &replicas {
        let client = replica.client();
        let well = eventually(PATIENCE, async || client.health(false).await["status"] == "ok");
        assert!(well.await, "{}", replica.logs());
    }
    let acme = Requester::new(&broker, "acme", 0).await;
    let mut history = History::default();
    for kill in 0..KILLS {
        let ids: Vec<_> = (0..JOBS).map(|n| format!("job-{kill}-{n}")).collect();
        ids.iter().for_each(|id| history.asked(id));
        let lanes: Vec<_> = ids.iter().map(|_| LANES[dice.below(3) as usize]).collect();
        join_all(ids.iter().zip(lanes).map(async |(id, lane)| {
            acme.publish(lane, acme.properties(id), &payload(&ask(id))).await;
        }))
        .await;
        ids.iter().for_each(|id| history.confirmed(id));
        tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
        let mut victim = replicas.swap_remove(dice.below(REPLICAS as u64) as usize);
        victim.kill();
        replicas.push(victim.restart().await);
    }
    eventually(2 * PATIENCE, async || replied(&history, &acme).waiting() == 0).await;
    let mut history = replied(&history, &acme);
    for (id, times) in executed(&up) {
        history.executed(&id, times);
    }
    let verdict = history.check(u32::try_from(KILLS + 1).unwrap_or(u32::MAX));
    assert!(verdict.is_good(), "{verdict}");
    let extra = history.extra_runs() as usize;
    assert!(
        (1..=KILLS * SLOTS).contains(&extra),
        "{extra} extra runs: as many as jobs that a kill interrupted"
    );
}

/// The log with what was heard: all of a reply but the time at which it was sent.
fn replied(history: &History, acme: &Requester) -> History {
    let mut history = history.clone();
    for heard in acme.heard() {
        let id = heard.correlation_id.trim_start_matches("c-");
        let speaks_of = heard.body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        history.replied(id, speaks_of, &format!("{:?} {:?} {}", heard.status(), heard.headers, heard.body));
    }
    history
}

/// How often the upstream was asked each question.
fn executed(up: &Upstream) -> BTreeMap<String, u32> {
    let mut times = BTreeMap::new();
    for seen in up.seen() {
        if let Some(question) = seen.body["messages"][0]["content"].as_str() {
            *times.entry(question.to_owned()).or_default() += 1;
        }
    }
    times
}
