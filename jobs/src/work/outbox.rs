//! Sending what must arrive: replies, retries, dead letters.
//!
//! A message of ours replaces one that is acknowledged after it, so there is no giving up: it is published
//! again until the broker confirms it, or until the old message is not ours any more, which then comes again
//! to whoever sends what was stored.

use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use opossum_core::jobs::message::{DEADLINE, KIND, REPLY, TENANT};
use opossum_core::jobs::{Attempts, Job, Lane, RetryQueue, StoredReply};

use super::desk::Desk;
use crate::PublishError;
use crate::broker::convert::{long, short, with_headers};
use crate::broker::names;
use crate::broker::publisher::Outgoing;
use crate::broker::soon;
use crate::tasks::unix_millis;

/// Headers of a job's message that go with it when it is published anew. Nothing else does: a header such as
/// `CC` would have the broker send copies wherever its publisher likes, with this service's rights.
const KEPT: [&str; 5] = [DEADLINE, REPLY, Attempts::HEADER, "traceparent", "tracestate"];

/// The broker's own account of a dead letter.
const DEATHS: &str = "x-death";

/// Kept on disk.
const PERSISTENT: u8 = 2;

/// Sets a property of a message.
type Set = fn(BasicProperties, ShortString) -> BasicProperties;

/// To whom a reply goes.
pub(super) struct Addressee<'a> {
    /// The queue; `None` for a reply that is only kept.
    pub reply_to: Option<&'a str>,
    /// Goes back as it came.
    pub correlation_id: &'a str,
    /// The job's identity, where it has one.
    pub id: Option<&'a str>,
}

impl<'a> Addressee<'a> {
    pub(super) fn of(job: &'a Job) -> Self {
        Self { reply_to: job.reply_to.as_deref(), correlation_id: &job.correlation_id, id: Some(&job.key.id) }
    }
}

/// The message is not ours any more; it comes again.
pub(super) struct Stale;

impl Desk {
    /// Sends a reply; one whose queue is gone or full is parked.
    pub(super) async fn reply(
        &self,
        to: &Addressee<'_>,
        reply: &StoredReply,
        delivery: &Delivery,
    ) -> Result<(), Stale> {
        let Some(queue) = to.reply_to else { return Ok(()) };
        let message = Outgoing {
            exchange: "",
            key: queue.to_owned(),
            properties: reply_properties(to, reply),
            payload: reply.body.clone(),
        };
        loop {
            match self.parts.publisher.publish(&message).await {
                Ok(()) => return Ok(()),
                Err(PublishError::Unroutable | PublishError::Full) => {
                    tracing::warn!(queue, "a reply's queue is gone or full; the reply is parked");
                    let properties = with_headers(&message.properties, [(names::PARKED_FOR, long(queue))]);
                    let parked = Outgoing { key: names::PARKED.to_owned(), properties, ..message };
                    return self.insist(&parked, delivery).await;
                }
                Err(PublishError::Unavailable) => again(delivery).await?,
            }
        }
    }

    /// Publishes a job anew, to come back after the queue's wait.
    pub(super) async fn retry(
        &self,
        job: &Job,
        delivery: &Delivery,
        lane: Lane,
        queue: RetryQueue,
    ) -> Result<(), Stale> {
        let failed = AMQPValue::LongLongInt(job.attempts.another().failed().into());
        let properties = with_headers(&self.anew(delivery, &job.key.tenant), [(Attempts::HEADER, failed)]);
        let message = Outgoing {
            exchange: queue.queue(),
            // The name that it comes back by; the one it came by may be an exchange's.
            key: lane.queue().to_owned(),
            properties: properties.with_message_id(short(&job.key.id)),
            payload: Bytes::copy_from_slice(&delivery.data),
        };
        self.insist(&message, delivery).await
    }

    /// Puts a message among the dead, with the reason.
    pub(super) async fn bury(&self, delivery: &Delivery, tenant: &str, reason: &str) -> Result<(), Stale> {
        let mut properties = with_headers(&self.anew(delivery, tenant), [(names::REASON, long(reason))]);
        let headers = delivery.properties.headers().as_ref();
        if let Some(deaths) = headers.and_then(|headers| headers.inner().get(DEATHS)) {
            properties = with_headers(&properties, [(DEATHS, deaths.clone())]);
        }
        let message = Outgoing {
            exchange: "",
            key: names::DEAD.to_owned(),
            properties,
            payload: Bytes::copy_from_slice(&delivery.data),
        };
        self.insist(&message, delivery).await
    }

    /// Acknowledges a message. One that is not ours any more is not: the broker gave it to somebody else.
    pub(super) async fn ack(&self, delivery: &Delivery) {
        let acked = delivery.acker.ack(BasicAckOptions::default());
        if let Err(lost) = soon("acknowledging a job", acked).await {
            tracing::debug!(?lost, "a job's acknowledgement is lost; its stored reply will be sent again");
        }
    }

    /// Publishes to a queue of this service until it is there.
    async fn insist(&self, message: &Outgoing, delivery: &Delivery) -> Result<(), Stale> {
        loop {
            match self.parts.publisher.publish(message).await {
                Ok(()) => return Ok(()),
                // Somebody deleted it: a new connection declares it anew.
                Err(PublishError::Unroutable) => self.parts.publisher.suspect(),
                Err(PublishError::Full | PublishError::Unavailable) => {}
            }
            again(delivery).await?;
        }
    }

    /// What a message says about itself, said by this service: the broker lets nobody speak for another user.
    fn anew(&self, delivery: &Delivery, tenant: &str) -> BasicProperties {
        let old = &delivery.properties;
        let mut headers = FieldTable::default();
        for (name, value) in old.headers().iter().flat_map(|headers| headers.inner()) {
            if KEPT.contains(&name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        headers.insert(short(TENANT), long(tenant));
        // The time to live does not go on: it would end the wait in a retry queue early.
        let mut new = BasicProperties::default()
            .with_headers(headers)
            .with_delivery_mode(PERSISTENT)
            .with_user_id(short(self.parts.config.broker.user()));
        let same: [(&Option<ShortString>, Set); 6] = [
            (old.message_id(), BasicProperties::with_message_id),
            (old.correlation_id(), BasicProperties::with_correlation_id),
            (old.reply_to(), BasicProperties::with_reply_to),
            (old.content_type(), BasicProperties::with_content_type),
            (old.content_encoding(), BasicProperties::with_content_encoding),
            (old.kind(), BasicProperties::with_type),
        ];
        for (value, set) in same {
            if let Some(value) = value {
                new = set(new, value.clone());
            }
        }
        match old.timestamp() {
            Some(published) => new.with_timestamp(*published),
            None => new,
        }
    }
}

/// Waits before the next try, unless the message that waits for it is not ours any more.
pub(super) async fn again(delivery: &Delivery) -> Result<(), Stale> {
    if !delivery.acker.usable() {
        return Err(Stale);
    }
    let pause = Duration::from_millis(150 + u64::from(rand::random::<u8>()));
    tokio::time::sleep(pause).await;
    if delivery.acker.usable() { Ok(()) } else { Err(Stale) }
}

fn reply_properties(to: &Addressee<'_>, reply: &StoredReply) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(short(names::STATUS), AMQPValue::LongInt(reply.status.into()));
    for (name, value) in &reply.headers {
        headers.insert(short(name), long(value));
    }
    let seconds = u64::try_from(unix_millis() / 1000).unwrap_or_default();
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_type(names::REPLY_KIND.into())
        .with_delivery_mode(PERSISTENT)
        .with_correlation_id(short(to.correlation_id))
        .with_timestamp(seconds)
        .with_headers(headers);
    match to.id {
        Some(id) => properties.with_message_id(short(&format!("{id}:r"))),
        None => properties,
    }
}

/// A job as this service itself publishes it, for one of its callers.
pub(crate) fn job_properties(
    user: &str,
    key: &opossum_core::jobs::JobKey,
    deadline: Option<i64>,
    traceparent: Option<&str>,
) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(short(TENANT), long(&key.tenant));
    headers.insert(short(REPLY), long("store"));
    if let Some(traceparent) = traceparent {
        headers.insert(short("traceparent"), long(traceparent));
    }
    let now = unix_millis();
    let mut properties = BasicProperties::default();
    if let Some(deadline) = deadline {
        headers.insert(short(DEADLINE), AMQPValue::LongLongInt(deadline));
        let left = deadline.saturating_sub(now).max(0);
        properties = properties.with_expiration(short(&left.to_string()));
    }
    properties
        .with_content_type("application/json".into())
        .with_type(KIND.into())
        .with_delivery_mode(PERSISTENT)
        .with_user_id(short(user))
        .with_message_id(short(&key.id))
        .with_timestamp(u64::try_from(now / 1000).unwrap_or_default())
        .with_headers(headers)
}
