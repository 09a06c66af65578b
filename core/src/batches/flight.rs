//! Which line is published next, how many at once, and what becomes of one that failed.
//!
//! A bounded number of lines is under way. It grows by one with each answer and is halved by each failure that
//! may pass, as a sender feels for a path's capacity (Jacobson, "Congestion avoidance and control", 1988), so a
//! batch neither floods a service that is slow nor goes through all its lines while nothing answers. A line
//! that failed so is tried again, later each time. While nothing at all is answered, that is nobody's fault but
//! the service's, and goes on until the batch's end; but a line that failed three times while others were
//! answered is given up.

use std::collections::BTreeMap;

use crate::jobs::UnixMillis;

/// Lines under way at the beginning, and at most.
const FIRST_WINDOW: usize = 16;
const WIDEST: usize = 64;

/// How often a line may fail while others are answered.
const MOST_FAULTS: u32 = 3;

/// The wait before a second attempt, doubled before each further one, and the longest.
const FIRST_WAIT: UnixMillis = 5_000;
const LONGEST_WAIT: UnixMillis = 10 * 60_000;

/// A line that has been silent for so long, longer than any job may run, is published once more under the same
/// identity: where it was not lost, that costs nothing.
const SILENCE: UnixMillis = 20 * 60_000;

/// What a reply means for its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Succeeded,
    /// It is answered with an error that would come again.
    Failed,
    /// It failed of what may pass.
    Passing,
}

impl Verdict {
    /// By the reply's HTTP status.
    pub fn of_status(status: u16) -> Self {
        match status {
            0..300 => Verdict::Succeeded,
            429 | 500 | 502 | 503 | 504 => Verdict::Passing,
            _ => Verdict::Failed,
        }
    }
}

/// What is remembered of a line that failed and will be tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number of its next attempt, from 1.
    pub attempt: u32,
    /// How often it failed while others were answered.
    pub faults: u32,
    /// When it is tried again.
    pub not_before: UnixMillis,
}

/// A line to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The line, from 0.
    pub line: u32,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// It is over; whether it succeeded.
    Over(bool),
    /// It is tried again.
    Again(Mark),
    /// It was not under way.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Aloft {
    attempt: u32,
    faults: u32,
    since: UnixMillis,
    /// Answers to others before it was published.
    answers: u64,
}

/// All lines of a batch.
#[derive(Clone, Debug)]
pub struct Flight {
    over: Vec<bool>,
    left: u32,
    /// The first line that may not have been published yet.
    next: u32,
    aloft: BTreeMap<u32, Aloft>,
    again: BTreeMap<u32, Mark>,
    window: usize,
    answers: u64,
}

impl Flight {
    /// So many lines, none of them published.
    pub fn new(lines: u32) -> Self {
        Self {
            over: vec![false; lines as usize],
            left: lines,
            next: 0,
            aloft: BTreeMap::new(),
            again: BTreeMap::new(),
            window: FIRST_WINDOW,
            answers: 0,
        }
    }

    /// A line was over before.
    pub fn recall_over(&mut self, line: u32) {
        if let Some(over) = self.over.get_mut(line as usize)
            && !std::mem::replace(over, true)
        {
            self.left -= 1;
            self.again.remove(&line);
        }
    }

    /// A line had failed before.
    pub fn recall_mark(&mut self, line: u32, mark: Mark) {
        if self.is_open(line) {
            self.again.insert(line, mark);
        }
    }

    /// A line was published before, and its job is known.
    pub fn recall_aloft(&mut self, line: u32, now: UnixMillis) {
        if self.is_open(line) && !self.aloft.contains_key(&line) {
            let mark = self.again.remove(&line).unwrap_or(Mark { attempt: 1, ..Mark::default() });
            self.take_off(line, mark, now);
        }
    }

    /// The next attempt of a line that is neither over nor under way.
    pub fn next_attempt(&self, line: u32) -> Option<u32> {
        let waits = self.is_open(line) && !self.aloft.contains_key(&line);
        waits.then(|| self.again.get(&line).map_or(1, |mark| mark.attempt))
    }

    /// The next line to publish, if one may be now. It is under way from then on.
    pub fn launch(&mut self, now: UnixMillis) -> Option<Launch> {
        let silent = self.aloft.iter_mut().find(|(_, aloft)| aloft.since <= now - SILENCE);
        if let Some((line, aloft)) = silent {
            aloft.since = now;
            return Some(Launch { line: *line, attempt: aloft.attempt });
        }
        if self.aloft.len() >= self.window {
            return None;
        }
        let due = self.again.iter().find(|(_, mark)| mark.not_before <= now).map(|(line, _)| *line);
        let line = due.or_else(|| self.fresh())?;
        let mark = self.again.remove(&line).unwrap_or(Mark { attempt: 1, ..Mark::default() });
        self.take_off(line, mark, now);
        Some(Launch { line, attempt: mark.attempt })
    }

    /// A line that could not be published waits for another time.
    pub fn returned(&mut self, line: u32, not_before: UnixMillis) {
        if let Some(Aloft { attempt, faults, .. }) = self.aloft.remove(&line) {
            self.again.insert(line, Mark { attempt, faults, not_before });
        }
    }

    /// A reply has come.
    pub fn land(&mut self, line: u32, verdict: Verdict, now: UnixMillis) -> Landed {
        let Some(aloft) = self.aloft.remove(&line) else { return Landed::Unknown };
        if verdict != Verdict::Passing {
            self.window = (self.window + 1).min(WIDEST);
            self.answers += 1;
            self.recall_over(line);
            return Landed::Over(verdict == Verdict::Succeeded);
        }
        self.window = (self.window / 2).max(1);
        let faults = aloft.faults + u32::from(self.answers > aloft.answers);
        if faults >= MOST_FAULTS {
            self.recall_over(line);
            return Landed::Over(false);
        }
        let doublings = aloft.attempt.saturating_sub(1).min(16);
        let wait = (FIRST_WAIT << doublings).min(LONGEST_WAIT);
        let mark = Mark { attempt: aloft.attempt.saturating_add(1), faults, not_before: now + wait };
        self.again.insert(line, mark);
        Landed::Again(mark)
    }

    /// The lines under way, with their attempts.
    pub fn aloft(&self) -> impl Iterator<Item = Launch> + '_ {
        self.aloft.iter().map(|(line, aloft)| Launch { line: *line, attempt: aloft.attempt })
    }

    /// Whether every line is over.
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    fn is_open(&self, line: u32) -> bool {
        self.over.get(line as usize) == Some(&false)
    }

    fn take_off(&mut self, line: u32, mark: Mark, now: UnixMillis) {
        let Mark { attempt, faults, .. } = mark;
        self.aloft.insert(line, Aloft { attempt, faults, since: now, answers: self.answers });
    }

    /// The first line that nothing has happened to.
    fn fresh(&mut self) -> Option<u32> {
        while (self.next as usize) < self.over.len() {
            let line = self.next;
            self.next += 1;
            if self.is_open(line) && !self.again.contains_key(&line) && !self.aloft.contains_key(&line) {
                return Some(line);
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
