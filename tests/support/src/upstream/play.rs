//! Playing a script onto a socket.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::dialect::{Exchange, Operation, escape};
use super::vectors;
use crate::script::{Script, Step};

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// A complete answer: the next request may come.
    KeepAlive,
    Close,
    Reset,
    CallerLeft,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    ChunkedHead,
    Everything,
}

/// The state of one answer.
pub(crate) struct Player<'a, W> {
    exchange: &'a Exchange,
    write: &'a mut W,
    models: &'a [String],
    path: &'a str,
    sent: Sent,
    split: Option<usize>,
    /// Pieces of text sent, which is what the answer's usage says.
    pieces: usize,
    whole_begun: bool,
}

impl<'a, W: AsyncWrite + Unpin> Player<'a, W> {
    pub(crate) fn new(exchange: &'a Exchange, write: &'a mut W, models: &'a [String], path: &'a str) -> Self {
        let sent = Sent::Nothing;
        Self { exchange, write, models, path, sent, split: None, pieces: 0, whole_begun: false }
    }

    /// Plays the script; without one the request is a probe and is answered well.
    pub(crate) async fn play(&mut self, script: Option<&Script>) -> After {
        let played = match script {
            Some(script) => self.steps(script).await,
            None => self.probe().await,
        };
        // A write fails only when the caller is gone.
        played.unwrap_or(After::CallerLeft)
    }

    async fn steps(&mut self, script: &Script) -> io::Result<After> {
        for step in &script.steps {
            if let Some(after) = self.step(step).await? {
                return Ok(after);
            }
        }
        match self.sent {
            Sent::Nothing => Ok(After::Close),
            Sent::ChunkedHead => self.end().await,
            Sent::Everything => Ok(After::KeepAlive),
        }
    }

    async fn step(&mut self, step: &Step) -> io::Result<Option<After>> {
        match step {
            Step::Status { code, headers, body } => {
                let own = || self.exchange.error_body(*code);
                let body = body.clone().unwrap_or_else(own);
                self.complete(*code, headers, &body).await?;
            }
            Step::Delay(wait) => tokio::time::sleep(*wait).await,
            Step::Head => self.head().await?,
            Step::Raw(bytes) => self.raw(bytes).await?,
            Step::Body(bytes) => self.body(bytes).await?,
            Step::SplitEvery(n) => self.split = Some((*n).max(1)),
            Step::Chunks { texts, gap } => self.texts(texts, *gap).await?,
            Step::Event(json) => {
                let bytes = if self.exchange.stream {
                    self.exchange.event(&json.to_string())
                } else {
                    json.to_string().into_bytes()
                };
                self.body(&bytes).await?;
            }
            Step::RoleOnly if self.exchange.stream => self.body(&self.exchange.role_event()).await?,
            Step::RoleOnly => self.head().await?,
            Step::Comments { every, count } => self.comments(*every, *count).await?,
            Step::ErrorEvent { code, message } => {
                self.body(&self.exchange.error_event(code, message)).await?;
            }
            Step::Finish { reason, end_mark } => self.finish(reason, *end_mark).await?,
            Step::Answer(text) => self.answer(text).await?,
            Step::Echo => self.answer(&self.exchange.prompt).await?,
            Step::Stall => std::future::pending().await,
            Step::End => return self.end().await.map(Some),
            Step::Close => return Ok(Some(After::Close)),
            Step::Reset => return Ok(Some(After::Reset)),
        }
        Ok(None)
    }

    async fn probe(&mut self) -> io::Result<After> {
        let body = self.exchange.probe_body(self.path, self.models);
        self.complete(200, &[], &body).await?;
        Ok(After::KeepAlive)
    }

    async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await?;
        self.write.flush().await
    }

    async fn complete(&mut self, code: u16, headers: &[(String, String)], body: &[u8]) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {code} {}\r\n", reason_phrase(code));
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            head.push_str("content-type: application/json\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.sent = Sent::Everything;
        match self.split {
            None => self.raw(&bytes).await,
            Some(n) => {
                for piece in bytes.chunks(n) {
                    self.raw(piece).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        }
    }

    async fn head(&mut self) -> io::Result<()> {
        if self.sent != Sent::Nothing {
            return Ok(());
        }
        self.sent = Sent::ChunkedHead;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n",
            self.exchange.content_type()
        );
        self.raw(head.as_bytes()).await
    }

    async fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head().await?;
        for piece in bytes.chunks(self.split.unwrap_or(usize::MAX).max(1)) {
            let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
            framed.extend_from_slice(piece);
            framed.extend_from_slice(b"\r\n");
            self.raw(&framed).await?;
            if self.split.is_some() {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> io::Result<After> {
        self.head().await?;
        if self.sent == Sent::ChunkedHead {
            self.raw(b"0\r\n\r\n").await?;
            self.sent = Sent::Everything;
        }
        Ok(After::KeepAlive)
    }

    async fn texts(&mut self, texts: &[String], gap: Duration) -> io::Result<()> {
        for text in texts {
            if !gap.is_zero() && self.pieces > 0 {
                tokio::time::sleep(gap).await;
            }
            self.pieces += 1;
            let bytes =
                if self.exchange.stream { self.exchange.text_event(text) } else { self.whole_piece(text) };
            self.body(&bytes).await?;
        }
        Ok(())
    }

    /// A piece of a whole answer: its JSON up to the text comes along with the first one.
    fn whole_piece(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.whole_begun {
            self.whole_begun = true;
            bytes.extend_from_slice(self.exchange.whole("stop", 0).0.as_bytes());
        }
        bytes.extend_from_slice(escape(text).as_bytes());
        bytes
    }

    async fn finish(&mut self, reason: &str, end_mark: bool) -> io::Result<()> {
        let bytes = if self.exchange.stream {
            self.exchange.finish_events(reason, end_mark, self.pieces)
        } else {
            let mut bytes = self.whole_piece("");
            bytes.extend_from_slice(self.exchange.whole(reason, self.pieces).1.as_bytes());
            bytes
        };
        self.body(&bytes).await
    }

    async fn comments(&mut self, every: Duration, count: Option<usize>) -> io::Result<()> {
        let mut left = count;
        while left != Some(0) {
            self.body(&self.exchange.comment()).await?;
            tokio::time::sleep(every).await;
            left = left.map(|n| n - 1);
        }
        Ok(())
    }

    async fn answer(&mut self, text: &str) -> io::Result<()> {
        if self.exchange.operation == Operation::Unknown {
            return Ok(());
        }
        if self.exchange.operation == Operation::Embedding {
            let body = vectors::answer(
                self.exchange.dialect,
                self.path,
                &self.exchange.model,
                &self.exchange.vectors,
            );
            return self.complete(200, &[], &body).await;
        }
        let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        if self.exchange.stream {
            self.body(&self.exchange.role_event()).await?;
            self.texts(&words, Duration::ZERO).await?;
            self.finish("stop", true).await
        } else {
            let (before, after) = self.exchange.whole("stop", words.len());
            self.complete(200, &[], format!("{before}{}{after}", escape(text)).as_bytes()).await
        }
    }
}

fn reason_phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Scripted",
    }
}
