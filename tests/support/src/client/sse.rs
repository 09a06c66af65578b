//! A stream of server-sent events, each with its time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

use serde_json::Value;

use super::conn::{Conn, Head};
use crate::wire::{Framing, header};

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// From the last byte of the request to the event.
    pub at: Duration,
    /// What follows `data: `.
    pub data: String,
}

impl Event {
    /// The event as JSON; null for `[DONE]` and whatever is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }

    /// The text of the first choice's delta; empty where there is none.
    pub fn text(&self) -> String {
        let json = self.json();
        let choice = &json["choices"][0];
        let text = choice["delta"]["content"].as_str().or_else(|| choice["text"].as_str());
        text.unwrap_or_default().to_owned()
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By the rules of its framing.
    Clean,
    /// The connection broke or closed before that.
    Cut,
    /// Nothing came within the client's limit.
    TimedOut,
}

/// An answer that arrives as events.
pub struct EventStream {
    conn: Conn,
    head: Head,
    framing: Framing,
    rest: Vec<u8>,
    ready: VecDeque<Event>,
    comments: usize,
    end: Option<End>,
}

impl EventStream {
    pub(super) fn new(conn: Conn, head: Head) -> Self {
        let framing = head.framing;
        Self { conn, head, framing, rest: Vec::new(), ready: VecDeque::new(), comments: 0, end: None }
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head.headers, name)
    }

    /// The next event; `None` once the stream is over, however it ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.end.is_some() {
                return None;
            }
            let piece = self.conn.piece(&mut self.framing).await;
            self.take(piece);
        }
    }

    /// The next event that carries text.
    pub async fn next_text(&mut self) -> Option<String> {
        while let Some(event) = self.next().await {
            let text = event.text();
            if !text.is_empty() {
                return Some(text);
            }
        }
        None
    }

    /// Reads to the end.
    pub async fn collect(mut self) -> Transcript {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        Transcript {
            status: self.head.status,
            headers: self.head.headers,
            events,
            comments: self.comments,
            end: self.end.unwrap_or(End::Cut),
            rest: String::from_utf8_lossy(&self.rest).into_owned(),
        }
    }

    /// Leaves with a FIN.
    pub fn leave(self) {
        self.conn.leave();
    }

    /// Leaves with a RST.
    pub fn reset(self) -> io::Result<()> {
        self.conn.reset()
    }

    fn take(&mut self, piece: io::Result<Option<Vec<u8>>>) {
        match piece {
            Ok(Some(bytes)) => {
                self.rest.extend_from_slice(&bytes);
                self.split();
            }
            Ok(None) => self.end = Some(End::Clean),
            Err(err) if err.kind() == ErrorKind::TimedOut => self.end = Some(End::TimedOut),
            Err(_) => self.end = Some(End::Cut),
        }
    }

    fn split(&mut self) {
        let at = self.conn.sent_at.elapsed();
        while let Some(end) = self.rest.windows(2).position(|w| w == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let data: Vec<&str> =
                block.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim_start).collect();
            if data.is_empty() {
                self.comments += 1;
            } else {
                self.ready.push_back(Event { at, data: data.join("\n") });
            }
        }
    }
}

/// A stream that is over.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// The status code.
    pub status: u16,
    /// Names (in lower case) and values of the head, in order.
    pub headers: Vec<(String, String)>,
    /// The events, `[DONE]` among them.
    pub events: Vec<Event>,
    /// Number of blocks without data, which keep the connection alive.
    pub comments: usize,
    /// How it ended.
    pub end: End,
    /// Bytes after the last event: the whole body, where it was no stream of events.
    pub rest: String,
}

impl Transcript {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The text of the first choice.
    pub fn text(&self) -> String {
        self.events.iter().map(Event::text).collect()
    }

    /// Whether `[DONE]` came, and came last.
    pub fn done(&self) -> bool {
        self.events.last().is_some_and(|e| e.data == "[DONE]")
    }

    /// Whether `[DONE]` came at all.
    pub fn has_done(&self) -> bool {
        self.events.iter().any(|e| e.data == "[DONE]")
    }

    /// The finish reason of the first choice; empty where none came.
    pub fn finish_reason(&self) -> String {
        let reasons = self.events.iter().map(|e| e.json()["choices"][0]["finish_reason"].clone());
        reasons.filter_map(|r| r.as_str().map(str::to_owned)).next_back().unwrap_or_default()
    }

    /// The code of the error inside the stream, or of the error that came instead of one; empty for none.
    pub fn error_code(&self) -> String {
        let whole: Value = serde_json::from_str(&self.rest).unwrap_or(Value::Null);
        let errors = self.events.iter().map(Event::json).chain([whole]);
        errors.filter_map(|e| e["error"]["code"].as_str().map(str::to_owned)).next().unwrap_or_default()
    }

    /// The usage; null where none came.
    pub fn usage(&self) -> Value {
        let mut usages = self.events.iter().map(|e| e.json()["usage"].clone());
        usages.rfind(Value::is_object).unwrap_or(Value::Null)
    }
}
