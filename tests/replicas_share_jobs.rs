//! Three replicas with one broker and one database share ten thousand jobs: each is run once and answered once,
//! and no replica stands by while others work.
#![expect(clippy::print_stderr, reason = "figures of a run are in its output")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use opossum_testkit::requester::{PATIENCE, payload};
use opossum_testkit::{Broker, Postgres, Requester, Script, Service, Upstream, ask, eventually};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const LANES: [&str; 3] = ["opossum.jobs.high", "opossum.jobs.normal", "opossum.jobs.batch"];
const REPLICAS: usize = 3;
const JOBS: usize = 10_000;

/// Jobs that are published before any of them is waited for.
const AT_ONCE: usize = 500;

/// How long the last answer may take on a busy machine, once the last job is published.
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_share_ten_thousand_jobs_and_answer_each_once() {
    let (database, broker) = tokio::join!(Postgres::start(), Broker::start(""));
    let Some(database) = database else { return };
    let up = Upstream::openai().script(Script::echo()).start();
    let builder = Service::of(BIN)
        .named("only", &up)
        .env("AMQP_URL", broker.url("opossum", 0))
        .env("DATABASE_URL", database.database("shared"));
    let replicas = join_all((0..REPLICAS).map(|_| builder.clone().start())).await;
    for replica in &replicas {
        let client = replica.client();
        let well = eventually(PATIENCE, async || client.health(false).await["status"] == "ok");
        assert!(well.await, "{}", replica.logs());
    }
    let acme = Requester::new(&broker, "acme", 0).await;
    let began = Instant::now();
    let ids: Vec<_> = (0..JOBS).map(|n| format!("job-{n}")).collect();
    for (batch, ids) in ids.chunks(AT_ONCE).enumerate() {
        let lane = LANES[batch % LANES.len()];
        join_all(ids.iter().map(async |id| {
            acme.publish(lane, acme.properties(id), &payload(&ask(id))).await;
        }))
        .await;
    }
    let published = began.elapsed();
    let all = eventually(LIMIT, async || acme.heard_count() >= JOBS).await;
    let took = began.elapsed();
    assert!(all, "{} of {JOBS} jobs are answered", acme.heard_count());
    let mut shares = Vec::new();
    // A replica counts a job once it is acknowledged, after its answer has gone out.
    let counted = eventually(PATIENCE, async || {
        shares = join_all(replicas.iter().map(share)).await;
        shares.iter().sum::<usize>() >= JOBS
    });
    assert!(counted.await, "{shares:?}");
    eprintln!(
        "{JOBS} jobs were published in {published:?} and answered in {took:?}, by shares of {shares:?}"
    );
    assert_eq!(shares.iter().sum::<usize>(), JOBS);
    assert!(shares.iter().all(|share| *share > JOBS / 10), "{shares:?}");
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for heard in acme.heard() {
        assert_eq!(heard.status(), Some(200), "{heard:?}");
        let answered = heard.body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        assert_eq!(heard.correlation_id, format!("c-{answered}"), "an answer to what was asked");
        *answers.entry(answered.to_owned()).or_default() += 1;
    }
    assert_eq!(answers, ids.iter().map(|id| (id.clone(), 1)).collect(), "each is answered once");
    assert_eq!(up.calls(), JOBS, "each is run once");
}

/// How many jobs a replica has answered. It has done nothing else with any.
async fn share(replica: &Service) -> usize {
    let metrics = replica.client().metrics().await;
    let jobs = |outcomes: &[(&str, &str)]| metrics.count("opossum_jobs_total", outcomes);
    let succeeded = jobs(&[("outcome", "succeeded")]);
    assert_eq!(jobs(&[]), succeeded, "{}", metrics.text());
    succeeded as usize
}
