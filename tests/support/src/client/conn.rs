//! One connection of the client.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Answer;
use super::sse::EventStream;
use crate::wire::{Framing, Headers, Wire, framing, owned};

/// One connection. Every read gives up after the limit with `TimedOut`.
pub struct Conn {
    pub(super) read: Wire<OwnedReadHalf>,
    write: OwnedWriteHalf,
    limit: Duration,
    pub(super) sent_at: Instant,
}

/// The head of an answer and how its body ends.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) framing: Framing,
}

impl Conn {
    /// Connects.
    pub(super) async fn open(addr: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = timeout(limit, TcpStream::connect(addr)).await.map_err(|_| timed_out())??;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { read: Wire::new(read), write, limit, sent_at: Instant::now() })
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await?;
        self.write.flush().await?;
        self.sent_at = Instant::now();
        Ok(())
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn half_close(&mut self) -> io::Result<()> {
        self.write.shutdown().await
    }

    /// Leaves with a FIN in both directions.
    pub fn leave(self) {
        drop(self);
    }

    /// Leaves with a RST.
    pub fn reset(self) -> io::Result<()> {
        self.write.as_ref().set_zero_linger()?;
        self.write.forget();
        Ok(())
    }

    /// Reads a whole answer. A body that ends before its framing says so is `UnexpectedEof`.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head().await?;
        let body = timeout(self.limit, self.read.body(head.framing)).await.map_err(|_| timed_out())??;
        let elapsed = self.sent_at.elapsed();
        Ok(Answer { status: head.status, headers: head.headers, body, elapsed })
    }

    /// Reads the head of an answer and goes on with its body as a stream of events.
    pub async fn events(mut self) -> io::Result<EventStream> {
        let head = self.head().await?;
        Ok(EventStream::new(self, head))
    }

    /// Whether the server closes the connection within the limit given; bytes that still come are dropped.
    pub async fn closes_within(&mut self, limit: Duration) -> bool {
        timeout(limit, self.read.until_gone()).await.is_ok()
    }

    /// The next piece of a body.
    pub(super) async fn piece(&mut self, framing: &mut Framing) -> io::Result<Option<Vec<u8>>> {
        timeout(self.limit, self.read.piece(framing)).await.map_err(|_| timed_out())?
    }

    async fn head(&mut self) -> io::Result<Head> {
        loop {
            let bytes = timeout(self.limit, self.read.head()).await.map_err(|_| timed_out())??;
            let bytes = bytes.ok_or(ErrorKind::UnexpectedEof)?;
            let head = parse(&bytes)?;
            // 100 Continue and its like announce the head that counts.
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Head> {
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Response::new(&mut slots);
    parsed.parse(bytes).map_err(|err| io::Error::new(ErrorKind::InvalidData, err))?;
    let status = parsed.code.unwrap_or_default();
    let headers = owned(parsed.headers);
    let bodiless = status < 200 || status == 204 || status == 304;
    let framing = if bodiless { Framing::Ended } else { framing(&headers, Framing::UntilClose) };
    Ok(Head { status, headers, framing })
}

fn timed_out() -> io::Error {
    ErrorKind::TimedOut.into()
}
