//! Numbers and strings that steer the sampler, with their ranges.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use opossum_core::request::Params;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::{Checked, Fault};
use super::wire::{Field, Items, Key, RawField, Slot, Value, WireObject, wire_object};

/// Most stop strings.
const MAX_STOPS: usize = 16;
/// Longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 256;
/// Most choices.
const MAX_CHOICES: i128 = 16;

/// The fields that chat and completion share.
pub(super) struct Sampling<'de> {
    pub(super) temperature: Field<f64>,
    pub(super) top_p: Field<f64>,
    pub(super) top_k: Field<i128>,
    pub(super) max_tokens: Field<i128>,
    pub(super) max_completion_tokens: Field<i128>,
    pub(super) stop: Field<Stop>,
    pub(super) seed: Field<i128>,
    pub(super) n: Field<i128>,
    pub(super) presence_penalty: Field<f64>,
    pub(super) frequency_penalty: Field<f64>,
    pub(super) logit_bias: LogitBias<'de>,
}

impl Sampling<'_> {
    pub(super) fn check(self) -> Checked<Params> {
        let tokens = 1..=i128::from(i32::MAX);
        Ok(Params {
            temperature: float(self.temperature, "temperature", 0.0..=2.0)?,
            top_p: top_p(self.top_p)?,
            top_k: integer(self.top_k, "top_k", tokens.clone())?,
            max_tokens: one_limit(
                integer(self.max_tokens, "max_tokens", tokens.clone())?,
                integer(self.max_completion_tokens, "max_completion_tokens", tokens)?,
            )?,
            stop: self.stop.get("stop")?.map(|stop| stop.0).unwrap_or_default(),
            seed: integer(self.seed, "seed", i64::MIN.into()..=i64::MAX.into())?,
            n: integer(self.n, "n", 1..=MAX_CHOICES)?.unwrap_or(1),
            presence_penalty: float(self.presence_penalty, "presence_penalty", -2.0..=2.0)?,
            frequency_penalty: float(self.frequency_penalty, "frequency_penalty", -2.0..=2.0)?,
            logit_bias: self.logit_bias.check()?,
            ..Params::default()
        })
    }
}

fn float(field: Field<f64>, name: &str, range: RangeInclusive<f64>) -> Checked<Option<f32>> {
    match field.get(name)? {
        Some(value) if !range.contains(&value) => {
            let (low, high) = range.into_inner();
            Err(Fault::invalid(format!("expected a number from {low} to {high}.")).under(name))
        }
        value => Ok(value.map(|value| value as f32)),
    }
}

pub(super) fn integer<T: TryFrom<i128>>(
    field: Field<i128>,
    name: &str,
    range: RangeInclusive<i128>,
) -> Checked<Option<T>> {
    let Some(value) = field.get(name)? else { return Ok(None) };
    match T::try_from(value) {
        Ok(fitting) if range.contains(&value) => Ok(Some(fitting)),
        _ => {
            let (low, high) = range.into_inner();
            Err(Fault::invalid(format!("expected an integer from {low} to {high}.")).under(name))
        }
    }
}

/// A mass of 0 would leave no token to choose, so the range is open below. A mass too small for the sampler's
/// single precision becomes the smallest one above 0, which means the same: the best token only.
fn top_p(field: Field<f64>) -> Checked<Option<f32>> {
    match field.get("top_p")? {
        Some(mass) if !(mass > 0.0 && mass <= 1.0) => {
            Err(Fault::invalid("expected a number above 0 and up to 1.").under("top_p"))
        }
        mass => Ok(mass.map(|mass| (mass as f32).max(f32::MIN_POSITIVE))),
    }
}

/// `max_completion_tokens` is the newer name of `max_tokens`; both may be there if they agree.
fn one_limit(old: Option<u32>, new: Option<u32>) -> Checked<Option<u32>> {
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            let detail = "it differs from 'max_tokens'; send one of the two.";
            Err(Fault::invalid(detail).under("max_completion_tokens"))
        }
        (old, new) => Ok(new.or(old)),
    }
}

/// `logprobs` and `top_logprobs` of a chat.
pub(super) fn chat_logprobs(logprobs: Field<bool>, top: Field<i128>) -> Checked<Option<u8>> {
    let wanted = logprobs.get("logprobs")?.unwrap_or(false);
    match (wanted, integer(top, "top_logprobs", 0..=20)?) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Fault::invalid("it needs 'logprobs' to be true.").under("top_logprobs")),
    }
}

/// `logprobs` of a completion: a number, at most 5.
pub(super) fn completion_logprobs(field: Field<i128>) -> Checked<Option<u8>> {
    integer(field, "logprobs", 0..=5)
}

pub(super) fn reasoning_effort(field: Field<Cow<'_, str>>) -> Checked<Option<String>> {
    const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
    match field.get("reasoning_effort")? {
        Some(effort) if !EFFORTS.contains(&&*effort) => {
            let detail = "expected 'none', 'minimal', 'low', 'medium', 'high' or 'xhigh'.";
            Err(Fault::invalid(detail).under("reasoning_effort"))
        }
        effort => Ok(effort.map(Cow::into_owned)),
    }
}

/// `stop`: a string or an array of strings.
pub(super) struct Stop(Vec<String>);

impl Stop {
    fn check(stop: &str) -> Checked<()> {
        if stop.is_empty() {
            return Err(Fault::invalid("a stop string must not be empty."));
        }
        if stop.len() > MAX_STOP_BYTES {
            return Err(Fault::invalid(format!("a stop string may have at most {MAX_STOP_BYTES} bytes.")));
        }
        Ok(())
    }
}

impl<'de> Value<'de> for Stop {
    const EXPECTED: &'static str = "a string or an array of strings";

    fn text(text: Cow<'de, str>) -> Checked<Self> {
        Self::check(&text)?;
        Ok(Self(vec![text.into_owned()]))
    }

    fn list<A: SeqAccess<'de>>(seq: A) -> Result<Checked<Self>, A::Error> {
        let stops = <Items<String, MAX_STOPS>>::list(seq)?;
        Ok(stops.and_then(|Items(stops)| {
            for (index, stop) in stops.iter().enumerate() {
                Self::check(stop).map_err(|fault| fault.at(index))?;
            }
            Ok(Self(stops))
        }))
    }
}

/// `stream_options`.
#[derive(Debug)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
}

wire_object! {
    /// `stream_options` as it is sent.
    StreamOptionsBody {
        include_usage: "include_usage" => Field<bool>,
        include_obfuscation: "include_obfuscation" => Field<bool>,
    }
}

impl<'de> Value<'de> for StreamOptions {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        StreamOptionsBody::read(map).map(StreamOptionsBody::build)
    }
}

impl StreamOptionsBody<'_> {
    fn build(mut self) -> Checked<StreamOptions> {
        self.sound()?;
        if self.include_obfuscation.get("include_obfuscation")? == Some(true) {
            return Err(Fault::unsupported("Frames are not padded.").under("include_obfuscation"));
        }
        Ok(StreamOptions { include_usage: self.include_usage.get("include_usage")?.unwrap_or(false) })
    }
}

/// `logit_bias`: an object from token ids to biases, passed on as it was written.
#[derive(Default)]
pub(super) struct LogitBias<'de>(RawField<'de>);

impl Slot for LogitBias<'_> {
    fn is_absent(&self) -> bool {
        self.0.is_absent()
    }
}

impl<'de> Deserialize<'de> for LogitBias<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawField::deserialize(deserializer).map(Self)
    }
}

impl LogitBias<'_> {
    fn check(self) -> Checked<Option<Box<RawValue>>> {
        let Some(raw) = self.0.object("logit_bias", 1)? else { return Ok(None) };
        match serde_json::from_str::<Biases>(raw.get()) {
            Ok(Biases { any: false }) => Ok(None),
            Ok(Biases { any: true }) => Ok(Some(raw.to_owned())),
            Err(_) => {
                let detail = "expected an object from token ids to numbers from -100 to 100.";
                Err(Fault::invalid(detail).under("logit_bias"))
            }
        }
    }
}

/// Checks biases without keeping them.
struct Biases {
    any: bool,
}

impl<'de> Deserialize<'de> for Biases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BiasVisitor)
    }
}

struct BiasVisitor;

impl<'de> Visitor<'de> for BiasVisitor {
    type Value = Biases;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("token biases")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Biases, A::Error> {
        let mut any = false;
        while let Some((Key(token), bias)) = map.next_entry::<Key<'de>, f64>()? {
            if token.parse::<u32>().is_err() || !(-100.0..=100.0).contains(&bias) {
                return Err(A::Error::custom("not a bias"));
            }
            any = true;
        }
        Ok(Biases { any })
    }
}
