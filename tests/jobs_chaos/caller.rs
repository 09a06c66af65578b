//! A caller that publishes jobs as the documentation asks it to, and does not give up: what the broker did not
//! confirm it publishes again, under the same message id, once the broker is there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use opossum_testkit::lapin::message::Delivery;
use opossum_testkit::lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use opossum_testkit::lapin::types::{AMQPValue, FieldTable};
use opossum_testkit::lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
};
use opossum_testkit::requester::payload;
use opossum_testkit::{ask, lapin};
use serde_json::Value;
use tokio::sync::watch;

use crate::book::{Asking, Book, Due, Heard, open};

/// How often it looks whether there is something to publish.
const TICK: Duration = Duration::from_millis(10);

/// New jobs at each tick.
const PER_TICK: usize = 2;

/// Most jobs without an answer.
const MOST_OPEN: usize = 400;

/// How long any one exchange with the broker may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The broker is away, or was; everything that is not confirmed is asked again.
struct Lost;

/// Asks, as the user of the broker at this address whose book it is, for as long as it is polled.
pub(crate) async fn ask_by_queue(url: String, book: Arc<Mutex<Book>>, asking: watch::Receiver<Asking>) {
    let user = open(&book).tenant().to_owned();
    Session { user, url, book, asking }.keep().await;
}

struct Session {
    user: String,
    url: String,
    book: Arc<Mutex<Book>>,
    asking: watch::Receiver<Asking>,
}

/// What becomes of a message that was published.
struct Outcome {
    number: u64,
    confirmed: Result<bool, Lost>,
}

impl Session {
    async fn keep(self) {
        loop {
            if self.serve().await.is_err() {
                tokio::time::sleep(TICK * 10).await;
            }
        }
    }

    /// Asks and hears until the broker is lost.
    async fn serve(&self) -> Result<(), Lost> {
        let connecting = Connection::connect(&self.url, ConnectionProperties::default());
        let connection = soon(connecting).await?;
        let channel = soon(connection.create_channel()).await?;
        let mut replies = self.listen(&channel).await?;
        let mut confirms = FuturesUnordered::new();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                reply = replies.next() => match reply {
                    Some(Ok(reply)) => self.hear(&reply).await,
                    Some(Err(_)) | None => break,
                },
                Some(outcome) = confirms.next() => {
                    self.note(&outcome);
                    if outcome.confirmed.is_err() {
                        break;
                    }
                }
                _ = tick.tick() => self.due().into_iter().for_each(|due| confirms.push(self.publish(&channel, due))),
            }
        }
        // Whether these arrived nobody knows.
        while let Some(outcome) = confirms.next().await {
            self.note(&outcome);
        }
        Err(Lost)
    }

    async fn listen(&self, channel: &Channel) -> Result<Consumer, Lost> {
        soon(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let queue = self.queue();
        let options = QueueDeclareOptions::durable();
        soon(channel.queue_declare(queue.as_str().into(), options, FieldTable::default())).await?;
        let options = BasicConsumeOptions::default();
        soon(channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())).await
    }

    fn queue(&self) -> String {
        format!("opossum.reply.{}.chaos", self.user)
    }

    /// What is to be published now.
    fn due(&self) -> Vec<Due> {
        let mut book = open(&self.book);
        let asking = *self.asking.borrow();
        (0..PER_TICK).for_each(|_| book.ask(asking, MOST_OPEN));
        std::iter::from_fn(|| book.take_due()).take(PER_TICK * 10).collect()
    }

    async fn publish(&self, channel: &Channel, due: Due) -> Outcome {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_type("opossum.job.v1".into())
            .with_delivery_mode(2)
            .with_user_id(self.user.as_str().into())
            .with_message_id(due.id.as_str().into())
            .with_correlation_id(due.id.as_str().into())
            .with_reply_to(self.queue().as_str().into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = payload(&ask(&due.question));
        let sent = channel.basic_publish("".into(), due.queue.into(), options, &body, properties);
        let confirmed = soon(async { sent.await?.await }).await;
        Outcome { number: due.number, confirmed: confirmed.map(|confirm| confirm == Confirmation::Ack(None)) }
    }

    fn note(&self, outcome: &Outcome) {
        let mut book = open(&self.book);
        match outcome.confirmed {
            Ok(true) => book.confirm(outcome.number),
            // Refused, without a queue, or nobody knows.
            Ok(false) | Err(Lost) => book.again(outcome.number),
        }
    }

    async fn hear(&self, reply: &Delivery) {
        let properties = &reply.properties;
        let id = properties.correlation_id().as_ref().map_or("", |id| id.as_str());
        let headers = properties.headers().clone().unwrap_or_default();
        let status = headers.inner().get("x-opossum-status").cloned();
        let body: Value = serde_json::from_slice(&reply.data).unwrap_or_default();
        let content = format!("{:?} {headers:?} {body}", properties.message_id());
        let answer = body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        let answers = (status == Some(AMQPValue::LongInt(200))).then_some(answer);
        open(&self.book).hear(&Heard { id, answers, content: &content });
        // One whose acknowledgement is lost comes again.
        reply.acker.ack(BasicAckOptions::default()).await.ok();
    }
}

/// Waits for the broker, but not for ever.
async fn soon<T>(call: impl Future<Output = lapin::Result<T>>) -> Result<T, Lost> {
    tokio::time::timeout(PATIENCE, call).await.map_err(|_| Lost)?.map_err(|_| Lost)
}
