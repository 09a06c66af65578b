//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use opossum_testkit::Upstream;
use opossum_testkit::history::Verdict;

use crate::book::Counts;
use crate::cluster::SLOTS;
use crate::crowd::Crowd;
use crate::faults::{Tally, WORKER_KILLED};

/// What a run came to.
pub(crate) struct Report {
    pub(crate) took: Duration,
    faults: Tally,
    counts: Vec<Counts>,
    /// Replies that were errors. Nothing here is a caller's mistake, and the upstream never fails.
    pub(crate) errors: Vec<String>,
    pub(crate) confirmed: usize,
    executed: u32,
    extra: u32,
    verdicts: Vec<Verdict>,
    /// Replies to one job that differ.
    conflicts: Vec<String>,
}

impl Report {
    /// Judges a run that is over; every caller's log by itself, with what was executed for that tenant.
    pub(crate) fn of(crowd: &Crowd, upstream: &Upstream, faults: Tally, took: Duration) -> Self {
        let books = crowd.books();
        let mut report = Self {
            took,
            counts: books.iter().map(|book| book.counts()).collect(),
            errors: books.iter().flat_map(|book| book.errors().to_vec()).collect(),
            confirmed: 0,
            executed: 0,
            extra: 0,
            verdicts: Vec::new(),
            conflicts: Vec::new(),
            faults,
        };
        let runs = executed(upstream);
        let most = u32::try_from(report.faults.values().sum::<usize>() + 1).unwrap_or(u32::MAX);
        for book in &books {
            let mut history = book.history();
            let own = format!("{}/", book.tenant());
            for (question, times) in &runs {
                // What belongs to nobody is foreign to all.
                if question.starts_with(&own) || !question.contains('/') {
                    history.executed(question, *times);
                    report.executed += times;
                }
            }
            report.confirmed += history.confirmations();
            report.extra += history.extra_runs();
            let verdict = history.check(most);
            let differ = verdict.conflicting.iter().flat_map(|id| history.replies_to(id));
            report.conflicts.extend(differ.cloned());
            report.verdicts.push(verdict);
        }
        report
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_good(&self) -> bool {
        self.verdicts.iter().all(Verdict::is_good)
    }

    /// Runs beyond one a job, and how many are excused: a worker that is killed leaves as many jobs begun as
    /// it has places, and nothing else makes a job run again.
    pub(crate) fn extra_runs(&self) -> (usize, usize) {
        let kills = self.faults.get(WORKER_KILLED).copied().unwrap_or_default();
        (self.extra as usize, kills * SLOTS)
    }
}

/// How often the upstream was asked each question.
fn executed(upstream: &Upstream) -> BTreeMap<String, u32> {
    let mut times = BTreeMap::new();
    for seen in upstream.seen() {
        if let Some(question) = seen.body["messages"][0]["content"].as_str() {
            *times.entry(question.to_owned()).or_default() += 1;
        }
    }
    times
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&Counts) -> u64| self.counts.iter().map(of).sum::<u64>();
        writeln!(
            f,
            "{} jobs in {} s: {} messages published, {} jobs confirmed",
            sum(|counts| counts.asked),
            self.took.as_secs(),
            sum(|counts| counts.published),
            self.confirmed,
        )?;
        let (extra, excused) = self.extra_runs();
        writeln!(f, "executed {} times, {extra} of them again ({excused} excused)", self.executed)?;
        writeln!(f, "{} replies, {} of them errors", sum(|counts| counts.replies), self.errors.len())?;
        for (name, times) in &self.faults {
            writeln!(f, "{times:5} {name}")?;
        }
        for error in self.errors.iter().take(5) {
            writeln!(f, "an error: {error}")?;
        }
        for reply in self.conflicts.iter().take(6) {
            writeln!(f, "one of several: {reply}")?;
        }
        for verdict in &self.verdicts {
            writeln!(f, "{verdict}")?;
        }
        Ok(())
    }
}
