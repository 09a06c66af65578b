//! Jobs at a pace, or as fast as they are answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use opossum_testkit::ask;
use opossum_testkit::lapin::message::Delivery;
use opossum_testkit::lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use opossum_testkit::lapin::types::{AMQPValue, FieldTable};
use opossum_testkit::lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use opossum_testkit::requester::{PATIENCE, payload};
use opossum_testkit::wait::eventually;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::figures::Figures;

/// Where the answers go.
const REPLIES: &str = "opossum.reply.acme.bench";
/// Where the jobs go.
const JOBS: &str = "opossum.jobs.normal";

/// A requester that publishes persistent jobs, each confirmed, and takes persistent answers.
pub(crate) struct Load {
    _connections: [Connection; 2],
    channel: Channel,
    /// The name of the next job; no two runs share one, or the second would get stored answers.
    next: AtomicU64,
    heard: Arc<Mutex<Vec<(u64, Instant)>>>,
    /// Places for jobs without an answer.
    open: Arc<Semaphore>,
}

impl Load {
    /// A requester at this address.
    pub(crate) async fn new(url: &str) -> Self {
        let connect = || Connection::connect(url, ConnectionProperties::default());
        let publishing = connect().await.expect("a broker");
        let consuming = connect().await.expect("a broker");
        let channel = publishing.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let (heard, open) = (Arc::default(), Arc::new(Semaphore::new(0)));
        listen(&consuming, Arc::clone(&heard), Arc::clone(&open)).await;
        Self { _connections: [publishing, consuming], channel, next: AtomicU64::new(0), heard, open }
    }

    /// Has so many jobs answered, at most `open` of them waiting at any time; how long that takes.
    pub(crate) async fn closed_loop(&self, jobs: usize, open: usize) -> Duration {
        let began = Instant::now();
        let mut published = JoinSet::new();
        // Answers of other runs have left places.
        self.open.forget_permits(self.open.available_permits());
        self.open.add_permits(open);
        for _ in 0..jobs {
            self.open.acquire().await.expect("open").forget();
            self.publish(&mut published);
        }
        self.finish(published, jobs).await;
        began.elapsed()
    }

    /// Publishes so many jobs a second for so long; from when each was due to its answer.
    pub(crate) async fn paced(&self, per_second: u32, lasts: Duration) -> Figures {
        let jobs = per_second * lasts.as_secs() as u32;
        let began = Instant::now() + Duration::from_millis(100);
        let due = |number: u32| began + lasts * number / jobs;
        let first = self.next.load(Ordering::Relaxed);
        let mut published = JoinSet::new();
        for number in 0..jobs {
            tokio::time::sleep_until(due(number).into()).await;
            self.publish(&mut published);
        }
        let mut figures = Figures::default();
        for (number, at) in self.finish(published, jobs as usize).await {
            figures.add(at.duration_since(due(u32::try_from(number - first).expect("a job of this run"))));
        }
        figures
    }

    fn publish(&self, published: &mut JoinSet<()>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let channel = self.channel.clone();
        published.spawn(async move {
            let id = number.to_string();
            let properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_type("opossum.job.v1".into())
                .with_delivery_mode(2)
                .with_user_id("acme".into())
                .with_message_id(id.as_str().into())
                .with_correlation_id(id.as_str().into())
                .with_reply_to(REPLIES.into());
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let body = payload(&ask(&format!("question {id}")));
            let sent = channel.basic_publish("".into(), JOBS.into(), options, &body, properties);
            let confirm = sent.await.expect("published").await.expect("confirmed");
            assert_eq!(confirm, Confirmation::Ack(None));
        });
    }

    /// Waits until all is confirmed and answered, and takes the answers.
    async fn finish(&self, mut published: JoinSet<()>, jobs: usize) -> Vec<(u64, Instant)> {
        while let Some(confirmed) = published.join_next().await {
            confirmed.expect("confirmed");
        }
        let heard = || self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let all = eventually(PATIENCE, async || heard().len() >= jobs).await;
        let heard = std::mem::take(&mut *heard());
        assert!(all && heard.len() == jobs, "{} answers to {jobs} jobs", heard.len());
        heard
    }
}

async fn listen(connection: &Connection, heard: Arc<Mutex<Vec<(u64, Instant)>>>, open: Arc<Semaphore>) {
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(1000, BasicQosOptions::default()).await.expect("a prefetch");
    let declared =
        channel.queue_declare(REPLIES.into(), QueueDeclareOptions::durable(), FieldTable::default());
    declared.await.expect("a queue");
    let options = BasicConsumeOptions::default();
    let consumed = channel.basic_consume(REPLIES.into(), "".into(), options, FieldTable::default());
    let mut replies = consumed.await.expect("a consumer");
    tokio::spawn(async move {
        while let Some(Ok(reply)) = replies.next().await {
            let number = good(&reply);
            heard.lock().unwrap_or_else(PoisonError::into_inner).push((number, Instant::now()));
            open.add_permits(1);
            reply.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
        }
    });
}

/// The job that a good answer is to.
fn good(reply: &Delivery) -> u64 {
    let headers = reply.properties.headers().clone().unwrap_or_default();
    let status = headers.inner().get("x-opossum-status");
    assert_eq!(status, Some(&AMQPValue::LongInt(200)), "{}", String::from_utf8_lossy(&reply.data));
    let id = reply.properties.correlation_id().as_ref().map_or("", |id| id.as_str());
    id.parse().expect("a job's number")
}
