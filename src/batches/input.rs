//! Reading a batch's file.

use bytes::Bytes;
use opossum_core::batches::input::{Reader, parse};
use opossum_core::batches::{LineFault, Place};
use opossum_core::jobs::Endpoint;
use opossum_ledger::{Ledger, ObjectKey, PIECE};
use serde_json::value::RawValue;

use super::drive::{Stopped, Work};

/// Where the file's requests lie, or what is wrong with it.
pub(super) async fn scan(work: &mut Work<'_>) -> Result<Result<Vec<Place>, Vec<LineFault>>, Stopped> {
    let order = &work.record.batch.order;
    let key = ObjectKey::new(work.record.key.tenant.clone(), order.input_file_id.as_str());
    let mut reader = Reader::new(order.endpoint);
    let mut number = 0;
    while !reader.is_hopeless()
        && let Some(piece) = work.parts.ledger.piece(key.clone(), number).await?
    {
        reader.feed(&piece);
        number += 1;
        work.keep().await?;
    }
    if number == 0 && work.parts.ledger.file(key).await?.is_none() {
        let message = "The input file does not exist any more.".to_owned();
        let fault = LineFault { code: "input_file_not_found".to_owned(), message, param: None, line: None };
        return Ok(Err(vec![fault]));
    }
    Ok(reader.finish())
}

/// Reads lines of a file; those that follow each other are mostly in the same piece.
pub(super) struct Lines<'a> {
    ledger: &'a Ledger,
    file: ObjectKey,
    endpoint: Endpoint,
    last: Option<(u64, Bytes)>,
}

impl<'a> Lines<'a> {
    /// The lines of a batch's file.
    pub(super) fn new(ledger: &'a Ledger, file: ObjectKey, endpoint: Endpoint) -> Self {
        Self { ledger, file, endpoint, last: None }
    }

    /// The body of the request at a place.
    pub(super) async fn body(&mut self, place: &Place) -> Result<Box<RawValue>, Stopped> {
        let mut line = Vec::with_capacity(place.length as usize);
        let end = place.offset + u64::from(place.length);
        let mut at = place.offset;
        while at < end {
            let (number, from) = (at / PIECE as u64, (at % PIECE as u64) as usize);
            let piece = self.piece(number).await?;
            let wanted = piece.len().min(from + (end - at) as usize);
            let found = piece.get(from..wanted).filter(|found| !found.is_empty()).ok_or(Stopped::Input)?;
            line.extend_from_slice(found);
            at += found.len() as u64;
        }
        parse(self.endpoint, &line).map(|request| request.body.to_owned()).map_err(|_| Stopped::Input)
    }

    async fn piece(&mut self, number: u64) -> Result<Bytes, Stopped> {
        if let Some((last, piece)) = &self.last
            && *last == number
        {
            return Ok(piece.clone());
        }
        let piece = self.ledger.piece(self.file.clone(), number).await?.ok_or(Stopped::Input)?;
        self.last = Some((number, piece.clone()));
        Ok(piece)
    }
}
