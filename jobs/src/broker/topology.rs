//! The queues and exchanges, and what to do when they are there already, but different.
//!
//! Everything is declared anew with every connection: what is there costs nothing, and what somebody deleted
//! comes back. A queue that exists with other arguments is left alone; only an operator can say what its
//! messages are worth.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use opossum_core::jobs::{Lane, RetryQueue};

use super::names::{CONTROL, DEAD, PARKED, UNDELIVERED};
use super::{Lost, soon};

/// A job that was delivered so often without an acknowledgement takes its workers down with it.
const DELIVERY_LIMIT: i64 = 10;

/// How long replies that nobody fetched are kept, in milliseconds.
const PARKED_FOR: i64 = 24 * 3600 * 1000;

/// How long dead messages are kept, in milliseconds.
const DEAD_FOR: i64 = 7 * 24 * 3600 * 1000;

/// Declares everything.
pub(crate) async fn declare(connection: &Connection) -> Result<(), Lost> {
    let channel = soon("opening a channel", connection.create_channel()).await?;
    exchange(&channel, CONTROL, ExchangeKind::Fanout).await?;
    queue(&channel, DEAD, &[ttl(DEAD_FOR)]).await?;
    queue(&channel, PARKED, &[ttl(PARKED_FOR)]).await?;
    queue(&channel, UNDELIVERED, &[]).await?;
    for lane in Lane::ALL {
        let limit = ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT));
        let to = ("x-dead-letter-routing-key", text(UNDELIVERED));
        let [through, strategy] = dead_letters();
        queue(&channel, lane.queue(), &[limit, through, strategy, to]).await?;
    }
    for retry in RetryQueue::ALL {
        // A job goes through the exchange under its own queue's name, and back to it by that name: a dead
        // letter keeps the routing key that it came with.
        let delay = i64::try_from(retry.delay().as_millis()).unwrap_or(i64::MAX);
        let [through, strategy] = dead_letters();
        exchange(&channel, retry.queue(), ExchangeKind::Fanout).await?;
        queue(&channel, retry.queue(), &[ttl(delay), through, strategy]).await?;
        bind(&channel, retry.queue(), retry.queue()).await?;
    }
    soon("closing a channel", channel.close(200, "OK".into())).await
}

/// A queue of this connection's own that hears what is said to all workers.
pub(crate) async fn control_queue(channel: &Channel) -> Result<lapin::Queue, Lost> {
    let options = QueueDeclareOptions::exclusive().auto_delete();
    // A name that the rights to this service's queues cover, which one of the broker's making is not.
    let name = format!("{CONTROL}.{:016x}", rand::random::<u64>());
    let declared = channel.queue_declare(name.into(), options, FieldTable::default());
    let queue = soon("declaring the control queue", declared).await?;
    bind(channel, queue.name().as_str(), CONTROL).await?;
    Ok(queue)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn ttl(millis: i64) -> (&'static str, AMQPValue) {
    ("x-message-ttl", AMQPValue::LongLongInt(millis))
}

/// Dead letters go through the default exchange and are kept until they have arrived.
fn dead_letters() -> [(&'static str, AMQPValue); 2] {
    [("x-dead-letter-exchange", text("")), ("x-dead-letter-strategy", text("at-least-once"))]
}

/// A replicated, durable queue that refuses what it cannot take, rather than dropping what it has.
async fn queue(channel: &Channel, name: &str, more: &[(&str, AMQPValue)]) -> Result<(), Lost> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    for (key, value) in more {
        arguments.insert((*key).into(), value.clone());
    }
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
    soon("declaring a queue", declared).await.map(|_| ())
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), Lost> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
    soon("declaring an exchange", declared).await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str) -> Result<(), Lost> {
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.into(), exchange.into(), "".into(), options, FieldTable::default());
    soon("binding a queue", bound).await
}
