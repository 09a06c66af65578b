//! From a file's bytes to requests, or what is wrong with which line.
//!
//! A line is `{"custom_id", "method": "POST", "url", "body"}`, as the dialect has it; empty lines count as lines
//! and are nothing else. The file comes in pieces of any size; what is kept of a request is where it lies. Bodies
//! are not looked into: one that its route refuses is answered like every other.

use std::collections::{BTreeMap, HashSet};

use serde_json::value::RawValue;

use super::batch::LineFault;
use crate::jobs::{Endpoint, message};

/// Most requests of a batch.
pub const MOST: usize = 50_000;

/// Longest name that a request may have, in bytes.
pub const LONGEST_NAME: usize = 512;

/// Most bytes of a body: with its endpoint it must fit into a job's message.
const LONGEST_BODY: usize = message::MAX_BYTES - 64;

/// Most bytes of a line: a body, and what else it may say.
const LONGEST_LINE: usize = message::MAX_BYTES + 8 * 1024;

/// Most faults that are told.
const MOST_FAULTS: usize = 100;

/// Where a request lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first byte of its line.
    pub offset: u64,
    /// The bytes of its line.
    pub length: u32,
    /// What its sender knows it by.
    pub custom_id: Box<str>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What its sender knows it by.
    pub custom_id: String,
    /// What its route takes.
    pub body: &'a RawValue,
}

/// Reads a file.
#[derive(Debug)]
pub struct Reader {
    endpoint: Endpoint,
    /// The current line as far as it has come.
    line: Vec<u8>,
    /// Whether the current line is longer than any may be; the rest of it is passed over.
    is_too_long: bool,
    /// Where the current line begins.
    offset: u64,
    /// Bytes read.
    read: u64,
    /// The current line's number, from 1.
    number: u32,
    places: Vec<Place>,
    names: HashSet<Box<str>>,
    faults: Vec<LineFault>,
    /// Whether there are more requests than there may be.
    is_full: bool,
}

impl Reader {
    /// A reader of a file whose lines all ask this.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            line: Vec::new(),
            is_too_long: false,
            offset: 0,
            read: 0,
            number: 1,
            places: Vec::new(),
            names: HashSet::new(),
            faults: Vec::new(),
            is_full: false,
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.extend(&rest[..end]);
            self.read += 1;
            self.end_line();
            rest = &rest[end + 1..];
        }
        self.extend(rest);
    }

    /// Whether reading on would tell nothing more.
    pub fn is_hopeless(&self) -> bool {
        self.is_full || self.faults.len() >= MOST_FAULTS
    }

    /// The file has come to its end: where its requests lie.
    ///
    /// # Errors
    /// What is wrong with it, line by line.
    pub fn finish(mut self) -> Result<Vec<Place>, Vec<LineFault>> {
        if !self.line.is_empty() || self.is_too_long {
            self.end_line();
        }
        if self.places.is_empty() && self.faults.is_empty() {
            let message = "The input file has no requests.".to_owned();
            self.faults.push(LineFault { code: "empty_file".to_owned(), message, param: None, line: None });
        }
        if self.faults.is_empty() { Ok(self.places) } else { Err(self.faults) }
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        if self.is_too_long || self.line.len() + bytes.len() > LONGEST_LINE {
            self.is_too_long = true;
            self.line.clear();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_too_long) {
            self.fault("request_too_large", None, format!("The line is longer than {LONGEST_LINE} bytes."));
        } else if !line.trim_ascii().is_empty() {
            self.request(&line);
        }
        self.line = line;
        self.line.clear();
        self.offset = self.read;
        self.number = self.number.saturating_add(1);
    }

    fn request(&mut self, line: &[u8]) {
        if self.places.len() >= MOST {
            self.fault("too_many_requests", None, format!("A batch has at most {MOST} requests."));
            self.is_full = true;
            return;
        }
        match parse(self.endpoint, line) {
            Ok(Request { custom_id, .. }) => {
                let custom_id = custom_id.into_boxed_str();
                if self.names.insert(custom_id.clone()) {
                    let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
                    self.places.push(Place { offset: self.offset, length, custom_id });
                } else {
                    let message = format!("The custom_id '{}' is that of a line before.", shown(&custom_id));
                    self.fault("duplicate_custom_id", Some("custom_id"), message);
                }
            }
            Err(Wrong { code, param, message }) => self.fault(code, param, message),
        }
    }

    fn fault(&mut self, code: &str, param: Option<&str>, message: String) {
        if !self.is_hopeless() {
            let (code, param) = (code.to_owned(), param.map(str::to_owned));
            self.faults.push(LineFault { code, message, param, line: Some(self.number) });
        }
    }
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// For a program.
    pub code: &'static str,
    /// The field.
    pub param: Option<&'static str>,
    /// For a person.
    pub message: String,
}

/// Reads one line.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(endpoint: Endpoint, line: &[u8]) -> Result<Request<'_>, Wrong> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(line).map_err(|error| {
        wrong("invalid_json_line", None, format!("The line is not a JSON object: {error}."))
    })?;
    let custom_id = text(&mut fields, "custom_id")?;
    if custom_id.is_empty() || custom_id.len() > LONGEST_NAME {
        let message = format!("The custom_id must have 1 to {LONGEST_NAME} bytes.");
        return Err(wrong("invalid_value", Some("custom_id"), message));
    }
    if text(&mut fields, "method")? != "POST" {
        return Err(wrong("invalid_method", Some("method"), "The method must be POST.".to_owned()));
    }
    if text(&mut fields, "url")? != endpoint.as_str() {
        let message = format!("The url must be the batch's endpoint, {}.", endpoint.as_str());
        return Err(wrong("mismatched_url", Some("url"), message));
    }
    let body = required(&mut fields, "body")?;
    if !body.get().starts_with('{') {
        return Err(wrong("invalid_value", Some("body"), "The body must be an object.".to_owned()));
    }
    if body.get().len() > LONGEST_BODY {
        let message = format!("The body is larger than {LONGEST_BODY} bytes.");
        return Err(wrong("request_too_large", Some("body"), message));
    }
    match fields.into_keys().next() {
        Some(unknown) => {
            let message = format!("The field '{}' is not known.", shown(&unknown));
            Err(wrong("unknown_parameter", None, message))
        }
        None => Ok(Request { custom_id, body }),
    }
}

fn required<'a>(
    fields: &mut BTreeMap<String, &'a RawValue>,
    name: &'static str,
) -> Result<&'a RawValue, Wrong> {
    let found = fields.remove(name).filter(|value| value.get() != "null");
    found.ok_or_else(|| wrong("missing_required_parameter", Some(name), format!("The line has no '{name}'.")))
}

fn text(fields: &mut BTreeMap<String, &RawValue>, name: &'static str) -> Result<String, Wrong> {
    serde_json::from_str(required(fields, name)?.get())
        .map_err(|_| wrong("invalid_value", Some(name), format!("'{name}' must be a text.")))
}

fn wrong(code: &'static str, param: Option<&'static str>, message: String) -> Wrong {
    Wrong { code, param, message }
}

/// A sender's own text, short and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
