//! A validator for the part of JSON Schema that the document uses. Unknown keywords are a fault, so that
//! nothing goes unchecked.

use serde_json::Value;

type Verdict = Result<(), String>;

/// Says why `value` is not valid under `schema`, a part of `document`.
pub(super) fn validate(document: &Value, schema: &Value, value: &Value) -> Verdict {
    let keywords = schema.as_object().ok_or_else(|| format!("not a schema: {schema}"))?;
    for (keyword, rule) in keywords {
        check(document, keywords, keyword, rule, value).map_err(|why| format!("{keyword}: {why}"))?;
    }
    Ok(())
}

type Keywords = serde_json::Map<String, Value>;

fn check(document: &Value, all: &Keywords, keyword: &str, rule: &Value, value: &Value) -> Verdict {
    let must = |holds: bool| if holds { Ok(()) } else { Err(format!("{rule} does not hold for {value}")) };
    match keyword {
        "description" | "title" | "examples" | "default" | "format" | "propertyNames" => Ok(()),
        "$ref" => {
            let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).unwrap_or("none");
            let target = document.pointer(pointer).ok_or_else(|| format!("{rule} is not there"))?;
            validate(document, target, value)
        }
        "type" => must(match rule {
            Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
            kind => is(kind, value),
        }),
        "enum" => must(rule.as_array().is_some_and(|values| values.contains(value))),
        "oneOf" => {
            let schemas = rule.as_array().map(Vec::as_slice).unwrap_or_default();
            must(schemas.iter().filter(|schema| validate(document, schema, value).is_ok()).count() == 1)
        }
        "required" => {
            let names = rule.as_array().map(Vec::as_slice).unwrap_or_default();
            must(
                !value.is_object()
                    || names.iter().all(|name| value.get(name.as_str().unwrap_or("")).is_some()),
            )
        }
        "properties" => each(rule.as_object(), |name, schema| match value.get(name) {
            Some(value) => validate(document, schema, value).map_err(|why| format!("{name}: {why}")),
            None => Ok(()),
        }),
        "additionalProperties" => {
            let known = all.get("properties").and_then(Value::as_object);
            each(value.as_object(), |name, value| {
                match (known.is_some_and(|known| known.contains_key(name)), rule) {
                    (true, _) | (_, Value::Bool(true)) => Ok(()),
                    (false, Value::Bool(false)) => Err(format!("{name} is not known")),
                    (false, schema) => validate(document, schema, value),
                }
            })
        }
        "items" => value.as_array().into_iter().flatten().try_for_each(|item| validate(document, rule, item)),
        "minItems" => must(value.as_array().is_none_or(|items| items.len() as f64 >= number(rule))),
        "maxItems" => must(value.as_array().is_none_or(|items| items.len() as f64 <= number(rule))),
        "minLength" => must(value.as_str().is_none_or(|text| text.chars().count() as f64 >= number(rule))),
        "maxLength" => must(value.as_str().is_none_or(|text| text.chars().count() as f64 <= number(rule))),
        "minimum" => must(value.as_f64().is_none_or(|value| value >= number(rule))),
        "maximum" => must(value.as_f64().is_none_or(|value| value <= number(rule))),
        "exclusiveMinimum" => must(value.as_f64().is_none_or(|value| value > number(rule))),
        "pattern" => pattern(rule.as_str().unwrap_or(""), value),
        other => Err(format!("the keyword {other} is not known to this validator")),
    }
}

fn each<'v>(map: Option<&'v Keywords>, mut check: impl FnMut(&'v String, &'v Value) -> Verdict) -> Verdict {
    map.into_iter().flatten().try_for_each(|(name, value)| check(name, value))
}

fn number(rule: &Value) -> f64 {
    rule.as_f64().unwrap_or(f64::NAN)
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap_or("") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// The only patterns that answers meet are fixed texts.
fn pattern(pattern: &str, value: &Value) -> Verdict {
    let fixed = pattern.trim_start_matches('^').trim_end_matches('$').replace('\\', "");
    match value.as_str() {
        Some(text) if text != fixed => Err(format!("{text} is not {fixed}")),
        _ => Ok(()),
    }
}
