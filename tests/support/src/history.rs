//! What happened to jobs, and what must not have: a checker over the logs of a run, as Jepsen has them.
//!
//! A run notes what it asked for, what the broker confirmed, what was executed, what was replied and what lies
//! among the dead. [`History::check`] is a pure function of these notes: the same log gives the same verdict,
//! however the faults fell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The notes of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    asked: BTreeSet<String>,
    confirmed: BTreeSet<String>,
    executed: BTreeMap<String, u32>,
    replies: BTreeMap<String, Vec<String>>,
    dead: BTreeSet<String>,
    misdirected: Vec<String>,
}

/// What is wrong with a run. Empty lists are good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Confirmed, and never seen again: neither executed nor answered nor among the dead.
    pub lost: Vec<String>,
    /// Confirmed and seen, but without a reply: whoever asked waits for ever.
    pub unanswered: Vec<String>,
    /// A reply, a run or a dead letter of a job that nobody asked for, or a reply that went to somebody else.
    pub foreign: Vec<String>,
    /// Replies to one job that say different things.
    pub conflicting: Vec<String>,
    /// Executed more often than faults excuse.
    pub over_limit: Vec<String>,
}

impl History {
    /// Notes a job that is about to be published, whether or not that succeeds.
    pub fn asked(&mut self, id: &str) {
        self.asked.insert(id.to_owned());
    }

    /// Notes that the broker confirmed a job.
    pub fn confirmed(&mut self, id: &str) {
        self.confirmed.insert(id.to_owned());
    }

    /// Notes that a job was executed so many times.
    pub fn executed(&mut self, id: &str, times: u32) {
        *self.executed.entry(id.to_owned()).or_default() += times;
    }

    /// Notes a reply: the job that it is addressed to, the one that its content speaks of, and all of it.
    pub fn replied(&mut self, id: &str, speaks_of: &str, content: &str) {
        if id != speaks_of {
            self.misdirected.push(format!("{speaks_of} came as {id}"));
        }
        self.replies.entry(id.to_owned()).or_default().push(content.to_owned());
    }

    /// Notes a job among the dead.
    pub fn dead(&mut self, id: &str) {
        self.dead.insert(id.to_owned());
    }

    /// How many jobs were confirmed.
    pub fn confirmations(&self) -> usize {
        self.confirmed.len()
    }

    /// How many runs there were beyond one a job.
    pub fn extra_runs(&self) -> u32 {
        self.executed.values().map(|times| times.saturating_sub(1)).sum()
    }

    /// What was replied to a job.
    pub fn replies_to(&self, id: &str) -> &[String] {
        self.replies.get(id).map_or(&[], Vec::as_slice)
    }

    /// Confirmed jobs that have no reply yet.
    pub fn waiting(&self) -> usize {
        self.confirmed.iter().filter(|id| !self.replies.contains_key(*id)).count()
    }

    /// What is wrong, if one job may be executed at most so often.
    pub fn check(&self, most_runs: u32) -> Verdict {
        let seen = |id: &String| self.executed.contains_key(id) || self.dead.contains(id);
        let silent = || self.confirmed.iter().filter(|id| !self.replies.contains_key(*id));
        let known = self.executed.keys().chain(self.replies.keys()).chain(&self.dead);
        let strangers: BTreeSet<_> = known.filter(|id| !self.asked.contains(*id)).cloned().collect();
        let differ = |replies: &Vec<String>| replies.iter().any(|reply| *reply != replies[0]);
        Verdict {
            lost: silent().filter(|id| !seen(id)).cloned().collect(),
            unanswered: silent().filter(|id| seen(id)).cloned().collect(),
            foreign: strangers.into_iter().chain(self.misdirected.iter().cloned()).collect(),
            conflicting: self
                .replies
                .iter()
                .filter(|(_, all)| differ(all))
                .map(|(id, _)| id.clone())
                .collect(),
            over_limit: self
                .executed
                .iter()
                .filter(|(_, times)| **times > most_runs)
                .map(|(id, _)| id.clone())
                .collect(),
        }
    }
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("lost", &self.lost),
            ("unanswered", &self.unanswered),
            ("foreign", &self.foreign),
            ("conflicting", &self.conflicting),
            ("over-limit", &self.over_limit),
        ];
        for (name, ids) in lists {
            let some: Vec<_> = ids.iter().take(5).collect();
            write!(f, "{name} {} {some:?}; ", ids.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two jobs, asked, confirmed, executed and answered.
    fn good() -> History {
        let mut history = History::default();
        for id in ["a", "b"] {
            history.asked(id);
            history.confirmed(id);
            history.executed(id, 1);
            history.replied(id, id, "200 fine");
        }
        history
    }

    /// What the checker says to a good log with something false in it.
    fn verdict(falsify: impl FnOnce(&mut History)) -> Verdict {
        let mut history = good();
        falsify(&mut history);
        history.check(2)
    }

    #[test]
    fn a_good_log_is_good_and_so_are_repetitions_alike_and_jobs_never_confirmed() {
        let verdict = verdict(|history| {
            history.replied("a", "a", "200 fine");
            history.executed("b", 1);
            history.asked("never confirmed");
            history.asked("confirmed to nobody");
            history.executed("confirmed to nobody", 1);
            history.replied("confirmed to nobody", "confirmed to nobody", "200 fine");
        });
        assert!(verdict.is_good(), "{verdict}");
    }

    #[test]
    fn a_job_that_vanished_is_lost() {
        let verdict = verdict(|history| {
            history.asked("c");
            history.confirmed("c");
        });
        assert_eq!(verdict, Verdict { lost: vec!["c".to_owned()], ..Verdict::default() });
    }

    #[test]
    fn a_job_that_ran_or_died_without_a_reply_is_unanswered() {
        let verdict = verdict(|history| {
            for id in ["ran", "died"] {
                history.asked(id);
                history.confirmed(id);
            }
            history.executed("ran", 1);
            history.dead("died");
        });
        let unanswered = vec!["died".to_owned(), "ran".to_owned()];
        assert_eq!(verdict, Verdict { unanswered, ..Verdict::default() });
    }

    #[test]
    fn replies_that_nobody_asked_for_or_that_speak_of_another_job_are_foreign() {
        let verdict = verdict(|history| {
            history.replied("x", "x", "200 fine");
            history.replied("a", "b", "200 fine");
        });
        let foreign = vec!["x".to_owned(), "b came as a".to_owned()];
        assert_eq!(verdict, Verdict { foreign, ..Verdict::default() });
    }

    #[test]
    fn replies_that_differ_conflict() {
        let verdict = verdict(|history| history.replied("b", "b", "500 not fine"));
        assert_eq!(verdict, Verdict { conflicting: vec!["b".to_owned()], ..Verdict::default() });
    }

    #[test]
    fn a_job_that_ran_too_often_is_over_the_limit() {
        let verdict = verdict(|history| history.executed("a", 2));
        assert_eq!(verdict, Verdict { over_limit: vec!["a".to_owned()], ..Verdict::default() });
    }
}
