//! The responder: whoever asked hears of a job that the broker took out of its queue, too.

use std::rc::Rc;

use lapin::message::Delivery;
use opossum_core::jobs::message::ANONYMOUS;
use opossum_core::jobs::{Claimed, Rejection, StoredReply};

use super::control;
use super::desk::Desk;
use super::outbox::{Addressee, Stale};
use crate::broker::convert;
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
        let reason = convert::death(&delivery.properties).unwrap_or_else(|| "rejected".to_owned());
        let fault = if reason == "expired" { Fault::DeadlineExceeded } else { Fault::JobFailed };
        let tenant = match self.read(delivery) {
            Ok(job) => {
                let reply = match self.claim(&job).await {
                    Claimed::Done(reply) => reply,
                    Claimed::Reused => self.error(&Fault::MessageIdReused, &job),
                    Claimed::Cancelled => self.finish(&job, self.error(&Fault::Cancelled, &job)).await,
                    Claimed::Yours | Claimed::Running { .. } => {
                        self.finish(&job, self.error(&fault, &job)).await
                    }
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
        Ok(())
    }

    async fn answer_refused(&self, rejection: &Rejection, delivery: &Delivery) -> Result<(), Stale> {
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
    pub(crate) fn heed(self: &Rc<Self>, delivery: &Delivery) {
        let user = self.parts.config.broker.user();
        let Some(key) = control::cancelled(&delivery.properties, &delivery.data, user) else {
            tracing::debug!("a control message that says nothing");
            return;
        };
        self.running.cancel(&key);
        let desk = Rc::clone(self);
        tasks::local("cancel", async move {
            // For one that has not come yet, or that runs elsewhere.
            if let Err(error) = desk.parts.store.cancel(&key).await {
                tracing::warn!(job = %key, %error, "a cancellation was not stored");
            }
        });
    }
}
