//! One who asks over the queue: a real AMQP client with a queue for its replies.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::wait::eventually;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A reply or a piece of one, as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its own identity.
    pub message_id: String,
    /// The question's.
    pub correlation_id: String,
    /// Its headers.
    pub headers: FieldTable,
    /// Whether it outlives the broker.
    pub persistent: bool,
    /// Its payload; null when that is no JSON.
    pub body: Value,
    /// All of it: `headers`, `properties` and `payload`.
    pub message: Value,
}

impl Heard {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.headers.inner().get(name)
    }

    /// The HTTP status; pieces of an answer have none.
    pub fn status(&self) -> Option<i64> {
        match self.header("x-opossum-status") {
            Some(AMQPValue::LongInt(status)) => Some((*status).into()),
            _ => None,
        }
    }

    /// A header of text.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.header(name) {
            Some(AMQPValue::LongString(text)) => Some(text.to_string()),
            _ => None,
        }
    }
}

/// One who asks: a user of the broker with a queue for its replies.
pub struct Requester {
    /// Its connection.
    pub connection: Connection,
    /// A channel with confirms.
    pub channel: Channel,
    /// Whom the broker knows it as.
    pub user: String,
    /// Where it waits for replies.
    pub queue: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Requester {
    /// Connects as a user, and listens on a queue of its own.
    ///
    /// # Panics
    /// When the broker is not there.
    pub async fn new(broker: &Broker, user: &str, vhost: usize) -> Self {
        let url = broker.url(user, vhost);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let queue = format!("opossum.reply.{user}.r{}-{number}", std::process::id());
        let mut requester = Self { connection, channel, user: user.to_owned(), queue, heard: Arc::default() };
        requester.listen().await;
        requester
    }

    async fn listen(&mut self) {
        let options = QueueDeclareOptions::durable();
        let name = self.queue.as_str().into();
        self.channel.queue_declare(name, options, FieldTable::default()).await.expect("a queue");
        let (options, name) = (BasicConsumeOptions::default(), self.queue.as_str().into());
        let consumed = self.channel.basic_consume(name, "".into(), options, FieldTable::default());
        let mut consumer = consumed.await.expect("a consumer");
        let heard = Arc::clone(&self.heard);
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                delivery.acker.ack(BasicAckOptions::default()).await.ok();
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(as_heard(&delivery));
            }
        });
    }

    /// Properties of a good job.
    pub fn properties(&self, id: &str) -> BasicProperties {
        BasicProperties::default()
            .with_content_type("application/json".into())
            .with_type("opossum.job.v1".into())
            .with_delivery_mode(2)
            .with_user_id(self.user.as_str().into())
            .with_message_id(id.into())
            .with_correlation_id(format!("c-{id}").into())
            .with_reply_to(self.queue.as_str().into())
    }

    /// Properties with these headers: integers and text.
    ///
    /// # Panics
    /// When one is neither.
    pub fn with_headers(&self, properties: BasicProperties, headers: &Value) -> BasicProperties {
        let mut table = properties.headers().clone().unwrap_or_default();
        for (name, value) in headers.as_object().into_iter().flatten() {
            let value = match value {
                Value::String(text) => AMQPValue::LongString(text.as_str().into()),
                number => AMQPValue::LongLongInt(number.as_i64().expect("an integer or a text")),
            };
            table.insert(name.as_str().into(), value);
        }
        properties.with_headers(table)
    }

    /// Publishes a job to the normal queue.
    pub async fn ask(&self, id: &str, wish: &Value) {
        self.publish("opossum.jobs.normal", self.properties(id), &payload(wish)).await;
    }

    /// Publishes anything, and has it confirmed.
    pub async fn publish(&self, queue: &str, properties: BasicProperties, payload: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish("".into(), queue.into(), options, payload, properties);
        let confirmed = sent.await.expect("sent").await.expect("confirmed");
        assert_eq!(confirmed, Confirmation::Ack(None));
    }

    /// Asks for a job to be cancelled.
    ///
    /// # Panics
    /// When the broker does not confirm it.
    pub async fn cancel(&self, id: &str) {
        let properties = BasicProperties::default().with_user_id(self.user.as_str().into());
        let payload = json!({ "cancel": id }).to_string();
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish(
            "opossum.control".into(),
            "".into(),
            options,
            payload.as_bytes(),
            properties,
        );
        let confirmed = sent.await.expect("sent").await.expect("confirmed");
        assert_eq!(confirmed, Confirmation::Ack(None));
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How much was heard so far.
    pub fn heard_count(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What came to a question so far.
    pub fn heard_of(&self, id: &str) -> Vec<Heard> {
        let correlation = format!("c-{id}");
        self.heard().into_iter().filter(|heard| heard.correlation_id == correlation).collect()
    }

    /// Waits for so many replies to a question, and gives the last.
    pub async fn reply(&self, id: &str, count: usize) -> Heard {
        let replies =
            || -> Vec<_> { self.heard_of(id).into_iter().filter(|heard| heard.status().is_some()).collect() };
        let came = eventually(PATIENCE, async || replies().len() >= count).await;
        assert!(came, "no {count} replies to {id}: {:?}", self.heard());
        replies().pop().expect("a reply")
    }

    /// Takes a message from a queue, waiting for it.
    pub async fn take(&self, queue: &str) -> Heard {
        let mut taken = None;
        let came = eventually(PATIENCE, async || {
            let got = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await;
            if let Some(message) = got.expect("a queue") {
                message.delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
                taken = Some(as_heard(&message.delivery));
            }
            taken.is_some()
        })
        .await;
        assert!(came, "nothing came to {queue}");
        taken.expect("a message")
    }
}

/// A chat's payload.
pub fn payload(body: &Value) -> Vec<u8> {
    payload_of("/v1/chat/completions", body)
}

/// A job's payload.
pub fn payload_of(endpoint: &str, body: &Value) -> Vec<u8> {
    json!({ "endpoint": endpoint, "body": body }).to_string().into_bytes()
}

fn as_heard(delivery: &Delivery) -> Heard {
    let text =
        |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default();
    Heard {
        message_id: text(delivery.properties.message_id()),
        correlation_id: text(delivery.properties.correlation_id()),
        headers: delivery.properties.headers().clone().unwrap_or_default(),
        persistent: *delivery.properties.delivery_mode() == Some(2),
        body: serde_json::from_slice(&delivery.data).unwrap_or(Value::Null),
        message: crate::tap::as_json(delivery),
    }
}
