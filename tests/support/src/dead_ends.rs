//! Addresses that refuse, swallow or never answer a connection.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tokio::net::TcpSocket;

/// An address at which nobody answers.
#[derive(Debug)]
pub struct BlackHole {
    addr: SocketAddr,
    _listener: Kept,
    _fillers: Vec<TcpStream>,
}

#[derive(Debug)]
enum Kept {
    Std { _socket: TcpListener },
    Tokio { _socket: tokio::net::TcpListener },
}

impl BlackHole {
    /// Connects, and then nothing: the kernel completes the handshake, nobody reads or writes.
    pub fn silent() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        Self { addr, _listener: Kept::Std { _socket: listener }, _fillers: Vec::new() }
    }

    /// Does not even connect: the accept queue is full, so that the kernel drops every further SYN.
    ///
    /// Must be called within a tokio runtime.
    pub fn syn() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let listener = socket.listen(0).expect("a listening socket");
        let addr = listener.local_addr().expect("a bound address");
        let mut fillers = Vec::new();
        // A backlog of 0 still holds a connection or two; once a connect hangs, it is full.
        while let Ok(filler) = TcpStream::connect_timeout(&addr, Duration::from_millis(150)) {
            fillers.push(filler);
            assert!(fillers.len() < 64, "the accept queue of {addr} never fills");
        }
        Self { addr, _listener: Kept::Tokio { _socket: listener }, _fillers: fillers }
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// An address that refuses connections for as long as this lives: the port is bound, nobody listens.
#[derive(Debug)]
pub struct RefusedAddr {
    addr: SocketAddr,
    _socket: TcpSocket,
}

impl RefusedAddr {
    /// Takes a free port. Needs no runtime.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let addr = socket.local_addr().expect("a bound address");
        Self { addr, _socket: socket }
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Default for RefusedAddr {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::{ErrorKind, Read};

    use super::*;

    #[test]
    fn a_refused_address_refuses() {
        let refused = RefusedAddr::new();
        let err = TcpStream::connect_timeout(&refused.addr(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_syn_black_hole_never_connects() {
        let hole = BlackHole::syn();
        let err = TcpStream::connect_timeout(&hole.addr(), Duration::from_millis(300)).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_silent_black_hole_connects_and_says_nothing() {
        let hole = BlackHole::silent();
        let mut stream = TcpStream::connect_timeout(&hole.addr(), Duration::from_secs(1)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let err = stream.read(&mut [0; 1]).unwrap_err();
        assert!(matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    }
}
