//! Whatever breaks, again and again and side by side: every job that the broker confirmed is answered, by what
//! it asked, and alike however often.
//!
//! Workers and the broker are killed as `kill -9` does, the broker is frozen, connections are closed, cut and
//! fall silent, the store is lost; meanwhile two tenants publish jobs with the same message ids, some of them
//! twice, and publish again what was not confirmed, and others post jobs and fetch the answers over HTTP. `make chaos` runs this for five minutes; as a test it takes
//! one. `OPOSSUM_TEST_SEED` repeats a schedule.
#![expect(clippy::panic, reason = "a test ends so, with what it saw")]
#![expect(clippy::print_stderr, reason = "what a run did is worth reading when it is good, too")]

mod book;
mod caller;
mod clerk;
mod cluster;
mod crowd;
mod faults;
mod plan;
mod report;

use std::time::{Duration, Instant};

use book::Asking;
use cluster::Cluster;
use crowd::Crowd;
use faults::Tally;
use opossum_testkit::{Dice, eventually};
use report::Report;

/// How long the answers to what is open may take: the claims of workers that were killed run out, a broker that
/// is back sorts itself out, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_job_is_lost_unanswered_or_answered_in_two_ways_whatever_breaks() {
    let length = Duration::from_secs(setting("OPOSSUM_CHAOS_SECONDS", 60));
    let wanted = usize::try_from(setting("OPOSSUM_CHAOS_JOBS", 1000)).unwrap_or(usize::MAX);
    let mut dice = Dice::from_env();
    let acts = plan::plan(&mut dice, length);
    let Some(mut cluster) = Cluster::start().await else { return };
    let crowd = Crowd::start(&cluster);
    let began = Instant::now();
    let mut faults = Tally::new();
    // On a slow machine an act takes longer than planned, and the last ones do not come.
    for act in acts.iter().take_while(|_| began.elapsed() < length) {
        faults::storm(&mut cluster, act, &mut faults).await;
        calm(&cluster, &crowd).await;
        crowd.ask(Asking::Once);
        faults::lose_store(&mut cluster, act, &mut faults).await;
        calm(&cluster, &crowd).await;
        crowd.ask(Asking::SomeTwice);
        eprintln!("{:4} s: {}", began.elapsed().as_secs(), crowd.progress());
    }
    let whole = async || began.elapsed() >= length && crowd.confirmed() >= wanted;
    let whole = eventually(length + PATIENCE, whole).await;
    calm(&cluster, &crowd).await;
    let report = Report::of(&crowd, &cluster.upstream, faults, began.elapsed());
    eprintln!("{report}");
    assert!(report.is_good(), "{report}");
    assert!(report.errors.is_empty(), "{report}");
    let (extra, excused) = report.extra_runs();
    assert!(extra <= excused, "{report}");
    assert!(whole, "too few jobs to say anything: {report}");
}

/// Has nothing new asked, and waits until everything asked is answered and nothing is under way.
///
/// # Panics
/// When that takes too long, with what is left.
async fn calm(cluster: &Cluster, crowd: &Crowd) {
    crowd.ask(Asking::Nothing);
    let calm = eventually(PATIENCE, async || crowd.open() == 0).await && cluster.settled(PATIENCE).await;
    if !calm {
        let left = crowd.books().iter().map(|book| book.left()).collect::<String>();
        panic!("jobs are left over: {left}\n{}", cluster.queues().await);
    }
}
