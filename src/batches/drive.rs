//! One batch, from wherever it stands to its end.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::join_all;
use opossum_core::batches::batch::Results;
use opossum_core::batches::{Flight, Landed, Launch, Mark, Place, Status, Verdict, output};
use opossum_core::jobs::{JobKey, Lane, UnixMillis};
use opossum_jobs::Submission;
use opossum_ledger::{BatchRecord, Held, KnownJob, LedgerError, LineNote, ObjectKey};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::finish;
use super::input::{Lines, scan};
use super::worker::{LEASE, Parts};

/// The pause between two looks for replies: the shortest, and the longest while none come.
const BUSY: Duration = Duration::from_millis(20);
const IDLE: Duration = Duration::from_millis(500);

/// How often it is written down how far a batch has come, and asked whether it was called off.
const SAVE: Duration = Duration::from_secs(1);

/// The wait before a line is published again that the broker did not take.
const BROKER_BACK: UnixMillis = 1_000;

/// The status of a reply to a job that was cancelled.
const CANCELLED: u16 = 499;

/// Jobs asked for in one statement; each may have a reply as large as an answer.
const AT_ONCE: usize = 16;

/// Why the work on a batch ended before its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It is another's.
    Lost,
    /// The ledger failed.
    Ledger(LedgerError),
    /// The file is not what it was.
    Input,
}

impl From<LedgerError> for Stopped {
    fn from(error: LedgerError) -> Self {
        Stopped::Ledger(error)
    }
}

/// A batch under work.
pub(super) struct Work<'a> {
    pub(super) parts: &'a Parts,
    pub(super) record: BatchRecord,
    /// The name by which it is held.
    holder: String,
    saved: Instant,
}

/// Brings a batch to its end.
pub(super) async fn drive(parts: &Parts, record: BatchRecord, holder: String) -> Result<Status, Stopped> {
    let mut work = Work { parts, record, holder, saved: Instant::now() };
    if work.status() == Status::Cancelling && work.record.batch.times.in_progress.is_none() {
        // Nothing was published yet.
        return work.end(Results::default()).await;
    }
    let places = match scan(&mut work).await? {
        Ok(places) => places,
        Err(faults) => {
            work.record.batch.refuse(faults, unix_millis());
            return if work.status() == Status::Failed { work.over().await } else { Err(Stopped::Input) };
        }
    };
    let total = u32::try_from(places.len()).unwrap_or(u32::MAX);
    if work.status() == Status::Validating {
        work.record.batch.accept(total, unix_millis());
        work.save().await?;
    }
    if work.status() != Status::Finalizing {
        work.fly(&places, total).await?;
        work.record.batch.finalize(unix_millis());
        work.save().await?;
    }
    let results = finish::write(&mut work, &places).await?;
    work.end(results).await
}

impl Work<'_> {
    fn status(&self) -> Status {
        self.record.batch.status
    }

    /// Whether no more lines are published.
    fn is_off(&self) -> bool {
        self.status() != Status::InProgress || self.record.batch.is_late(unix_millis())
    }

    /// Writes down how far it has come, and hears whether it was called off.
    pub(super) async fn save(&mut self) -> Result<(), Stopped> {
        let saved = self.parts.ledger.save_batch(self.record.clone(), self.holder.clone(), LEASE).await?;
        self.saved = Instant::now();
        match saved {
            Held::Yes { cancelled } => {
                if let Some(when) = cancelled {
                    self.record.batch.cancel(when);
                }
                Ok(())
            }
            Held::Lost => Err(Stopped::Lost),
        }
    }

    /// Saves, unless it has just been done.
    pub(super) async fn keep(&mut self) -> Result<(), Stopped> {
        if self.saved.elapsed() < SAVE { Ok(()) } else { self.save().await }
    }

    async fn end(mut self, results: Results) -> Result<Status, Stopped> {
        self.record.batch.end(results, unix_millis());
        self.over().await
    }

    async fn over(mut self) -> Result<Status, Stopped> {
        self.save().await?;
        Ok(self.status())
    }

    /// Has all lines answered, as far as time and the caller let it.
    async fn fly(&mut self, places: &[Place], total: u32) -> Result<(), Stopped> {
        let mut flight = self.recall(total).await?;
        let file = ObjectKey::new(self.record.key.tenant.clone(), &*self.record.batch.order.input_file_id);
        let parts = self.parts;
        let mut lines = Lines::new(&parts.ledger, file, self.record.batch.order.endpoint);
        let mut pause = BUSY;
        loop {
            let landed = self.collect(&mut flight, places).await?;
            if flight.is_over() {
                return Ok(());
            }
            if self.is_off() {
                return self.call_off(&mut flight, places).await;
            }
            self.launch(&mut flight, &mut lines, places).await?;
            self.keep().await?;
            pause = if landed > 0 { BUSY } else { (pause * 2).min(IDLE) };
            tokio::time::sleep(pause).await;
        }
    }

    /// What an earlier worker has done.
    async fn recall(&mut self, total: u32) -> Result<Flight, Stopped> {
        let mut flight = Flight::new(total);
        let (mut completed, mut failed) = (0, 0);
        for known in self.parts.ledger.line_marks(self.record.key.clone()).await? {
            match known.outcome {
                Some(good) => {
                    flight.recall_over(known.line);
                    *(if good { &mut completed } else { &mut failed }) += 1;
                }
                None => flight.recall_mark(known.line, known.mark),
            }
        }
        (self.record.batch.counts.completed, self.record.batch.counts.failed) = (completed, failed);
        let open: Vec<Launch> = (0..total)
            .filter_map(|line| flight.next_attempt(line).map(|attempt| Launch { line, attempt }))
            .collect();
        for some in open.chunks(AT_ONCE) {
            for (launch, _) in self.known(some).await? {
                flight.recall_aloft(launch.line, unix_millis());
            }
            self.keep().await?;
        }
        Ok(flight)
    }

    /// The jobs of these lines that are known.
    async fn known(&self, some: &[Launch]) -> Result<Vec<(Launch, KnownJob)>, Stopped> {
        let by_id: HashMap<String, Launch> = some.iter().map(|launch| (self.job(*launch), *launch)).collect();
        let ids = by_id.keys().cloned().collect();
        let known = self.parts.ledger.known_jobs(self.record.key.tenant.clone(), ids).await?;
        Ok(known.into_iter().filter_map(|job| by_id.get(&job.id).map(|launch| (*launch, job))).collect())
    }

    /// The identity of a line's job.
    fn job(&self, Launch { line, attempt }: Launch) -> String {
        format!("{}:{line}:{attempt}", self.record.key.id)
    }

    /// Takes in the replies that have come; how many.
    async fn collect(&mut self, flight: &mut Flight, places: &[Place]) -> Result<usize, Stopped> {
        let aloft: Vec<Launch> = flight.aloft().collect();
        let mut landed = 0;
        for some in aloft.chunks(AT_ONCE) {
            landed += self.take_in(some, flight, places).await?;
            self.keep().await?;
        }
        Ok(landed)
    }

    /// Takes in those of these lines' replies that have come; how many.
    async fn take_in(
        &mut self,
        some: &[Launch],
        flight: &mut Flight,
        places: &[Place],
    ) -> Result<usize, Stopped> {
        let mut notes = Vec::new();
        let mut counts = self.record.batch.counts;
        let is_off = self.is_off();
        for (Launch { line, attempt }, job) in self.known(some).await? {
            let (Some(reply), Some(place)) = (job.reply, places.get(line as usize)) else { continue };
            if is_off && reply.status == CANCELLED {
                // By us: it is told as what it is, a request that was not executed.
                continue;
            }
            let mark = Mark { attempt, ..Mark::default() };
            let note = match flight.land(line, Verdict::of_status(reply.status), unix_millis()) {
                Landed::Over(good) => {
                    *(if good { &mut counts.completed } else { &mut counts.failed }) += 1;
                    let text = output::answered(&self.record.key.id, line, &place.custom_id, &reply);
                    LineNote { line, mark, outcome: Some((good, Bytes::from(text))) }
                }
                Landed::Again(mark) => LineNote { line, mark, outcome: None },
                Landed::Unknown => continue,
            };
            notes.push(note);
        }
        let landed = notes.len();
        if landed > 0 {
            self.parts.ledger.note_lines(self.record.key.clone(), notes).await?;
            self.record.batch.counts = counts;
        }
        Ok(landed)
    }

    /// Publishes as many lines as may be now.
    async fn launch(
        &self,
        flight: &mut Flight,
        lines: &mut Lines<'_>,
        places: &[Place],
    ) -> Result<(), Stopped> {
        let mut ready: Vec<(Launch, Box<RawValue>)> = Vec::new();
        while let Some(launch) = flight.launch(unix_millis()) {
            let place = places.get(launch.line as usize).ok_or(Stopped::Input)?;
            ready.push((launch, lines.body(place).await?));
        }
        let publish =
            ready.iter().map(async |(launch, body)| (launch.line, self.publish(*launch, body).await));
        for (line, published) in join_all(publish).await {
            if !published {
                flight.returned(line, unix_millis() + BROKER_BACK);
            }
        }
        Ok(())
    }

    /// Publishes a line; whether the broker has it for certain.
    async fn publish(&self, launch: Launch, body: &RawValue) -> bool {
        let key = JobKey::new(self.record.key.tenant.clone(), self.job(launch));
        let submission = Submission {
            key: &key,
            lane: Lane::Batch,
            endpoint: self.record.batch.order.endpoint,
            body,
            deadline: Some(self.record.batch.times.expires),
            traceparent: None,
        };
        let published = self.parts.door.submit(submission).await;
        if let Err(error) = &published {
            tracing::debug!(job = %key, %error, "a line of a batch is published later");
        }
        published.is_ok()
    }

    /// Cancels what is under way, and takes in what was answered all the same.
    async fn call_off(&mut self, flight: &mut Flight, places: &[Place]) -> Result<(), Stopped> {
        let cancel = flight.aloft().map(async |launch| {
            let key = JobKey::new(self.record.key.tenant.clone(), self.job(launch));
            self.parts.door.cancel(&key).await
        });
        for cancelled in join_all(cancel).await {
            if let Err(error) = cancelled {
                tracing::debug!(%error, "a line of a batch is not cancelled; its answer is for nobody");
            }
        }
        self.collect(flight, places).await.map(|_| ())
    }
}

pub(super) fn unix_millis() -> UnixMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(now.as_millis()).unwrap_or(UnixMillis::MAX)
}
