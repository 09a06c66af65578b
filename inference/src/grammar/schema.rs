//! What of JSON schema is enforced, and how a schema is narrowed before it is compiled.

use std::fmt;

use serde_json::{Map, Value, json};

use super::formats::{Format, format};
use super::numbers;

/// Longest schema, in bytes of JSON text.
pub const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Most values in a schema, those behind inlined references included; long texts count for several.
pub const MAX_SCHEMA_NODES: usize = 10_000;
/// Deepest nesting of schemas.
pub const MAX_SCHEMA_DEPTH: usize = 64;
/// Longest string and array that a bound is kept for; a larger upper bound is lowered to it, which follows the schema.
const LARGEST_COUNT: u64 = 65_536;

/// Annotations: they say nothing about what is valid (JSON Schema 2020-12 validation, sections 8 and 9, and OpenAPI's
/// own). What begins with `x-` is one too.
const ANNOTATIONS: [&str; 21] = [
    "$anchor",
    "$comment",
    "$schema",
    "$vocabulary",
    "$dynamicAnchor",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "deprecated",
    "description",
    "discriminator",
    "example",
    "examples",
    "externalDocs",
    "readOnly",
    "title",
    "writeOnly",
    "xml",
    "markdownDescription",
    "enumDescriptions",
];

/// Why a schema cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// A JSON pointer to the schema (RFC 6901), empty for the root.
    at: String,
    keyword: String,
    reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the schema at {:?}: {}: {}", self.at, self.keyword, self.reason)
    }
}

type Keywords = Map<String, Value>;

/// The schema without annotations, with bounds where it leaves numbers, formats and objects open.
///
/// # Errors
/// What cannot be enforced.
pub(super) fn narrow(schema: &Value) -> Result<Value, Refusal> {
    let mut narrower = Narrower {
        root: schema,
        at: String::new(),
        nodes: 0,
        depth: 0,
        composed: composes(schema, 0),
        steps: 0,
        any: any_name(schema),
        uses_any: false,
    };
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(narrower.refusal("schema", format!("is longer than {MAX_SCHEMA_BYTES} bytes")));
    }
    let mut narrowed = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(_) => schema.clone(),
        _ => return Err(narrower.refusal("schema", "must be an object")),
    };
    narrowed = narrower.schema(&narrowed)?;
    if narrower.uses_any
        && let Value::Object(keywords) = &mut narrowed
    {
        let any = anything(&narrower.any);
        let definitions = keywords.entry("$defs").or_insert_with(|| json!({}));
        if let Value::Object(definitions) = definitions {
            definitions.insert(narrower.any, any);
        }
    }
    Ok(narrowed)
}

/// Any value, with numbers that every reader can read.
fn anything(name: &str) -> Value {
    let itself = json!({"$ref": format!("#/$defs/{name}")});
    let mut number = Map::from_iter([("type".to_owned(), json!("number"))]);
    // Without a bound of the caller's there is nothing that could be wrong.
    let _ = numbers::narrow(&mut number, false);
    json!({"anyOf": [
        {"type": ["string", "boolean", "null"]},
        number,
        {"type": "array", "items": itself},
        {"type": "object", "additionalProperties": itself},
    ]})
}

/// A name that the schema's own definitions do not have.
fn any_name(schema: &Value) -> String {
    let mut name = "anything".to_owned();
    while schema.get("$defs").is_some_and(|definitions| definitions.get(&name).is_some()) {
        name.push('_');
    }
    name
}

/// Whether schemas are put together such that one part must not forbid what another one lists.
fn composes(value: &Value, depth: usize) -> bool {
    let beside =
        ["properties", "patternProperties", "additionalProperties", "required", "items", "prefixItems"];
    match value {
        Value::Object(keywords) => {
            let applies = ["anyOf", "oneOf", "$ref"].iter().any(|name| keywords.contains_key(*name));
            keywords.contains_key("allOf")
                || (applies && beside.iter().any(|name| keywords.contains_key(*name)))
                || depth >= MAX_SCHEMA_DEPTH
                || keywords.values().any(|value| composes(value, depth + 1))
        }
        Value::Array(items) => items.iter().any(|value| composes(value, depth + 1)),
        _ => false,
    }
}

struct Narrower<'a> {
    root: &'a Value,
    /// Where we are.
    at: String,
    nodes: usize,
    depth: usize,
    /// See [`composes`].
    composed: bool,
    /// Uses of `multipleOf` in a schema that composes.
    steps: usize,
    /// The definition of any value, and whether it is needed.
    any: String,
    uses_any: bool,
}

impl Narrower<'_> {
    fn refusal(&self, keyword: &str, reason: impl Into<String>) -> Refusal {
        Refusal { at: self.at.clone(), keyword: keyword.to_owned(), reason: reason.into() }
    }

    /// A schema inside another, below this path.
    fn below(&mut self, path: &str, schema: &Value) -> Result<Value, Refusal> {
        let length = self.at.len();
        self.at.push('/');
        self.at.push_str(&path.replace('~', "~0"));
        let narrowed = self.schema(schema);
        if narrowed.is_ok() {
            self.at.truncate(length);
        }
        narrowed
    }

    fn schema(&mut self, schema: &Value) -> Result<Value, Refusal> {
        self.nodes += 1;
        if self.nodes > MAX_SCHEMA_NODES || self.depth > MAX_SCHEMA_DEPTH {
            return Err(self.refusal("schema", "is too large or too deep"));
        }
        match schema {
            Value::Bool(true) => Ok(self.any()),
            Value::Bool(false) => Ok(Value::Bool(false)),
            Value::Object(keywords) => {
                self.depth += 1;
                let narrowed = self.keywords(keywords);
                self.depth -= 1;
                narrowed
            }
            _ => Err(self.refusal("schema", "must be an object or a boolean")),
        }
    }

    /// Any value. Where schemas are put together it must stay neutral.
    fn any(&mut self) -> Value {
        if self.composed {
            return json!({});
        }
        self.uses_any = true;
        json!({"$ref": format!("#/$defs/{}", self.any)})
    }

    fn keywords(&mut self, keywords: &Keywords) -> Result<Value, Refusal> {
        let mut narrowed = Map::new();
        for (name, value) in keywords {
            if !ANNOTATIONS.contains(&name.as_str()) && !name.starts_with("x-") {
                self.keyword(keywords, name, value, &mut narrowed)?;
            }
        }
        // Definitions alone say nothing.
        if narrowed.keys().all(|name| name == "$defs" || name == "definitions") {
            if let Value::Object(any) = self.any() {
                narrowed.extend(any);
            }
            return Ok(Value::Object(narrowed));
        }
        self.numbers(&mut narrowed)?;
        if self.composed {
            // Put together, steps would be multiplied beyond what the parser can count.
            if keywords.contains_key("multipleOf") {
                self.steps += 1;
            } else {
                narrowed.remove("multipleOf");
            }
            if self.steps > 1 {
                return Err(self.refusal("multipleOf", "is supported once where schemas are put together"));
            }
        }
        self.object(&mut narrowed)?;
        if !self.composed && has_type(&narrowed, "array") && !narrowed.contains_key("items") {
            narrowed.insert("items".to_owned(), self.any());
        }
        Ok(Value::Object(narrowed))
    }

    /// Takes one keyword over.
    fn keyword(
        &mut self,
        all: &Keywords,
        name: &str,
        value: &Value,
        into: &mut Keywords,
    ) -> Result<(), Refusal> {
        let narrowed = match name {
            "$defs" | "definitions" | "properties" | "patternProperties" => self.map(name, value)?,
            "additionalProperties" | "additionalItems" => self.below(name, value)?,
            "items" if value.is_array() => self.list(name, value)?,
            "items" => self.below(name, value)?,
            "prefixItems" | "anyOf" | "allOf" => self.list(name, value)?,
            "oneOf" => self.alternatives(value)?,
            "type" | "required" | "pattern" | "multipleOf" | "minimum" | "maximum" | "exclusiveMinimum"
            | "exclusiveMaximum" => {
                self.count_values(name, value)?;
                value.clone()
            }
            "$ref" => self.reference(value)?,
            "const" | "enum" => self.constant(name, value)?,
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                self.count(name, value)?
            }
            "format" => return self.format(all, value, into),
            "uniqueItems" if *value == Value::Bool(false) => return Ok(()),
            "nullable" if *value == Value::Bool(false) => return Ok(()),
            "$id" | "id" if self.depth == 1 && value.is_string() => return Ok(()),
            _ => return Err(self.refusal(name, "the keyword is not supported")),
        };
        into.insert(name.to_owned(), narrowed);
        Ok(())
    }

    fn map(&mut self, name: &str, value: &Value) -> Result<Value, Refusal> {
        let Value::Object(schemas) = value else { return Err(self.refusal(name, "must be an object")) };
        let mut narrowed = Map::new();
        for (key, schema) in schemas {
            self.nodes += long(key);
            narrowed.insert(key.clone(), self.below(&format!("{name}/{key}"), schema)?);
        }
        Ok(Value::Object(narrowed))
    }

    fn list(&mut self, name: &str, value: &Value) -> Result<Value, Refusal> {
        let Value::Array(schemas) = value else { return Err(self.refusal(name, "must be an array")) };
        let narrowed = schemas.iter().enumerate();
        narrowed.map(|(index, schema)| self.below(&format!("{name}/{index}"), schema)).collect()
    }

    /// The parser must see that alternatives exclude each other, which it cannot through a reference.
    fn alternatives(&mut self, value: &Value) -> Result<Value, Refusal> {
        let Value::Array(schemas) = value else { return Err(self.refusal("oneOf", "must be an array")) };
        let root = self.root;
        let resolve = |schema: &Value| {
            let path = schema.as_object().filter(|keywords| keywords.len() == 1)?.get("$ref")?.as_str()?;
            root.pointer(path.strip_prefix('#')?)
        };
        // One at a time: what a reference leads to may be the whole schema again, and refused for its size.
        let narrowed = schemas
            .iter()
            .enumerate()
            .map(|(index, schema)| self.below(&format!("oneOf/{index}"), resolve(schema).unwrap_or(schema)));
        narrowed.collect()
    }

    fn reference(&self, value: &Value) -> Result<Value, Refusal> {
        let target = value.as_str().and_then(|path| path.strip_prefix('#'));
        match target.filter(|path| path.is_empty() || path.starts_with('/')) {
            Some(path) if self.root.pointer(path).is_some() => Ok(value.clone()),
            _ => Err(self.refusal("$ref", "must lead to a place in this schema, such as #/$defs/name")),
        }
    }

    fn constant(&mut self, name: &str, value: &Value) -> Result<Value, Refusal> {
        self.count_values(name, value)?;
        match numbers::is_exact(value) {
            true => Ok(value.clone()),
            false => Err(self.refusal(name, "holds a number beyond 2^53 or closer to 0 than 1e-8")),
        }
    }

    /// Counts what a keyword holds like schemas: references multiply it as well.
    fn count_values(&mut self, name: &str, value: &Value) -> Result<(), Refusal> {
        self.nodes += values(value);
        if self.nodes > MAX_SCHEMA_NODES {
            return Err(self.refusal(name, format!("the schema has more than {MAX_SCHEMA_NODES} values")));
        }
        Ok(())
    }

    fn count(&self, name: &str, value: &Value) -> Result<Value, Refusal> {
        match value.as_u64() {
            Some(count) if count <= LARGEST_COUNT => Ok(value.clone()),
            Some(_) if name.starts_with("max") => Ok(json!(LARGEST_COUNT)),
            _ => Err(self.refusal(name, format!("must be a whole number from 0 to {LARGEST_COUNT}"))),
        }
    }

    fn format(&self, all: &Keywords, value: &Value, into: &mut Keywords) -> Result<(), Refusal> {
        let Some(name) = value.as_str() else { return Err(self.refusal("format", "must be a string")) };
        // Formats are about strings; OpenAPI's `int32` and the like are annotations of numbers.
        if all.contains_key("type") && !has_type(all, "string") {
            return Ok(());
        }
        match format(name) {
            Format::Known => {
                into.insert("format".to_owned(), value.clone());
            }
            Format::Pattern(_) if all.contains_key("pattern") => {
                return Err(self.refusal("format", format!("{name:?} beside a pattern is not supported")));
            }
            Format::Pattern(pattern) => {
                into.insert("pattern".to_owned(), json!(pattern));
            }
            Format::Unknown => return Err(self.refusal("format", format!("{name:?} is not supported"))),
        }
        Ok(())
    }

    fn numbers(&mut self, keywords: &mut Keywords) -> Result<(), Refusal> {
        let (number, integer) = (has_type(keywords, "number"), has_type(keywords, "integer"));
        let restricted = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
        let fixed = keywords.contains_key("const") || keywords.contains_key("enum");
        let named = restricted.iter().any(|name| keywords.contains_key(*name));
        if (number || integer || named) && !fixed {
            numbers::narrow(keywords, integer && !number)
                .map_err(|(keyword, reason)| self.refusal(keyword, reason))?;
        }
        Ok(())
    }

    fn object(&mut self, keywords: &mut Keywords) -> Result<(), Refusal> {
        let lists = keywords.contains_key("properties") || keywords.contains_key("patternProperties");
        let has = |name: &str| keywords.get("properties").is_some_and(|listed| listed.get(name).is_some());
        let required = keywords.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let covered = required.iter().all(|name| name.as_str().is_some_and(has));
        let count = required.len() as u64;
        if !self.composed && !keywords.contains_key("additionalProperties") {
            if lists && covered {
                keywords.insert("additionalProperties".to_owned(), Value::Bool(false));
            } else if has_type(keywords, "object") {
                keywords.insert("additionalProperties".to_owned(), self.any());
            }
        }
        // A name may be generated twice and counts once, so only names that are listed can be counted.
        let closed = keywords.get("additionalProperties") == Some(&Value::Bool(false));
        let open = !closed || keywords.contains_key("patternProperties");
        match keywords.get("minProperties").and_then(Value::as_u64) {
            Some(least) if least > count && open => {
                Err(self.refusal("minProperties", "is supported only where all properties are listed"))
            }
            _ => Ok(()),
        }
    }
}

/// The number of values in a value, itself included.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| long(name) + values(value)).sum(),
        Value::String(text) => long(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// For how many values more than one a text counts.
fn long(text: &str) -> usize {
    text.len() / 64
}

/// Whether a schema names this type.
fn has_type(keywords: &Keywords, wanted: &str) -> bool {
    match keywords.get("type") {
        Some(Value::String(name)) => name == wanted,
        Some(Value::Array(names)) => names.iter().any(|name| name == wanted),
        _ => false,
    }
}
