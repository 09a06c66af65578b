//! One message of a job queue, from its first byte to its acknowledgement.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use lapin::types::AMQPValue;
use lapin::{BasicProperties, message::Delivery};
use opossum_core::jobs::message::{ANONYMOUS, Own};
use opossum_core::jobs::{
    Claimed, Finished, Job, JobState, Lane, Next, Rejection, Renewal, RetryQueue, StoredReply,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::desk::{After, Desk, Parcel};
use super::outbox::{Addressee, Stale, again};
use super::running::Underway;
use crate::broker::convert::{self, short};
use crate::broker::names;
use crate::broker::publisher::Outgoing;
use crate::store::Claiming;
use crate::tasks::unix_millis;
use crate::{Chunks, Fault, Ran, Task, tasks};

/// The pause before looking again at a job that is under way elsewhere.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The first pause of an attempt that waits for this process to be less busy; it doubles.
const FIRST_BUSY: Duration = Duration::from_millis(250);

/// The longest pause of an attempt that waits for this process to be less busy.
const LONGEST_BUSY: Duration = Duration::from_secs(4);

/// Pieces of an answer that wait for the broker.
const CHUNKS: usize = 32;

/// How a run of attempts in this process ended.
enum Ended {
    Ran(Ran),
    Cancelled,
    Expired,
}

impl Desk {
    /// Looks at a message and does what it asks.
    pub(super) async fn handle(&self, parcel: &Parcel) -> After {
        let handled = match self.read(&parcel.delivery) {
            Ok(job) => self.take_up(parcel, &job).await,
            Err(rejection) => self.refuse(parcel, &rejection).await,
        };
        // What is stale was given to somebody else, or will be given to us again.
        handled.unwrap_or(After::Settled)
    }

    pub(super) fn read(&self, delivery: &Delivery) -> Result<Job, Rejection> {
        let fresh_id = format!("job_{:032x}", rand::random::<u128>());
        let own = Own { user: self.parts.config.broker.user(), fresh_id: &fresh_id };
        Job::read(convert::properties(&delivery.properties), &delivery.data, own)
    }

    async fn refuse(&self, parcel: &Parcel, rejection: &Rejection) -> Result<After, Stale> {
        let delivery = &parcel.delivery;
        tracing::info!(refusal = %rejection.refusal, "a message is no job");
        if rejection.reply_to.is_some() {
            self.answer_refused(rejection, delivery).await?;
        } else {
            let user = delivery.properties.user_id().as_ref().map_or(ANONYMOUS, |user| user.as_str());
            self.bury(delivery, user, rejection.refusal.dead_letter()).await?;
        }
        self.ack(delivery).await;
        self.parts.events.ended(parcel.lane, "refused");
        Ok(After::Settled)
    }

    async fn take_up(&self, parcel: &Parcel, job: &Job) -> Result<After, Stale> {
        let Some(underway) = self.running.begin(&job.key) else { return Ok(After::Later(LOOK_AGAIN)) };
        match self.claim(job).await {
            Claimed::Yours => self.attempt(parcel, job, &underway).await,
            // The claim ends by its store's clock, which need not be ours.
            Claimed::Running { .. } => Ok(After::Later(LOOK_AGAIN)),
            Claimed::Cancelled => self.conclude(parcel, job, self.error(&Fault::Cancelled, job)).await,
            Claimed::Done(reply) => self.settle(parcel, job, &reply, "replayed").await,
            Claimed::Reused => {
                let reply = self.error(&Fault::MessageIdReused, job);
                self.settle(parcel, job, &reply, "refused").await
            }
        }
    }

    /// Claims a job. A store that fails must not stop the jobs: they may run twice then, but they run.
    pub(super) async fn claim(&self, job: &Job) -> Claimed {
        let config = &self.parts.config;
        let claiming =
            Claiming { key: &job.key, hash: job.hash, worker: &config.worker, lease: config.lease };
        self.parts.store.claim(claiming).await.unwrap_or_else(|error| {
            tracing::warn!(job = %job.key, %error, "a job runs without a claim");
            Claimed::Yours
        })
    }

    async fn attempt(&self, parcel: &Parcel, job: &Job, underway: &Underway<'_>) -> Result<After, Stale> {
        let now = unix_millis();
        let published = convert::published(&parcel.delivery.properties);
        self.parts.events.started(parcel.lane, published.map(|published| tasks::since(published, now)));
        let deadline = Instant::now() + job.deadline.remaining(now);
        let ended = if job.deadline.is_past(now) {
            Ended::Expired
        } else {
            self.run(parcel, job, deadline, underway).await
        };
        match ended {
            Ended::Ran(Ran::Reply(reply)) => self.conclude(parcel, job, reply).await,
            Ended::Ran(Ran::Failed { reply, retry_after }) => {
                self.failed(parcel, job, reply, retry_after).await
            }
            Ended::Cancelled => self.conclude(parcel, job, self.error(&Fault::Cancelled, job)).await,
            Ended::Expired => self.conclude(parcel, job, self.error(&Fault::DeadlineExceeded, job)).await,
            Ended::Ran(Ran::Busy { .. } | Ran::Leaving) => {
                self.release(job).await;
                Ok(After::GiveBack)
            }
        }
    }

    /// Runs a job while its claim is kept, until it is cancelled or its deadline passes.
    async fn run(&self, parcel: &Parcel, job: &Job, deadline: Instant, underway: &Underway<'_>) -> Ended {
        tokio::select! {
            ran = self.tries(parcel, job, deadline) => Ended::Ran(ran),
            () = underway.cancelled() => Ended::Cancelled,
            () = self.keep_claim(job) => Ended::Cancelled,
            () = tokio::time::sleep_until(deadline) => Ended::Expired,
        }
    }

    /// One attempt; as long as this process is too busy to begin it, again after a while.
    async fn tries(&self, parcel: &Parcel, job: &Job, deadline: Instant) -> Ran {
        let mut busy = 0_u32;
        loop {
            let (sender, chunks) = mpsc::channel(CHUNKS);
            let wanted = job.reply_to.is_some().then_some(sender);
            let task = Task { job, lane: parcel.lane, deadline, chunks: Chunks { sender: wanted } };
            // The task, and with it the sender of pieces, ends with the run: only then does passing them on.
            let run = async { AssertUnwindSafe(self.parts.runner.run(task)).catch_unwind().await };
            let (ran, ()) = futures::join!(run, self.pass_on(job, chunks));
            match ran {
                Ok(Ran::Busy { retry_after }) if !self.is_leaving() => {
                    // Each look costs reading the body: those who wait for long look less often.
                    let pause = retry_after.min(FIRST_BUSY) * 2_u32.saturating_pow(busy);
                    busy += 1;
                    tokio::time::sleep(pause.min(LONGEST_BUSY)).await;
                }
                Ok(ran) => return ran,
                Err(_) => {
                    tracing::error!(job = %job.key, "a job panicked");
                    let reply = self.error(&Fault::JobFailed, job);
                    return Ran::Failed { reply, retry_after: None };
                }
            }
        }
    }

    /// Sends the pieces of a streamed answer, numbered, as long as the broker takes them at once: the reply holds
    /// all of the answer, and must not wait for a piece.
    async fn pass_on(&self, job: &Job, mut chunks: mpsc::Receiver<Bytes>) {
        let run = rand::random::<u64>() >> 1;
        let mut number = 0_i64;
        while let Some(payload) = chunks.recv().await {
            number += 1;
            let named = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_type(names::CHUNK_KIND.into())
                .with_correlation_id(short(&job.correlation_id))
                .with_message_id(short(&format!("{}:c{number}", job.key.id)));
            let numbers = [
                (names::SEQUENCE, AMQPValue::LongLongInt(number)),
                (names::RUN, AMQPValue::LongLongInt(run.cast_signed())),
            ];
            let message = Outgoing {
                exchange: "",
                key: job.reply_to.clone().unwrap_or_default(),
                properties: convert::with_headers(&named, numbers),
                payload,
            };
            if self.parts.publisher.toss(&message).await.is_err() {
                while chunks.recv().await.is_some() {}
            }
        }
    }

    /// Renews a job's claim again and again, and ends when the job was cancelled meanwhile.
    async fn keep_claim(&self, job: &Job) {
        let config = &self.parts.config;
        loop {
            tokio::time::sleep(config.lease / 3).await;
            match self.parts.store.renew(&job.key, &config.worker, config.lease).await {
                Ok(Renewal::Cancelled) => return,
                Ok(Renewal::Held) => {}
                // Whoever took it over may die; the first reply holds, whosesoever it is.
                Ok(Renewal::Lost) => tracing::debug!(job = %job.key, "a claim is lost; the job goes on"),
                Err(error) => tracing::warn!(job = %job.key, %error, "a claim was not renewed"),
            }
        }
    }

    async fn failed(
        &self,
        parcel: &Parcel,
        job: &Job,
        reply: StoredReply,
        retry_after: Option<Duration>,
    ) -> Result<After, Stale> {
        let delivery = &parcel.delivery;
        let remaining = job.deadline.remaining(unix_millis());
        match job.attempts.after_failure(retry_after, remaining) {
            Next::Retry(queue) => {
                self.put_off(job, delivery, parcel.lane, queue).await?;
                Ok(After::Settled)
            }
            Next::NoTime => self.conclude(parcel, job, reply).await,
            Next::GiveUp => {
                let reply = self.finish(job, self.error(&Fault::JobFailed, job), delivery).await?;
                self.reply(&Addressee::of(job), &reply, delivery).await?;
                self.bury(delivery, &job.key.tenant, "job_failed").await?;
                self.ack(delivery).await;
                self.parts.events.ended(parcel.lane, "dead");
                Ok(After::Settled)
            }
        }
    }

    /// Stores a reply, sends the one that holds, and acknowledges the job.
    async fn conclude(&self, parcel: &Parcel, job: &Job, reply: StoredReply) -> Result<After, Stale> {
        let reply = self.finish(job, reply, &parcel.delivery).await?;
        self.settle(parcel, job, &reply, reply.state().as_str()).await
    }

    async fn settle(
        &self,
        parcel: &Parcel,
        job: &Job,
        reply: &StoredReply,
        outcome: &'static str,
    ) -> Result<After, Stale> {
        self.reply(&Addressee::of(job), reply, &parcel.delivery).await?;
        self.ack(&parcel.delivery).await;
        self.parts.events.ended(parcel.lane, outcome);
        Ok(After::Settled)
    }

    /// Has a job come again after a queue's wait, for one more attempt.
    pub(super) async fn put_off(
        &self,
        job: &Job,
        delivery: &Delivery,
        lane: Lane,
        queue: RetryQueue,
    ) -> Result<(), Stale> {
        self.retry(job, delivery, lane, queue).await?;
        self.release(job).await;
        self.ack(delivery).await;
        self.parts.events.ended(lane, "retried");
        Ok(())
    }

    /// Stores a job's reply and gives the one to send. A reply that nobody is sent is nowhere else: it is stored
    /// however long that takes.
    pub(super) async fn finish(
        &self,
        job: &Job,
        mut reply: StoredReply,
        delivery: &Delivery,
    ) -> Result<StoredReply, Stale> {
        loop {
            match self.parts.store.finish(&job.key, job.hash, &reply).await {
                Ok(Finished::Stored) => return Ok(reply),
                Ok(Finished::Already(first)) => return Ok(first),
                Ok(Finished::Reused) => return Ok(self.error(&Fault::MessageIdReused, job)),
                Ok(Finished::Cancelled) if reply.state() == JobState::Cancelled => return Ok(reply),
                Ok(Finished::Cancelled) => reply = self.error(&Fault::Cancelled, job),
                Err(error) if job.reply_to.is_none() => {
                    tracing::warn!(job = %job.key, %error, "a reply is not stored yet");
                    again(delivery).await?;
                }
                Err(error) => {
                    tracing::warn!(job = %job.key, %error, "a reply is sent without being stored");
                    return Ok(reply);
                }
            }
        }
    }

    async fn release(&self, job: &Job) {
        if let Err(error) = self.parts.store.release(&job.key, &self.parts.config.worker).await {
            tracing::warn!(job = %job.key, %error, "a claim was not given back; its lease will end");
        }
    }

    pub(super) fn error(&self, fault: &Fault, job: &Job) -> StoredReply {
        self.parts.runner.error(fault, &job.key.id)
    }
}
