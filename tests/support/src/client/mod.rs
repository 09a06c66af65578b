//! An HTTP/1.1 client that sees every byte: it can send anything, half-close, reset, and time each event of
//! a stream.

mod conn;
mod sse;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::metrics::Metrics;
use crate::wire::{Headers, header};

pub use conn::Conn;
pub use sse::{End, Event, EventStream, Transcript};

/// A chat of one user message for `auto`.
pub fn ask(text: &str) -> Value {
    json!({"model": "auto", "messages": [{"role": "user", "content": text}]})
}

/// The same, streamed.
pub fn ask_stream(text: &str) -> Value {
    let mut body = ask(text);
    body["stream"] = Value::Bool(true);
    body
}

/// A client of one server. Each call opens a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    addr: SocketAddr,
    headers: Headers,
    limit: Duration,
}

impl Client {
    /// A client that gives each answer 20 s.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, headers: Vec::new(), limit: Duration::from_secs(20) }
    }

    /// The same with one more header on every request.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with another limit for each answer.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Opens a connection.
    ///
    /// # Panics
    /// When the server does not accept it.
    pub async fn connect(&self) -> Conn {
        match Conn::open(self.addr, self.limit).await {
            Ok(conn) => conn,
            Err(err) => panic!("connect to {}: {err}", self.addr),
        }
    }

    /// The bytes of a request with this client's headers.
    pub fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.addr);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            if header(&self.headers, "content-type").is_none() {
                head.push_str("content-type: application/json\r\n");
            }
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    /// When no complete answer comes within the limit.
    pub async fn call(&self, method: &str, path: &str, body: Option<&[u8]>) -> Answer {
        match self.try_call(method, path, body).await {
            Ok(answer) => answer,
            Err(err) => panic!("{method} {path}: {err}"),
        }
    }

    /// As [`Client::call`], with what went wrong on the connection.
    pub async fn try_call(&self, method: &str, path: &str, body: Option<&[u8]>) -> std::io::Result<Answer> {
        let mut conn = Conn::open(self.addr, self.limit).await?;
        conn.send(&self.request(method, path, body)).await?;
        conn.answer().await
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, Some(body.to_string().as_bytes())).await
    }

    /// POST of a chat.
    pub async fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", body).await
    }

    /// POST of inputs to embed.
    pub async fn embed(&self, body: &Value) -> Answer {
        self.post("/v1/embeddings", body).await
    }

    /// POST of a chat whose answer is a stream of events, once its head is there.
    ///
    /// # Panics
    /// When no head comes within the limit.
    pub async fn stream(&self, body: &Value) -> EventStream {
        self.stream_at("/v1/chat/completions", body).await
    }

    /// As [`Client::stream`], for another route.
    pub async fn stream_at(&self, path: &str, body: &Value) -> EventStream {
        let mut conn = self.connect().await;
        let body = body.to_string();
        let sent = conn.send(&self.request("POST", path, Some(body.as_bytes()))).await;
        match sent {
            Ok(()) => match conn.events().await {
                Ok(stream) => stream,
                Err(err) => panic!("stream of {path}: {err}"),
            },
            Err(err) => panic!("send to {path}: {err}"),
        }
    }

    /// The metrics.
    ///
    /// # Panics
    /// When the scrape is not a 200.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200, "/metrics: {}", answer.body_text());
        Metrics::new(answer.body_text())
    }

    /// The health, asked for anew where `refresh`.
    pub async fn health(&self, refresh: bool) -> Value {
        self.get(if refresh { "/health?refresh=true" } else { "/health" }).await.json()
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names (in lower case) and values of the head, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// From the last byte sent to the last byte read.
    pub elapsed: Duration,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(json) => json,
            Err(err) => panic!("status {}, no JSON ({err}): {}", self.status, self.body_text()),
        }
    }

    /// The text of the first choice; empty where there is none.
    pub fn text(&self) -> String {
        let choice = &self.json()["choices"][0];
        let text = choice["message"]["content"].as_str().or_else(|| choice["text"].as_str());
        text.unwrap_or_default().to_owned()
    }

    /// The code of the error; empty where there is none.
    pub fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The parameter that the error names; empty where it names none.
    pub fn error_param(&self) -> String {
        self.json()["error"]["param"].as_str().unwrap_or_default().to_owned()
    }

    /// Which backend answered.
    pub fn backend(&self) -> &str {
        self.header("x-opossum-backend").unwrap_or_default()
    }

    /// How many attempts it took; 0 where the header is missing.
    pub fn attempts(&self) -> u32 {
        self.header("x-opossum-attempts").and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Whether the answer is marked as one of a fallback below what was asked for.
    pub fn degraded(&self) -> bool {
        self.header("x-opossum-degraded") == Some("true")
    }
}
