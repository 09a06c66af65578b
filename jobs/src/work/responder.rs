//! The responder: whoever asked hears of a job that the broker took out of its queue, too.

use std::rc::Rc;

use lapin::message::Delivery;
use opossum_core::jobs::message::ANONYMOUS;
use opossum_core::jobs::{Claimed, Job, Lane, Next, Rejection, StoredReply};

use super::control::{self, Cancelled};
use super::desk::Desk;
use super::outbox::{Addressee, Stale, again};
use crate::broker::convert::{self, Death};
use crate::tasks::unix_millis;
use crate::{Fault, tasks};

impl Desk {
    /// Answers a job that expired in its queue or was delivered too often, and puts it among the dead.
    pub(crate) fn respond(self: &Rc<Self>, delivery: Delivery) {
        let desk = Rc::clone(self);
        tasks::local("responder", async move {
            // What is stale comes again.
            desk.answer_for(&delivery).await.ok();
        });
    }

    async fn answer_for(&self, delivery: &Delivery) -> Result<(), Stale> {
        let Death { reason, queue } = convert::death(&delivery.properties);
        let lane = Lane::of_queue(&queue).unwrap_or(Lane::Normal);
        let tenant = match self.read(delivery) {
            Ok(job) => {
                let Some(reply) = self.last_reply(&job, delivery, lane, &reason).await? else {
                    return Ok(());
                };
                self.reply(&Addressee::of(&job), &reply, delivery).await?;
                job.key.tenant.to_string()
            }
            Err(rejection) => {
                self.answer_refused(&rejection, delivery).await?;
                delivery.properties.user_id().as_ref().map_or(ANONYMOUS, |user| user.as_str()).to_owned()
            }
        };
        tracing::info!(reason, "the broker gave up a job; its requester was told");
        self.bury(delivery, &tenant, &reason).await?;
        self.ack(delivery).await;
        self.parts.events.ended(lane, "dead");
        Ok(())
    }

    /// How a job ends that the broker gave up; `None` where it goes on. One that was delivered too often may
    /// never have begun, when workers came and went: that counts as one failed attempt.
    async fn last_reply(
        &self,
        job: &Job,
        delivery: &Delivery,
        lane: Lane,
        reason: &str,
    ) -> Result<Option<StoredReply>, Stale> {
        let passed_around = reason == "delivery_limit";
        let claimed = loop {
            match self.claim(job).await {
                // A run that goes on may yet answer.
                Claimed::Running { .. } if passed_around => again(delivery).await?,
                claimed => break claimed,
            }
        };
        let fault = match claimed {
            Claimed::Done(reply) => return Ok(Some(reply)),
            Claimed::Reused => return Ok(Some(self.error(&Fault::MessageIdReused, job))),
            Claimed::Cancelled => Fault::Cancelled,
            Claimed::Yours | Claimed::Running { .. } if reason == "expired" => Fault::DeadlineExceeded,
            Claimed::Yours | Claimed::Running { .. } if passed_around => {
                let remaining = job.deadline.remaining(unix_millis());
                if let Next::Retry(queue) = job.attempts.after_failure(None, remaining) {
                    self.put_off(job, delivery, lane, queue).await?;
                    return Ok(None);
                }
                Fault::JobFailed
            }
            Claimed::Yours | Claimed::Running { .. } => Fault::JobFailed,
        };
        self.finish(job, self.error(&fault, job), delivery).await.map(Some)
    }

    pub(super) async fn answer_refused(
        &self,
        rejection: &Rejection,
        delivery: &Delivery,
    ) -> Result<(), Stale> {
        let id = rejection.message_id.as_deref();
        let fault = Fault::Refused(rejection.refusal.clone());
        let reply: StoredReply = self.parts.runner.error(&fault, id.unwrap_or_default());
        let to = Addressee {
            reply_to: rejection.reply_to.as_deref(),
            correlation_id: &rejection.correlation_id,
            id,
        };
        self.reply(&to, &reply, delivery).await
    }

    /// Heeds what is said to all workers.
    pub(crate) fn heed(self: &Rc<Self>, delivery: Delivery) {
        let desk = Rc::clone(self);
        tasks::local("control", async move {
            desk.cancel(&delivery).await;
            // Only now does the broker send more than the few that it may.
            desk.ack(&delivery).await;
        });
    }

    async fn cancel(&self, delivery: &Delivery) {
        let user = self.parts.config.broker.user();
        let Some(Cancelled { key, stored }) = control::cancelled(&delivery.properties, &delivery.data, user)
        else {
            tracing::debug!("a control message that says nothing");
            return;
        };
        self.running.cancel(&key);
        // For one that has not come yet, or that runs elsewhere.
        if !stored && let Err(error) = self.parts.store.cancel(&key).await {
            tracing::warn!(job = %key, %error, "a cancellation was not stored");
        }
    }
}
