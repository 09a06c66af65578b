//! What a scripted backend does, as configuration says it.

use std::time::Duration;

use opossum_core::class::FailureClass;
use serde::{Deserialize, Deserializer};

/// What a scripted backend answers and how it fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FakeScript {
    /// The models it claims to have.
    pub models: Vec<String>,
    /// The answer; `{prompt}` in it stands for the last user's text.
    pub answer: String,
    /// Milliseconds before the first piece of every answer.
    pub first_delay_ms: u64,
    /// Milliseconds before every further piece of a streamed answer.
    pub piece_delay_ms: u64,
    /// What the calls do, one step each, in order of their arrival.
    pub steps: Vec<Step>,
    /// What follows the last step.
    pub then: Then,
}

impl Default for FakeScript {
    fn default() -> Self {
        Self {
            models: vec!["fake".to_owned()],
            answer: "This is a scripted answer to: {prompt}".to_owned(),
            first_delay_ms: 0,
            piece_delay_ms: 0,
            steps: Vec::new(),
            then: Then::default(),
        }
    }
}

/// What follows the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Good answers.
    #[default]
    Answer,
    /// The last step again and again.
    RepeatLast,
    /// The first step again.
    Cycle,
}

/// What one call does. An empty step is a good answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Fails with this class, by its label (`server_error`).
    #[serde(deserialize_with = "class_by_label")]
    pub fail: Option<FailureClass>,
    /// Fails as limited and asks for so many seconds; with `fail`, adds the wait to it.
    pub retry_after_s: Option<u64>,
    /// Falls silent after so many pieces.
    pub stall_after: Option<usize>,
    /// Breaks off after so many pieces.
    pub cut_after: Option<usize>,
    /// Answers this instead.
    pub answer: Option<String>,
    /// Milliseconds before the first piece, instead of the script's.
    pub delay_ms: Option<u64>,
}

impl Step {
    /// A step that fails.
    pub fn fail(class: FailureClass) -> Self {
        Self { fail: Some(class), ..Self::default() }
    }

    /// The failure that this step is, with the wait it asks for.
    pub(super) fn failure(&self) -> Option<(FailureClass, Option<Duration>)> {
        let wait = self.retry_after_s.map(Duration::from_secs);
        let class = self.fail.or(wait.map(|_| FailureClass::RateLimited))?;
        Some((class, wait))
    }
}

impl FakeScript {
    /// The step of a call, the first having number 0.
    pub(super) fn step(&self, call: u64) -> Step {
        let count = self.steps.len() as u64;
        let place = match self.then {
            _ if call < count => call,
            Then::Cycle if count > 0 => call % count,
            Then::RepeatLast if count > 0 => count - 1,
            _ => return Step::default(),
        };
        usize::try_from(place).ok().and_then(|place| self.steps.get(place)).cloned().unwrap_or_default()
    }
}

fn class_by_label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<FailureClass>, D::Error> {
    let Some(label) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let class = FailureClass::ALL.into_iter().find(|class| class.label() == label);
    class.map(Some).ok_or_else(|| serde::de::Error::custom(format!("no failure class is called `{label}`")))
}
