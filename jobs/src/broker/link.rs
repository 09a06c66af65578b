//! A connection that comes back.
//!
//! One loop keeps one connection: connect, serve until something is wrong, drop everything that hung on it,
//! connect again. Nothing is mended in place, so there is no state in which publishing works and consuming is
//! dead.

use std::fmt;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Connection, ErrorKind};
use tokio::sync::watch;

use super::PATIENCE;
use super::dial::Dialer;

/// The first wait before connecting again; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The wait after a refusal, which only an operator can end.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// A connection that served for this long was a good one: the next wait is the first again.
const GOOD: Duration = Duration::from_secs(5);

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not there yet.
    Connecting,
    /// It works.
    Up,
    /// The broker takes no messages for now: it is short of disk or memory.
    Blocked,
    /// It is lost, and being made anew.
    Down(String),
    /// The broker has something that contradicts what this service needs.
    Refused(String),
}

impl LinkState {
    /// What is wrong, if anything is.
    pub fn fault(&self) -> Option<&str> {
        match self {
            LinkState::Up => None,
            LinkState::Connecting => Some("connecting"),
            LinkState::Blocked => Some("the broker is short of disk or memory and takes no messages"),
            LinkState::Down(why) | LinkState::Refused(why) => Some(why),
        }
    }
}

/// Why a connection is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It does not work any more.
    Gone(String),
    /// A queue or exchange exists with other arguments.
    Refused(String),
}

impl Lost {
    /// The same, with the name of the queue that it is about.
    pub(crate) fn in_queue(self, queue: &str) -> Self {
        match self {
            Lost::Gone(why) => Lost::Gone(format!("{queue}: {why}")),
            Lost::Refused(why) => Lost::Refused(format!("{queue}: {why}")),
        }
    }

    /// What an error of the library means.
    pub(crate) fn of(what: &str, error: &lapin::Error) -> Self {
        let text = format!("{what}: {}", Brief(error));
        match error.kind() {
            ErrorKind::ProtocolError(protocol)
                if matches!(protocol.kind(), AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)) =>
            {
                Lost::Refused(text)
            }
            _ => Lost::Gone(text),
        }
    }
}

impl Lost {
    /// The same, of what is no declaration: the broker refuses that for a while only.
    pub(crate) fn for_now(self) -> Self {
        match self {
            Lost::Gone(why) | Lost::Refused(why) => Lost::Gone(why),
        }
    }
}

/// An error in a few words; the library's own text names addresses.
struct Brief<'a>(&'a lapin::Error);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            ErrorKind::IOError(error) => write!(f, "{}", error.kind()),
            ErrorKind::ProtocolError(error) => {
                write!(f, "the broker says {} {}", error.get_id(), error.get_message())
            }
            ErrorKind::MissingHeartbeatError => f.write_str("the broker is silent"),
            ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_) => {
                f.write_str("the connection is closed")
            }
            _ => f.write_str("the connection failed"),
        }
    }
}

/// Keeps a connection for as long as it is polled: connects, and has it served until that says what is wrong.
pub(crate) async fn keep<S>(name: &'static str, dialer: &Dialer, state: &watch::Sender<LinkState>, serve: S)
where
    S: AsyncFn(&Connection) -> Lost,
{
    let mut wait = FIRST_WAIT;
    loop {
        let since = tokio::time::Instant::now();
        let lost = match connect(name, dialer).await {
            Ok(connection) => {
                let lost = serve(&connection).await;
                close(&connection).await;
                lost
            }
            Err(lost) => lost,
        };
        if since.elapsed() > GOOD {
            wait = FIRST_WAIT;
        }
        let pause = match lost {
            Lost::Gone(why) => {
                note(name, state, LinkState::Down(why));
                let jittered = wait.mul_f64(0.5 + rand::random::<f64>());
                wait = (wait * 2).min(LONGEST_WAIT);
                jittered
            }
            Lost::Refused(why) => {
                note(name, state, LinkState::Refused(why));
                REFUSED_WAIT
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Publishes a state, and logs it when it is news.
pub(crate) fn note(name: &'static str, state: &watch::Sender<LinkState>, new: LinkState) {
    state.send_if_modified(|old| {
        if *old == new {
            return false;
        }
        match &new {
            LinkState::Up => tracing::info!(link = name, "the broker is here"),
            LinkState::Connecting => {}
            LinkState::Blocked => tracing::warn!(link = name, "the broker takes no messages"),
            LinkState::Down(why) if matches!(old, LinkState::Down(_)) => {
                tracing::debug!(link = name, why, "the broker is still away");
            }
            LinkState::Down(why) => tracing::warn!(link = name, why, "the broker is away"),
            LinkState::Refused(why) => {
                tracing::error!(
                    link = name,
                    why,
                    "the broker's queues are not as jobs need them; the queue stays off"
                );
            }
        }
        *old = new;
        true
    });
}

async fn connect(name: &'static str, dialer: &Dialer) -> Result<Connection, Lost> {
    super::soon("connecting", dialer.dial(name)).await
}

/// Says good-bye, but does not wait for a broker that does not listen.
async fn close(connection: &Connection) {
    if connection.status().connected() {
        let goodbye = connection.close(200, "OK".into());
        tokio::time::timeout(PATIENCE / 10, goodbye).await.ok();
    }
}
