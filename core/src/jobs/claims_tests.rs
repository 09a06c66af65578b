#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LEASE: UnixMillis = 60;

fn hash(n: u8) -> BodyHash {
    BodyHash([n; 32])
}

fn reply(text: &str) -> StoredReply {
    StoredReply { status: 200, headers: Vec::new(), body: Bytes::copy_from_slice(text.as_bytes()) }
}

fn cancelled() -> StoredReply {
    StoredReply { status: 499, ..reply("cancelled") }
}

fn by(worker: &str, body: u8, now: UnixMillis) -> Claim<'_> {
    Claim { worker, hash: hash(body), now, until: now + LEASE }
}

/// A store of one identity.
#[derive(Default)]
struct One(Option<Entry>);

impl One {
    fn claim(&mut self, claim: Claim<'_>) -> Claimed {
        let (kept, claimed) = Entry::claim(self.0.as_ref(), claim);
        self.0 = kept.or(self.0.take());
        claimed
    }

    fn finish(&mut self, body: u8, answer: StoredReply) -> Finished {
        let (kept, finished) = Entry::finish(self.0.as_ref(), hash(body), answer);
        self.0 = kept.or(self.0.take());
        finished
    }

    /// As a worker does it: the reply that is sent.
    fn answer(&mut self, body: u8, answer: StoredReply) -> Option<StoredReply> {
        match self.finish(body, answer.clone()) {
            Finished::Stored => Some(answer),
            Finished::Already(first) => Some(first),
            Finished::Cancelled => self.answer(body, cancelled()),
            Finished::Reused => None,
        }
    }

    fn cancel(&mut self) {
        self.0 = Entry::cancel(self.0.as_ref()).or(self.0.take());
    }
}

#[test]
fn one_worker_runs_a_job_and_another_waits_for_its_reply() {
    let mut one = One::default();
    assert_eq!(one.claim(by("a", 1, 0)), Claimed::Yours);
    assert_eq!(one.claim(by("b", 1, 10)), Claimed::Running { until: LEASE });
    assert_eq!(one.0.as_ref().unwrap().state(10), JobState::Running);
    one.finish(1, reply("hello"));
    assert_eq!(one.claim(by("b", 1, 20)), Claimed::Done(reply("hello")));
}

#[test]
fn a_dead_workers_job_is_taken_over_when_its_lease_is_over() {
    let mut one = One::default();
    one.claim(by("a", 1, 0));
    assert_eq!(one.0.as_ref().unwrap().state(LEASE), JobState::Queued);
    assert_eq!(one.claim(by("b", 1, LEASE)), Claimed::Yours);
    assert_eq!(one.0.as_mut().unwrap().renew("a", 500), Renewal::Lost);
    assert!(one.0.as_ref().unwrap().release("a").is_none());
}

#[test]
fn a_renewed_claim_holds_on() {
    let mut one = One::default();
    one.claim(by("a", 1, 0));
    assert_eq!(one.0.as_mut().unwrap().renew("a", 500), Renewal::Held);
    assert_eq!(one.claim(by("b", 1, 400)), Claimed::Running { until: 500 });
}

#[test]
fn a_worker_that_gets_its_own_job_again_goes_on_with_it() {
    let mut one = One::default();
    one.claim(by("a", 1, 0));
    assert_eq!(one.claim(by("a", 1, 1)), Claimed::Yours);
}

#[test]
fn a_used_identity_takes_no_other_body() {
    let mut one = One::default();
    one.claim(by("a", 1, 0));
    assert_eq!(one.claim(by("a", 2, 1)), Claimed::Reused, "while it runs");
    one.0 = one.0.as_ref().unwrap().release("a");
    assert_eq!(one.claim(by("a", 2, 1)), Claimed::Reused, "between two attempts");
    one.finish(1, reply("hello"));
    assert_eq!(one.claim(by("a", 2, 1)), Claimed::Reused, "when it is answered");
}

#[test]
fn a_job_that_is_cancelled_before_it_came_is_answered_so() {
    let mut one = One::default();
    one.cancel();
    assert_eq!(one.claim(by("a", 1, 0)), Claimed::Cancelled);
    assert_eq!(one.finish(1, reply("too late")), Finished::Cancelled);
    assert_eq!(one.finish(1, cancelled()), Finished::Stored);
    assert_eq!(one.0.as_ref().unwrap().state(0), JobState::Cancelled);
    assert!(matches!(one.claim(by("a", 1, 0)), Claimed::Done(reply) if reply.status == 499));
}

#[test]
fn a_running_worker_hears_of_a_cancellation_with_its_next_renewal() {
    let mut one = One::default();
    one.claim(by("a", 1, 0));
    one.cancel();
    assert_eq!(one.0.as_mut().unwrap().renew("a", 500), Renewal::Cancelled);
}

#[test]
fn the_first_reply_is_the_jobs_for_good() {
    let mut one = One::default();
    assert_eq!(one.finish(1, reply("first")), Finished::Stored);
    assert_eq!(one.finish(1, reply("second")), Finished::Already(reply("first")));
    assert_eq!(one.finish(2, reply("of another")), Finished::Reused);
}

#[test]
fn what_is_answered_cannot_be_cancelled() {
    let mut one = One::default();
    one.finish(1, reply("hello"));
    one.cancel();
    assert_eq!(one.claim(by("a", 1, 0)), Claimed::Done(reply("hello")));
}

#[derive(Clone, Debug)]
enum Step {
    Claim { worker: u8, body: u8 },
    Finish { worker: u8 },
    Release { worker: u8 },
    Cancel,
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3_u8, 1..3_u8).prop_map(|(worker, body)| Step::Claim { worker, body }),
        (0..3_u8).prop_map(|worker| Step::Finish { worker }),
        (0..3_u8).prop_map(|worker| Step::Release { worker }),
        Just(Step::Cancel),
        (1..200_i64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Workers that do as they are told, and die or lose their lease at any time.
    #[test]
    fn every_requester_of_an_identity_sees_one_reply(steps in steps()) {
        let mut one = One::default();
        let mut now = 0;
        let mut running: [Option<u8>; 3] = [None; 3];
        let mut seen: Option<StoredReply> = None;
        let mut serial = 0;
        for step in steps {
            match step {
                Step::Claim { worker, body } => match one.claim(by(&worker.to_string(), body, now)) {
                    Claimed::Yours => {
                        prop_assert!(seen.is_none(), "an answered job runs again");
                        running[worker as usize] = Some(body);
                    }
                    Claimed::Done(reply) => prop_assert_eq!(Some(reply), seen.clone()),
                    Claimed::Running { until } => prop_assert!(until > now),
                    Claimed::Cancelled | Claimed::Reused => {}
                },
                Step::Finish { worker } => {
                    if let Some(body) = running[worker as usize].take() {
                        serial += 1;
                        if let Some(sent) = one.answer(body, reply(&format!("{worker} {serial}"))) {
                            prop_assert_eq!(&sent, seen.get_or_insert_with(|| sent.clone()));
                        }
                    }
                }
                Step::Release { worker } => {
                    running[worker as usize] = None;
                    let freed = one.0.as_ref().and_then(|entry| entry.release(&worker.to_string()));
                    one.0 = freed.or(one.0.take());
                }
                Step::Cancel => one.cancel(),
                Step::Pass(time) => now += time,
            }
        }
    }
}
