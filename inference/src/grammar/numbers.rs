//! Numbers that every reader of JSON reads as they were meant.

use serde_json::{Map, Value, json};

/// 2^53: up to here a double holds every whole number (RFC 8259, section 6).
const LARGEST: f64 = 9_007_199_254_740_992.0;
/// The smallest distance from zero, and the step of the decimals. The parser counts in 32 bits, which hold nine times
/// ten to the eighth and no more.
const SMALLEST: f64 = 1e-8;
/// The largest step, in units of its last decimal, for the same reason.
const LARGEST_STEP: f64 = 100_000_000.0;

/// Gives a number schema bounds on both sides that are part of the range, and a bounded number of decimals.
///
/// # Errors
/// The keyword and what is wrong with it.
pub(super) fn narrow(keywords: &mut Map<String, Value>, integer: bool) -> Result<(), (&'static str, String)> {
    let least = lower(keywords)?;
    let most = upper(keywords)?;
    let whole = LARGEST - 1.0;
    for name in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
        keywords.remove(name);
    }
    let low = least.map_or(-whole, |bound| bound.inside(integer, 1.0));
    let high = most.map_or(whole, |bound| bound.inside(integer, -1.0));
    if low > high {
        return Err(("minimum", "leaves no number below the maximum".to_owned()));
    }
    keywords.insert("minimum".to_owned(), number(low));
    keywords.insert("maximum".to_owned(), number(high));
    match keywords.get("multipleOf").map(Value::as_f64) {
        None if integer => {}
        None => {
            keywords.insert("multipleOf".to_owned(), json!(SMALLEST));
        }
        Some(Some(step)) if is_step(step) => {}
        Some(_) => {
            let reason = "must be a number above 0 of at most eight digits, eight of them decimals";
            return Err(("multipleOf", reason.to_owned()));
        }
    }
    Ok(())
}

/// Whether the parser can count in this step.
fn is_step(step: f64) -> bool {
    let mut scaled = step;
    let mut decimals = 0;
    while scaled.fract() != 0.0 && decimals <= 8 {
        scaled *= 10.0;
        decimals += 1;
    }
    decimals <= 8 && (1.0..=LARGEST_STEP).contains(&scaled)
}

/// Whole numbers are written without a fraction: `5`, never `5.0`.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

struct Bound {
    value: f64,
    exclusive: bool,
}

impl Bound {
    /// The bound as one that belongs to the range; `inward` is 1 for a lower bound and -1 for an upper one.
    ///
    /// A number just inside an exclusive bound could be rounded onto it by whoever reads it as a double, so the
    /// range ends a little before.
    fn inside(&self, integer: bool, inward: f64) -> f64 {
        if integer {
            let rounded = if inward > 0.0 { self.value.ceil() } else { self.value.floor() };
            let step = if self.exclusive && rounded == self.value { inward } else { 0.0 };
            return rounded + step;
        }
        let step = SMALLEST.max(self.value.abs() * 1e-12);
        if self.exclusive { self.value + inward * step } else { self.value }
    }
}

fn lower(keywords: &Map<String, Value>) -> Result<Option<Bound>, (&'static str, String)> {
    let plain = bound(keywords, "minimum")?;
    Ok(strictest(plain, keywords, "exclusiveMinimum")?
        .into_iter()
        .reduce(|a, b| if b.value >= a.value { b } else { a }))
}

fn upper(keywords: &Map<String, Value>) -> Result<Option<Bound>, (&'static str, String)> {
    let plain = bound(keywords, "maximum")?;
    Ok(strictest(plain, keywords, "exclusiveMaximum")?
        .into_iter()
        .reduce(|a, b| if b.value <= a.value { b } else { a }))
}

/// The plain bound, then the exclusive one. Draft 4 writes `true` for "the plain one is exclusive".
fn strictest(
    plain: Option<f64>,
    keywords: &Map<String, Value>,
    exclusive: &'static str,
) -> Result<Vec<Bound>, (&'static str, String)> {
    let mut bounds: Vec<Bound> = plain.map(|value| Bound { value, exclusive: false }).into_iter().collect();
    match keywords.get(exclusive) {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => bounds.iter_mut().for_each(|bound| bound.exclusive = true),
        Some(_) => bounds.extend(bound(keywords, exclusive)?.map(|value| Bound { value, exclusive: true })),
    }
    Ok(bounds)
}

fn bound(keywords: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, (&'static str, String)> {
    let Some(value) = keywords.get(name) else { return Ok(None) };
    let in_range = |x: &f64| *x == 0.0 || (SMALLEST..=LARGEST).contains(&x.abs());
    match value.as_f64().filter(in_range) {
        Some(value) => Ok(Some(value)),
        None => Err((name, "must be a number of at most 2^53 and, but for 0, at least 1e-8".to_owned())),
    }
}

/// Whether a value of `const` or `enum` holds only numbers that a double holds exactly enough.
pub(super) fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.as_f64().is_some_and(|x| x == 0.0 || (SMALLEST..=LARGEST).contains(&x.abs()))
        }
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}
