//! A TCP proxy that loses what some connections say, or cuts them.
//!
//! A connection is known by something that its client said at first, such as the name that an AMQP client
//! gives itself. So a fault hits one of several connections of a process, at a moment that the test chooses.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::port::PortLease;

/// How much of what a client says is remembered.
const REMEMBERED: usize = 4096;

/// A proxy to a port of this machine. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: PortLease,
    links: Arc<Mutex<Vec<Arc<Link>>>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Link {
    said: Mutex<Vec<u8>>,
    mute: AtomicBool,
    cut: Notify,
}

impl Proxy {
    /// A proxy to this port, on a free one.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn to(target: u16) -> Self {
        let port = PortLease::free();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).await.expect("a free port");
        let links = Arc::<Mutex<Vec<Arc<Link>>>>::default();
        let accepting = tokio::spawn(accept(listener, target, Arc::clone(&links)));
        Self { port, links, accepting }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// From now on nothing arrives of what the clients of connections that said `mark` send. They still hear.
    pub fn mute(&self, mark: &str) {
        self.of(mark).for_each(|link| link.mute.store(true, Ordering::Relaxed));
    }

    /// Cuts the connections that said `mark`.
    pub fn cut(&self, mark: &str) {
        self.of(mark).for_each(|link| link.cut.notify_one());
    }

    fn all(&self) -> Vec<Arc<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn of(&self, mark: &str) -> impl Iterator<Item = Arc<Link>> {
        let mark = mark.as_bytes().to_vec();
        self.all().into_iter().filter(move |link| {
            let said = link.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.windows(mark.len()).any(|window| window == mark)
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.all().iter().for_each(|link| link.cut.notify_one());
    }
}

async fn accept(listener: TcpListener, target: u16, links: Arc<Mutex<Vec<Arc<Link>>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let link = Arc::<Link>::default();
        links.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&link));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass(from_client, to_server, Some(&link)) => {}
                () = pass(from_server, to_client, None) => {}
                () = link.cut.notified() => {}
            }
        });
    }
}

/// Passes bytes on until either side ends; those of a client (which has a link) are looked at.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, client: Option<&Link>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..read];
        if let Some(link) = client {
            let mut said = link.said.lock().unwrap_or_else(PoisonError::into_inner);
            let room = REMEMBERED - said.len();
            said.extend_from_slice(&bytes[..read.min(room)]);
            if link.mute.load(Ordering::Relaxed) {
                continue;
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of the proxy, and the server's side of it.
    async fn pair(proxy: &Proxy, server: &TcpListener, hello: &[u8]) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.expect("a proxy");
        client.write_all(hello).await.expect("said");
        let (mut served, _) = server.accept().await.expect("a connection");
        let mut heard = vec![0; hello.len()];
        served.read_exact(&mut heard).await.expect("heard");
        assert_eq!(heard, hello);
        (client, served)
    }

    #[tokio::test]
    async fn only_the_connections_meant_are_muted_and_cut() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a server");
        let proxy = Proxy::to(server.local_addr().expect("an address").port()).await;
        let (mut first, mut first_served) = pair(&proxy, &server, b"I am first").await;
        let (mut second, mut second_served) = pair(&proxy, &server, b"I am second").await;
        proxy.mute("first");
        first.write_all(b"lost").await.expect("said");
        second.write_all(b"kept").await.expect("said");
        first_served.write_all(b"back").await.expect("said");
        let mut four = [0; 4];
        second_served.read_exact(&mut four).await.expect("heard");
        assert_eq!(&four, b"kept");
        first.read_exact(&mut four).await.expect("heard");
        assert_eq!(&four, b"back");
        proxy.cut("first");
        assert_eq!(first_served.read(&mut four).await.ok(), Some(0), "nothing but the end");
        second.write_all(b"more").await.expect("said");
        second_served.read_exact(&mut four).await.expect("heard");
        assert_eq!(&four, b"more");
    }
}
