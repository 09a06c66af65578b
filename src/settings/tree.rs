//! From the merged tree of all sources to typed values, key by key, against the table.

use config::{Value, ValueKind};
use serde_json::{Map, Value as Json};

use super::error::SettingsError;
use super::provenance::{Entry, Provenance, shown};
use super::table::{KEYS, Key};

/// Reads the whole tree.
///
/// # Errors
/// The first key, in alphabetical order, that the table does not know or whose value does not fit.
pub(super) fn read(root: &Value, provenance: &mut Provenance) -> Result<Json, SettingsError> {
    let mut path = Vec::new();
    node(root, &mut path, provenance)
}

fn node(value: &Value, path: &mut Vec<String>, out: &mut Provenance) -> Result<Json, SettingsError> {
    let segments: Vec<&str> = path.iter().map(String::as_str).collect();
    let key = Key::find(&segments).filter(|key| key.path != "services");
    match (&value.kind, key) {
        (ValueKind::Table(_) | ValueKind::Array(_), Some(key)) if key.kind.takes_all() => {
            leaf(key, value, path, out)
        }
        (ValueKind::Table(table), None) => {
            let mut names: Vec<_> = table.keys().collect();
            names.sort();
            let mut object = Map::new();
            for name in names {
                object.insert(name.clone(), child(&table[name], name.clone(), path, out)?);
            }
            Ok(Json::Object(object))
        }
        (ValueKind::Array(items), None) if leads_on(path, "0") => {
            items.iter().enumerate().map(|(i, item)| child(item, i.to_string(), path, out)).collect()
        }
        (_, Some(key)) => leaf(key, value, path, out),
        (_, None) => Err(unknown(value, path)),
    }
}

fn child(
    value: &Value,
    name: String,
    path: &mut Vec<String>,
    out: &mut Provenance,
) -> Result<Json, SettingsError> {
    path.push(name);
    if !path_is_known(path) {
        return Err(unknown(value, path));
    }
    let json = node(value, path, out)?;
    path.pop();
    Ok(json)
}

fn leaf(key: &Key, value: &Value, path: &[String], out: &mut Provenance) -> Result<Json, SettingsError> {
    let name = display(path);
    let env = path.get(1).map_or_else(|| key.env.map(str::to_owned), |service| key.env_for(service));
    let origin = value.origin().unwrap_or("the built-in default.toml").to_owned();
    let Some(json) = key.kind.read(value) else {
        let quoted = key.kind.may_be_quoted().then(|| super::kind::text(value)).flatten();
        let got = quoted.map_or_else(String::new, |text| format!(", not {text:?}"));
        let problem = format!("must be {}{got}", key.kind.expected());
        return Err(SettingsError { key: name, env, origin: Some(origin), problem });
    };
    let (toml, plain) = shown(key.kind, value);
    out.entries.push(Entry { key: name, env, value: toml, plain, origin });
    Ok(json)
}

/// Whether some key lies at this path or below it.
fn path_is_known(path: &[String]) -> bool {
    KEYS.iter().any(|key| {
        let mut parts = key.path.split('.');
        path.iter().all(|segment| parts.next().is_some_and(|part| part == "*" || part == segment))
    })
}

fn leads_on(path: &[String], next: &str) -> bool {
    let mut longer = path.to_vec();
    longer.push(next.to_owned());
    path_is_known(&longer)
}

/// `a.b.0.c` as people write it: `a.b[0].c`.
fn display(path: &[String]) -> String {
    let mut out = String::new();
    for (i, segment) in path.iter().enumerate() {
        let in_list = i > 0 && path[i - 1] == "targets" && segment.parse::<usize>().is_ok();
        match (in_list, i) {
            (true, _) => out.push_str(&format!("[{segment}]")),
            (false, 0) => out.push_str(segment),
            (false, _) => out.push_str(&format!(".{segment}")),
        }
    }
    out
}

fn unknown(value: &Value, path: &[String]) -> SettingsError {
    let hint = nearest(path).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    let problem = format!("there is no such key{hint}");
    SettingsError { key: display(path), env: None, origin: origin_of(value), problem }
}

/// The origin of a value, or of the first value below it.
fn origin_of(value: &Value) -> Option<String> {
    if let Some(origin) = value.origin() {
        return Some(origin.to_owned());
    }
    match &value.kind {
        ValueKind::Table(table) => table.values().find_map(origin_of),
        ValueKind::Array(items) => items.iter().find_map(origin_of),
        _ => None,
    }
}

/// The segment that may have been meant in place of the last one, at most two edits away.
fn nearest(path: &[String]) -> Option<&'static str> {
    let (last, parents) = path.split_last()?;
    let candidates = KEYS.iter().filter_map(|key| {
        let mut parts = key.path.split('.');
        let same = parents.iter().all(|p| parts.next().is_some_and(|part| part == "*" || part == p));
        parts.next().filter(|part| same && *part != "*")
    });
    candidates.map(|name| (edits(last, name), name)).filter(|(n, _)| *n <= 2).min().map(|(_, name)| name)
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edits("port", "port"), 0);
        assert_eq!(edits("prot", "port"), 2);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn a_misspelt_key_is_pointed_at_the_right_one() {
        let path = ["server".to_owned(), "prt".to_owned()];
        assert_eq!(nearest(&path), Some("port"));
    }
}
