//! A caller's book: what it asked, what the broker confirmed, and what it heard.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use opossum_testkit::History;

/// Queues that jobs are published to, by turns.
const LANES: [&str; 3] = ["opossum.jobs.high", "opossum.jobs.normal", "opossum.jobs.batch"];

/// One job of so many is published twice.
const ASKED_TWICE: u64 = 25;

/// What a caller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Nothing new.
    Nothing,
    /// Each job once: while the store is away nobody remembers what was answered.
    Once,
    /// Jobs, some of them twice.
    SomeTwice,
}

/// The book of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Book {
    tenant: String,
    /// To be published: not yet, or once more.
    due: VecDeque<u64>,
    /// Not answered yet.
    open: BTreeSet<u64>,
    history: History,
    counts: Counts,
    errors: Vec<String>,
}

/// What a book comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Jobs that were asked.
    pub(crate) asked: u64,
    /// Messages published, of which a job may need several.
    pub(crate) published: u64,
    /// Replies that came.
    pub(crate) replies: u64,
}

/// A job to be published.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) queue: &'static str,
    /// What is asked; the answer repeats it.
    pub(crate) question: String,
}

/// A reply as it came.
#[derive(Debug)]
pub(crate) struct Heard<'a> {
    /// The job that it is addressed to.
    pub(crate) id: &'a str,
    /// The question that it answers; nothing, for an error.
    pub(crate) answers: Option<&'a str>,
    /// All of it.
    pub(crate) content: &'a str,
}

impl Book {
    pub(crate) fn of(tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), ..Self::default() }
    }

    /// Whose it is.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// A job's name in the log, and its question. Tenants use the same message ids, and must not hear each
    /// other's answers.
    fn name(&self, id: &str) -> String {
        format!("{}/{id}", self.tenant)
    }

    /// Asks a new job, unless too many are open.
    pub(crate) fn ask(&mut self, asking: Asking, most_open: usize) {
        if asking != Asking::Nothing && self.open.len() < most_open {
            let number = self.counts.asked;
            self.counts.asked += 1;
            self.history.asked(&self.name(&id(number)));
            self.open.insert(number);
            self.due.push_back(number);
            if asking == Asking::SomeTwice && number % ASKED_TWICE == ASKED_TWICE - 1 {
                self.due.push_back(number);
            }
        }
    }

    /// A job to be published now. One that is answered need not be published again.
    pub(crate) fn take_due(&mut self) -> Option<Due> {
        let number = loop {
            let number = self.due.pop_front()?;
            if self.open.contains(&number) {
                break number;
            }
        };
        self.counts.published += 1;
        let (id, queue) = (id(number), LANES[(number % 3) as usize]);
        let question = self.name(&id);
        Some(Due { number, id, queue, question })
    }

    /// A job is to be published once more.
    pub(crate) fn again(&mut self, number: u64) {
        self.due.push_back(number);
    }

    /// Nobody promised an answer to a job, and nobody waits for it any more.
    pub(crate) fn forget(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// The broker confirmed a job.
    pub(crate) fn confirm(&mut self, number: u64) {
        self.history.confirmed(&self.name(&id(number)));
    }

    /// A reply came.
    pub(crate) fn hear(&mut self, reply: &Heard<'_>) {
        let name = self.name(reply.id);
        self.history.replied(&name, reply.answers.unwrap_or(&name), reply.content);
        self.counts.replies += 1;
        if reply.answers.is_none() {
            self.errors.push(format!("{name}: {}", reply.content));
        }
        if let Some(Ok(number)) = reply.id.strip_prefix("job-").map(str::parse) {
            self.open.remove(&number);
        }
    }

    /// Jobs without an answer.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Jobs that the broker confirmed.
    pub(crate) fn confirmed(&self) -> usize {
        self.history.confirmations()
    }

    /// Replies that were errors.
    pub(crate) fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The first of the jobs without an answer, and whether they were promised one.
    pub(crate) fn left(&self) -> String {
        let verdict = self.history.check(u32::MAX);
        let first = self.open.iter().next().map(|number| self.name(&id(*number)));
        format!("{} of {} without an answer, {first:?} first; {verdict} ", self.open.len(), self.tenant)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The log so far, for the checker.
    pub(crate) fn history(&self) -> History {
        self.history.clone()
    }
}

/// A book that others write in, too.
pub(crate) fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(number: u64) -> String {
    format!("job-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_published_until_it_is_answered_and_no_more_are_open_than_may_be() {
        let mut book = Book::of("acme");
        (0..3).for_each(|_| book.ask(Asking::Once, 2));
        book.ask(Asking::Nothing, 9);
        assert_eq!((book.counts().asked, book.open()), (2, 2));
        let due = book.take_due().map(|due| (due.id, due.question));
        assert_eq!(due, Some(("job-0".to_owned(), "acme/job-0".to_owned())));
        book.again(0);
        book.hear(&Heard { id: "job-0", answers: Some("acme/job-0"), content: "200" });
        assert_eq!(book.take_due().map(|due| due.number), Some(1), "0 is answered");
        assert!(book.take_due().is_none());
        book.confirm(0);
        book.confirm(1);
        assert_eq!(book.history().waiting(), 1);
        assert_eq!(book.counts(), Counts { asked: 2, published: 2, replies: 1 });
    }

    #[test]
    fn an_answer_to_another_tenants_job_of_the_same_id_is_foreign() {
        let mut book = Book::of("acme");
        book.ask(Asking::SomeTwice, 1);
        book.hear(&Heard { id: "job-0", answers: Some("mallory/job-0"), content: "200" });
        assert_eq!(book.history().check(1).foreign.len(), 1);
    }
}
