//! Consuming: one connection, a channel for each queue, and a look at whether it really works.
//!
//! Whatever ends (a consumer that the broker cancels, a channel it closes, a queue that somebody deletes) ends
//! the whole connection: it is made anew within a second, with its queues, and what was not acknowledged comes
//! again.

use std::time::Duration;

use futures::stream::LocalBoxStream;
use futures::stream::{self, SelectAll, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use opossum_core::jobs::Lane;
use tokio::sync::watch;

use super::link::note;
use super::names::{UNDELIVERED, WATCHED};
use super::{LinkState, Lost, soon, topology};
use crate::work::Desk;

/// The link's name in logs and metrics.
pub(crate) const NAME: &str = "consumer";

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How often the queues are asked how much waits in them.
const COUNT: Duration = Duration::from_secs(2);

/// After so many looks at a queue that knows no consumer, although there is one here, it has no leader.
const HEADLESS_LOOKS: u8 = 3;

/// Messages of the responder's queue at once.
const RESPONDER_PREFETCH: u16 = 16;

/// Control messages at once.
const CONTROL_PREFETCH: u16 = 16;

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Jobs(Lane),
    Undelivered,
    Control,
}

/// One thing that a consumer says; `None` is its end.
type Said = (Source, Option<lapin::Result<Delivery>>);
type Messages = SelectAll<LocalBoxStream<'static, Said>>;
/// What fetches, for as long as it lives.
type Fetching = Vec<(Channel, lapin::Consumer)>;

/// Serves jobs from a fresh connection until something is wrong with it.
pub(crate) async fn serve(
    connection: &Connection,
    desk: &std::rc::Rc<Desk>,
    state: &watch::Sender<LinkState>,
    mut leaving: watch::Receiver<bool>,
) -> Lost {
    if *leaving.borrow_and_update() {
        // What was held on an older connection is with other workers now.
        return std::future::pending().await;
    }
    desk.drop_stale();
    let (mut messages, fetching) = match open(connection, desk).await {
        Ok(opened) => opened,
        Err(lost) => return lost,
    };
    let counting = match soon("opening a channel", connection.create_channel()).await {
        Ok(channel) => count(channel, desk),
        Err(lost) => return lost,
    };
    tokio::pin!(counting);
    note(NAME, state, LinkState::Up);
    let mut fetches = true;
    loop {
        tokio::select! {
            Some((source, message)) = messages.next() => match (source, message) {
                (Source::Jobs(lane), Some(Ok(delivery))) => desk.put(lane, delivery),
                (Source::Undelivered, Some(Ok(delivery))) => desk.respond(delivery),
                (Source::Control, Some(Ok(delivery))) => desk.heed(delivery),
                // A message that was not acknowledged in time is refused with the words for a wrong queue.
                (_, Some(Err(error))) => return Lost::of("consuming", &error).for_now(),
                (Source::Jobs(_) | Source::Undelivered, None) if !fetches => {}
                (_, None) => return Lost::Gone("a queue is gone".to_owned()),
            },
            lost = &mut counting => return lost,
            () = tokio::time::sleep(LOOK) => {
                if !connection.status().connected() {
                    return Lost::Gone("the broker closed the connection".to_owned());
                }
            }
            Ok(()) = leaving.changed(), if fetches => {
                fetches = false;
                cancel(&fetching).await;
                desk.give_back_waiting();
            }
        }
    }
}

/// Opens a channel and a consumer for each queue. The last pair is the one for control messages.
async fn open(connection: &Connection, desk: &Desk) -> Result<(Messages, Fetching), Lost> {
    topology::declare(connection).await?;
    let mut messages = SelectAll::new();
    let mut fetching = Vec::new();
    let wanted = Lane::ALL.map(|lane| (Source::Jobs(lane), lane.queue(), desk.slots()));
    for (source, queue, prefetch) in
        wanted.into_iter().chain([(Source::Undelivered, UNDELIVERED, RESPONDER_PREFETCH)])
    {
        let channel = soon("opening a channel", connection.create_channel()).await?;
        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
        soon("setting the prefetch", qos).await?;
        let consumer = consume(&channel, queue).await?;
        messages.push(told(source, consumer.clone()));
        fetching.push((channel, consumer));
    }
    let channel = soon("opening a channel", connection.create_channel()).await?;
    let qos = channel.basic_qos(CONTROL_PREFETCH, BasicQosOptions { global: false });
    soon("setting the prefetch", qos).await?;
    let control = topology::control_queue(&channel).await?;
    let consumer = consume(&channel, control.name().as_str()).await?;
    messages.push(told(Source::Control, consumer.clone()));
    fetching.push((channel, consumer));
    Ok((messages, fetching))
}

async fn consume(channel: &Channel, queue: &str) -> Result<lapin::Consumer, Lost> {
    let options = BasicConsumeOptions::default();
    let consumed = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    soon("consuming", consumed).await.map_err(|lost| lost.in_queue(queue))
}

/// A consumer's messages, and then its end.
fn told(source: Source, consumer: lapin::Consumer) -> LocalBoxStream<'static, Said> {
    let messages = consumer.map(move |message| (source, Some(message)));
    messages.chain(stream::once(async move { (source, None) })).boxed_local()
}

/// Takes no more jobs; what was taken stays.
async fn cancel(fetching: &Fetching) {
    // Who leaves still heeds what is said to all: a job under way may be cancelled.
    for (channel, consumer) in fetching.iter().take(Lane::ALL.len() + 1) {
        let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        soon("cancelling a consumer", cancelled).await.ok();
    }
}

/// Asks again and again how much waits in the queues, and ends when the broker does not say, when it holds back
/// jobs from a consumer that has room for them, or when it knows no consumer of a queue that this one consumes.
///
/// The last is how a quorum queue without a leader looks from here: it takes nothing and gives nothing, says that
/// it is empty, and closes no channel (RabbitMQ 3.10, after its node was killed within a second of the queue's
/// declaration; any, while most of a queue's nodes are away).
async fn count(channel: Channel, desk: &Desk) -> Lost {
    let mut headless = [0_u8; WATCHED.len()];
    loop {
        tokio::time::sleep(COUNT).await;
        for (name, headless) in WATCHED.into_iter().zip(&mut headless) {
            let options = QueueDeclareOptions::durable().passive();
            let asked = channel.queue_declare(name.into(), options, FieldTable::default());
            let queue = match soon("counting messages", asked).await {
                Ok(queue) => queue,
                Err(lost) => return lost,
            };
            let ready = queue.message_count();
            desk.events().depth(name, ready);
            let lane = Lane::of_queue(name);
            if let Some(lane) = lane
                && desk.counted(lane, ready)
            {
                return Lost::Gone(format!("{name} holds {ready} jobs that do not come"));
            }
            let is_consumed = (lane.is_some() || name == UNDELIVERED) && !desk.is_leaving();
            *headless = if is_consumed && queue.consumer_count() == 0 { *headless + 1 } else { 0 };
            if *headless == HEADLESS_LOOKS {
                return Lost::Gone(format!("{name} has no leader at the broker"));
            }
        }
    }
}
