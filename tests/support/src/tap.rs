//! A message on its way, looked at as it is and let go.

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use serde_json::{Map, Value, json};

use crate::requester::{PATIENCE, Requester};

/// Waits for the next message of a queue, before whoever else consumes it.
pub struct Tap {
    channel: Channel,
    consumer: Consumer,
}

/// A message that was caught: nobody else has it until it is let go.
#[derive(Debug)]
pub struct Caught {
    /// Its `headers`, `properties` and `payload`; a payload that is no JSON is null.
    pub message: Value,
    delivery: Delivery,
    // The message goes back to its queue with the channel.
    _channel: Channel,
}

impl Tap {
    /// On a queue that there is.
    ///
    /// # Panics
    /// When there is none.
    pub async fn on(requester: &Requester, queue: &str) -> Self {
        let channel = requester.connection.create_channel().await.expect("a channel");
        Self::consume(channel, queue).await
    }

    /// On a queue of its own behind a fanout.
    ///
    /// # Panics
    /// When there is no such exchange.
    pub async fn behind(requester: &Requester, exchange: &str) -> Self {
        let channel = requester.connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions::exclusive();
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a queue");
        let (name, options) = (queue.name().as_str().into(), QueueBindOptions::default());
        let bound = channel.queue_bind(name, exchange.into(), "".into(), options, FieldTable::default());
        bound.await.expect("an exchange");
        Self::consume(channel, queue.name().as_str()).await
    }

    async fn consume(channel: Channel, queue: &str) -> Self {
        channel.basic_qos(1, BasicQosOptions::default()).await.expect("a prefetch");
        let mut first = FieldTable::default();
        first.insert("x-priority".into(), AMQPValue::LongInt(100));
        let consumed =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), first).await;
        Self { channel, consumer: consumed.expect("a queue") }
    }

    /// The message.
    ///
    /// # Panics
    /// When none comes.
    pub async fn caught(mut self) -> Caught {
        let came = tokio::time::timeout(PATIENCE, self.consumer.next()).await;
        let delivery = came.expect("a message").expect("a consumer").expect("a channel");
        let tag = self.consumer.tag();
        self.channel.basic_cancel(tag, BasicCancelOptions::default()).await.expect("cancelled");
        Caught { message: as_json(&delivery), delivery, _channel: self.channel }
    }
}

impl Caught {
    /// Puts it back where it was.
    ///
    /// # Panics
    /// When the broker is gone.
    pub async fn give_back(self) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        self.delivery.acker.nack(options).await.expect("given back");
    }

    /// Has the broker take it out of the queue.
    ///
    /// # Panics
    /// When the broker is gone.
    pub async fn reject(self) {
        self.delivery.acker.reject(BasicRejectOptions { requeue: false }).await.expect("rejected");
    }
}

/// A message as JSON: its `headers`, its `properties` without them, its `payload`.
pub(crate) fn as_json(delivery: &Delivery) -> Value {
    json!({
        "headers": delivery.properties.headers().as_ref().map_or_else(|| json!({}), table),
        "properties": properties(&delivery.properties),
        "payload": serde_json::from_slice(&delivery.data).unwrap_or(Value::Null),
    })
}

fn properties(properties: &BasicProperties) -> Value {
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, json!(text.as_ref()?.as_str()))));
    let numbers = [
        ("delivery_mode", properties.delivery_mode().map(u64::from)),
        ("priority", properties.priority().map(u64::from)),
        ("timestamp", *properties.timestamp()),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, json!(number?))));
    texts.chain(numbers).map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

fn table(table: &FieldTable) -> Value {
    let fields = table.inner().iter().map(|(name, field)| (name.as_str().to_owned(), value(field)));
    fields.collect::<Map<_, _>>().into()
}

fn value(field: &AMQPValue) -> Value {
    match field {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(flag) => json!(flag),
        AMQPValue::ShortShortInt(n) => json!(n),
        AMQPValue::ShortShortUInt(n) => json!(n),
        AMQPValue::ShortInt(n) => json!(n),
        AMQPValue::ShortUInt(n) => json!(n),
        AMQPValue::LongInt(n) => json!(n),
        AMQPValue::LongUInt(n) => json!(n),
        AMQPValue::LongLongInt(n) => json!(n),
        AMQPValue::Timestamp(n) => json!(n),
        AMQPValue::Float(n) => json!(n),
        AMQPValue::Double(n) => json!(n),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => json!(text.to_string()),
        AMQPValue::FieldArray(fields) => fields.as_slice().iter().map(value).collect(),
        AMQPValue::FieldTable(fields) => table(fields),
        AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) => json!({ "amqp": format!("{field:?}") }),
    }
}
