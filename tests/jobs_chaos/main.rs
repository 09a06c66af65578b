//! Whatever breaks, again and again and side by side: every job that the broker confirmed is answered, by what
//! it asked, and alike however often.
//!
//! Workers and the broker are killed as `kill -9` does, the broker is frozen, connections are closed, cut and
//! fall silent, the store is lost; meanwhile two tenants publish jobs with the same message ids, some of them
//! twice, and publish again what was not confirmed. `make chaos` runs this for five minutes; as a test it takes
//! one. `OPOSSUM_TEST_SEED` repeats a schedule.
#![expect(clippy::print_stderr, reason = "what a run did is worth reading when it is good, too")]

mod book;
mod caller;
mod cluster;
mod faults;
mod plan;
mod report;

use std::time::{Duration, Instant};

use book::Asking;
use caller::Caller;
use cluster::{Cluster, VHOST};
use faults::Tally;
use opossum_testkit::{Dice, eventually};
use report::Report;

/// How long the answers to what is open may take: the claims of workers that were killed run out, a broker that
/// is back sorts itself out, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

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
    let callers =
        ["acme", "mallory"].map(|user| (user, Caller::start(user, cluster.broker.url(user, VHOST))));
    let began = Instant::now();
    let mut faults = Tally::new();
    // On a slow machine an act takes longer than planned, and the last ones do not come.
    for act in acts.iter().take_while(|_| began.elapsed() < length) {
        faults::storm(&mut cluster, act, &mut faults).await;
        calm(&cluster, &callers).await;
        set_asking(&callers, Asking::Once);
        faults::lose_store(&mut cluster, act, &mut faults).await;
        calm(&cluster, &callers).await;
        set_asking(&callers, Asking::SomeTwice);
        eprintln!("{:4} s: {}", began.elapsed().as_secs(), progress(&callers));
    }
    let confirmed = || callers.iter().map(|(_, caller)| caller.book().confirmed()).sum::<usize>();
    let whole =
        eventually(length + PATIENCE, async || began.elapsed() >= length && confirmed() >= wanted).await;
    calm(&cluster, &callers).await;
    let report = Report::of(&callers, &cluster.upstream, faults, began.elapsed());
    eprintln!("{report}");
    assert!(report.is_good(), "{report}");
    assert!(report.errors.is_empty(), "{report}");
    let (extra, excused) = report.extra_runs();
    assert!(extra <= excused, "{report}");
    assert!(whole, "too few jobs to say anything: {report}");
}

fn set_asking(callers: &[(&str, Caller)], asking: Asking) {
    callers.iter().for_each(|(_, caller)| caller.set_asking(asking));
}

/// Has nothing new asked, and waits until everything asked is answered and nothing is under way.
async fn calm(cluster: &Cluster, callers: &[(&str, Caller)]) {
    set_asking(callers, Asking::Nothing);
    let open = || callers.iter().map(|(_, caller)| caller.book().open()).sum::<usize>();
    let answered = eventually(PATIENCE, async || open() == 0).await;
    if answered {
        cluster.settled().await;
    }
}

fn progress(callers: &[(&str, Caller)]) -> String {
    let of = |(user, caller): &(&str, Caller)| {
        let counts = caller.counts();
        format!("{user} asked {} and heard {} ", counts.asked, counts.replies)
    };
    callers.iter().map(of).collect()
}
