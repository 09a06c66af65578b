//! Writing the files with the answers.
//!
//! They are written from what is noted of each line, in the lines' order. A worker that takes over writes files of
//! its own, and those that the batch names in the end are whole: nobody else ever wrote to them.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use opossum_core::batches::batch::Results;
use opossum_core::batches::output::{Unanswered, count, unanswered};
use opossum_core::batches::{Place, Status};
use opossum_ledger::{LineOutput, NewFile, ObjectKey, PIECE};

use super::drive::{Stopped, Work};
use super::worker::Parts;
use crate::http::request_id;

/// Lines read at once; each may be as large as an answer.
const AT_ONCE: u32 = 16;

/// Writes both files.
pub(super) async fn write<'a>(work: &mut Work<'a>, places: &[Place]) -> Result<Results, Stopped> {
    let why = match work.record.batch.status {
        Status::Cancelling => Unanswered::Cancelled,
        _ => Unanswered::Expired,
    };
    let key = work.record.key.clone();
    let (mut good, mut bad) = (Output::new(work, "output"), Output::new(work, "error"));
    let mut results = Results::default();
    let (mut noted, mut is_last) = (VecDeque::<LineOutput>::new(), false);
    for (line, place) in (0..).zip(places) {
        if noted.is_empty() && !is_last {
            noted = work.parts.ledger.line_outputs(key.clone(), line, AT_ONCE).await?.into();
            is_last = noted.len() < AT_ONCE as usize;
        }
        work.keep().await?;
        match noted.pop_front_if(|next| next.line == line) {
            Some(LineOutput { is_good: true, output, .. }) => {
                let model = count(&output, &mut results.tokens);
                results.model = results.model.or(model);
                good.add(&output).await?;
            }
            Some(LineOutput { output, .. }) => bad.add(&output).await?,
            None => bad.add(&unanswered(&key.id, line, &place.custom_id, why)).await?,
        }
    }
    results.output_file_id = good.finish().await?;
    results.error_file_id = bad.finish().await?;
    Ok(results)
}

/// A file on its way into the ledger; one without lines is none.
struct Output<'a> {
    parts: &'a Parts,
    key: ObjectKey,
    filename: String,
    keep: Duration,
    rest: BytesMut,
    pieces: u64,
    bytes: u64,
}

impl<'a> Output<'a> {
    fn new(work: &Work<'a>, name: &str) -> Self {
        let batch = &work.record.key;
        Self {
            parts: work.parts,
            key: ObjectKey::new(batch.tenant.clone(), request_id::fresh("file-")),
            filename: format!("{}_{name}.jsonl", batch.id),
            keep: Duration::from_secs(work.record.batch.order.keep_output_seconds),
            rest: BytesMut::new(),
            pieces: 0,
            bytes: 0,
        }
    }

    async fn add(&mut self, line: &[u8]) -> Result<(), Stopped> {
        if self.bytes == 0 {
            self.parts.ledger.begin_file(self.key.clone()).await?;
        }
        self.bytes += line.len() as u64;
        self.rest.extend_from_slice(line);
        while self.rest.len() >= PIECE {
            let piece = self.rest.split_to(PIECE).freeze();
            self.write(piece).await?;
        }
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Stopped> {
        self.parts.ledger.add_piece(self.key.clone(), self.pieces, piece).await?;
        self.pieces += 1;
        Ok(())
    }

    /// The file's id.
    async fn finish(mut self) -> Result<Option<String>, Stopped> {
        if self.bytes == 0 {
            return Ok(None);
        }
        if !self.rest.is_empty() {
            let last = self.rest.split().freeze();
            self.write(last).await?;
        }
        let (purpose, filename) = ("batch_output".to_owned(), self.filename);
        let file = NewFile { purpose, filename, bytes: self.bytes, keep: self.keep };
        let written = self.parts.ledger.finish_file(self.key, file).await?;
        Ok(Some(written.ok_or(Stopped::Lost)?.id.to_string()))
    }
}
