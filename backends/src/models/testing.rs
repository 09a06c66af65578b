//! What the tests of this module share: a folder that goes away, and a server that misbehaves as told.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A folder of its own, deleted with the value.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("opossum-models-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The names of the files in it, sorted.
    pub(super) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A request as it came: path and headers, names in lower case.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The offset of a `Range` of the form `bytes=N-`.
    pub(super) fn offset(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |r| r.parse().unwrap())
    }
}

/// An answer: raw bytes, after which the connection is closed; or held open for a while first.
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) hold: Duration,
}

impl Answer {
    /// A status with headers and a body of which only the first `sent` bytes are sent.
    pub(super) fn cut(status: &str, headers: &str, body: &[u8], sent: usize) -> Self {
        let mut bytes =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(&body[..sent.min(body.len())]);
        Self { bytes, hold: Duration::ZERO }
    }

    pub(super) fn whole(status: &str, headers: &str, body: &[u8]) -> Self {
        Self::cut(status, headers, body, body.len())
    }

    /// The rest of a file as a server that resumes sends it.
    pub(super) fn partial(file: &[u8], offset: usize, sent: usize) -> Self {
        let headers =
            format!("content-range: bytes {offset}-{}/{}\r\netag: \"v1\"\r\n", file.len() - 1, file.len());
        Self::cut("206 Partial Content", &headers, &file[offset..], sent)
    }
}

/// A server on a free port; each connection carries one request.
pub(super) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Starts it; the script is given each request and how many came before.
    pub(super) fn start(script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                serve(connection.unwrap(), &script, &log);
            }
        });
        Self { address, seen }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut socket: TcpStream, script: &impl Fn(&Seen, usize) -> Answer, log: &Mutex<Vec<Seen>>) {
    let Some(request) = read_request(&socket) else { return };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let answer = script(&request, before);
    // The client may have left already.
    socket.write_all(&answer.bytes).ok();
    std::thread::sleep(answer.hold);
}

fn read_request(socket: &TcpStream) -> Option<Seen> {
    let mut lines = BufReader::new(socket).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Seen { path, headers })
}
