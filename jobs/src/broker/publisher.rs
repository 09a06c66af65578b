//! Publishing, on a connection of its own: the broker stops reading from a connection that publishes when it
//! runs short of disk or memory, and consuming must go on then.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use super::link::note;
use super::{Dialer, LinkState, Lost, PATIENCE, keep, soon, topology};

/// Most publishes that wait for their confirm at once.
const WINDOW: usize = 200;

/// How long a message that may get lost may take to be sent.
const TOSSED: Duration = Duration::from_millis(500);

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The link's name in logs and metrics.
pub(crate) const NAME: &str = "publisher";

/// Why a message was not published, as far as anyone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker is away, or did not confirm in time. It may have the message all the same.
    #[error("the broker did not confirm the message")]
    Unavailable,
    /// No queue of this name; the broker gave the message back.
    #[error("the broker has no queue for the message")]
    Unroutable,
    /// The queue takes no more.
    #[error("the queue is full")]
    Full,
}

/// A message on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The exchange; empty to reach a queue by its name.
    pub exchange: &'static str,
    /// The routing key.
    pub key: String,
    /// What the message says about itself.
    pub properties: BasicProperties,
    /// The payload.
    pub payload: Bytes,
}

/// Publishes. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    /// The channel with confirms, and the one without; none while there is no connection.
    channels: Mutex<Option<(Channel, Channel)>>,
    window: Semaphore,
    /// Something is wrong with the connection, or with what was declared on it.
    broken: Notify,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        let window = Semaphore::new(WINDOW);
        Self { shared: Arc::new(Shared { channels: Mutex::new(None), window, broken: Notify::new() }) }
    }

    /// Keeps the connection, for as long as it is polled.
    pub(crate) async fn keep(&self, dialer: &Dialer, state: &watch::Sender<LinkState>) {
        keep(NAME, dialer, state, async |connection: &Connection| {
            let lost = self.serve(connection, state).await;
            *self.shared.channels.lock() = None;
            lost
        })
        .await;
    }

    /// Publishes a message that must arrive: the broker has it on disk once this returns without an error.
    ///
    /// # Errors
    /// See [`PublishError`]; within five seconds.
    pub(crate) async fn publish(&self, message: &Outgoing) -> Result<(), PublishError> {
        let confirmed = tokio::time::timeout(PATIENCE, self.confirmed(message)).await;
        let result = confirmed.unwrap_or(Err(PublishError::Unavailable));
        if result == Err(PublishError::Unavailable) {
            self.suspect();
        }
        result
    }

    /// Has the connection and all that is declared on it made anew.
    pub(crate) fn suspect(&self) {
        self.shared.broken.notify_one();
    }

    async fn confirmed(&self, message: &Outgoing) -> Result<(), PublishError> {
        let unavailable = |_| PublishError::Unavailable;
        let _place = self.shared.window.acquire().await.map_err(|_| PublishError::Unavailable)?;
        let channel = self.channels()?.0;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = send(&channel, message, options).await.map_err(unavailable)?;
        match confirm.await.map_err(unavailable)? {
            Confirmation::Ack(None) => Ok(()),
            // The broker confirms what it could not route, too.
            Confirmation::Ack(Some(_)) => Err(PublishError::Unroutable),
            Confirmation::Nack(_) => Err(PublishError::Full),
            Confirmation::NotRequested => Err(PublishError::Unavailable),
        }
    }

    /// Publishes a message that may get lost, without waiting to hear of it. A broker that takes none for now
    /// is not waited for.
    pub(crate) async fn toss(&self, message: &Outgoing) -> Result<(), PublishError> {
        let channel = self.channels()?.1;
        // On a channel without confirms the second wait is none.
        let sent = async { send(&channel, message, BasicPublishOptions::default()).await?.await };
        match tokio::time::timeout(TOSSED, sent).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(PublishError::Unavailable),
        }
    }

    fn channels(&self) -> Result<(Channel, Channel), PublishError> {
        self.shared.channels.lock().clone().ok_or(PublishError::Unavailable)
    }

    async fn serve(&self, connection: &Connection, state: &watch::Sender<LinkState>) -> Lost {
        let channels = match open(connection).await {
            Ok(channels) => channels,
            Err(lost) => return lost,
        };
        // What was wrong with an older connection is no fault of this one.
        let _ = self.shared.broken.notified().now_or_never();
        *self.shared.channels.lock() = Some(channels.clone());
        loop {
            let blocked = connection.status().blocked();
            note(NAME, state, if blocked { LinkState::Blocked } else { LinkState::Up });
            tokio::select! {
                () = self.shared.broken.notified() => {
                    return Lost::Gone("a message was not confirmed".to_owned());
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let good = |channel: &Channel| channel.status().connected();
            if !connection.status().connected() || !good(&channels.0) || !good(&channels.1) {
                return Lost::Gone("the broker closed the connection".to_owned());
            }
        }
    }
}

async fn open(connection: &Connection) -> Result<(Channel, Channel), Lost> {
    topology::declare(connection).await?;
    let confirming = soon("opening a channel", connection.create_channel()).await?;
    let options = ConfirmSelectOptions::default();
    soon("asking for confirms", confirming.confirm_select(options)).await?;
    let tossing = soon("opening a channel", connection.create_channel()).await?;
    Ok((confirming, tossing))
}

async fn send(
    channel: &Channel,
    message: &Outgoing,
    options: BasicPublishOptions,
) -> lapin::Result<lapin::PublisherConfirm> {
    let (exchange, key) = (message.exchange.into(), super::convert::short(&message.key));
    channel.basic_publish(exchange, key, options, &message.payload, message.properties.clone()).await
}
