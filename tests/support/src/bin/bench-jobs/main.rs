//! What the queue costs: jobs a second, latency, how soon a broker that was killed is used again, and what HTTP
//! notices of that. Prints one table, in Markdown.
//!
//! `bench-jobs PATH` measures the service at PATH, with a real broker, the embedded ledger and a backend in the
//! service's process that answers at once. Load, broker and service share the machine.
#![expect(clippy::expect_used, reason = "a benchmark that cannot measure ends with what it saw")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod figures;
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use figures::Figures;
use load::Load;
use opossum_testkit::requester::PATIENCE;
use opossum_testkit::{Broker, Service, ask, eventually};

/// Jobs of the closed loop, and how many of them may be without an answer.
const JOBS: usize = 20_000;
const OPEN: usize = 512;

/// Jobs and requests a second of the paced runs, and how long those take.
const PACE: u32 = 500;
const HTTP_PACE: u32 = 200;
const PACED: Duration = Duration::from_secs(15);

/// How often the broker is killed.
const KILLS: usize = 5;

fn main() {
    let binary = std::env::args().nth(1).expect("the path of the service's binary");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measure(&binary));
}

async fn measure(binary: &str) {
    assert!(Path::new(binary).is_file(), "{binary} is no file");
    let mut broker = Broker::start("").await;
    let service = Service::of(binary)
        .set("services.null.kind", "\"fake\"")
        .env("AMQP_URL", broker.url("opossum", 0))
        .start()
        .await;
    until_well(&service).await;
    println!("| | |\n|---|---:|");
    let load = Load::new(&broker.url("acme", 0)).await;
    load.closed_loop(JOBS / 10, OPEN).await;
    let took = load.closed_loop(JOBS, OPEN).await;
    println!("| jobs a second, end to end, {OPEN} open | {:.0} |", JOBS as f64 / took.as_secs_f64());
    let paced = load.paced(PACE, PACED).await;
    println!("| latency at {PACE} jobs a second, p50, p99 | {paced} |");
    println!("| HTTP at {HTTP_PACE} requests a second, p50, p99 | {} |", http(&service).await);
    broker.kill();
    let away = eventually(PATIENCE, async || !is_well(&service).await);
    assert!(away.await, "nobody noticed that the broker is away");
    println!("| the same while the broker is away | {} |", http(&service).await);
    let mut back = Figures::default();
    for _ in 0..KILLS {
        broker.restart().await;
        let opened = Instant::now();
        until_well(&service).await;
        back.add(opened.elapsed());
        broker.kill();
    }
    println!(
        "| from the killed broker's open port to consuming, {KILLS} times: p50, longest | {} |",
        back.ends()
    );
}

/// Whether the service can publish and consume.
async fn is_well(service: &Service) -> bool {
    let metrics = service.client().metrics().await;
    metrics.sum("opossum_amqp_connected", &[]) == Some(2.0)
}

async fn until_well(service: &Service) {
    let well = eventually(PATIENCE, async || is_well(service).await).await;
    assert!(well, "the queue never came up: {}", service.logs());
}

/// Latency of paced requests over HTTP, each counted from when it was due.
async fn http(service: &Service) -> Figures {
    let mut figures = Figures::default();
    let client = service.client();
    let mut answers = tokio::task::JoinSet::new();
    let began = Instant::now();
    let gap = PACED / (PACED.as_secs() as u32 * HTTP_PACE);
    for number in 0..PACED.as_secs() as u32 * HTTP_PACE {
        let due = began + gap * number;
        tokio::time::sleep_until(due.into()).await;
        let client = client.clone();
        answers.spawn(async move {
            let answer = client.chat(&ask(&format!("question {number}"))).await;
            assert_eq!(answer.status, 200, "{}", answer.body_text());
            due.elapsed()
        });
    }
    while let Some(took) = answers.join_next().await {
        figures.add(took.expect("an answer"));
    }
    figures
}
