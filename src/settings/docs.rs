//! `docs/configuration.md`, printed from the table.

use std::fmt::Write as _;

use super::provenance::sections_general_first;
use super::table::{KEYS, Key, Section};

const INTRODUCTION: &str = "\
# Configuration

This page is printed by `opossum config docs` from the table that the service itself reads; a test holds it
against the code.

Later sources win:

1. built-in defaults (and, where there is no `config/default.toml`, the copy of it in the binary)
2. `config/default.toml`
3. `config/{ENV}.toml`
4. environment variables; an empty one counts as unset
5. `NAME_FILE` for any variable `NAME` below: the path of a file whose content is the value, for Docker and
   Kubernetes secrets

Truth values are `true`, `false`, `1`, `0`, `yes`, `no`, `on` or `off` in any case. Time spans are seconds, or a
number with a unit: `250ms`, `30s`, `5m`, `2h`. Sizes are bytes, or a number with a unit: `64MiB`, `4MB`. Lists in
a variable are separated by commas. An unknown key in a file and a value that does not fit end the start with
exit code 78 and name the key. `opossum config show` prints what holds and where it came from, with secrets
redacted; `opossum config check` only says whether the service would start.
";

/// The page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in sections_general_first() {
        write_section(&mut page, section);
    }
    page
}

fn write_section(page: &mut String, section: &Section) {
    let _ = write!(page, "\n## {}\n\n", section.title);
    if !section.about.is_empty() {
        let _ = write!(page, "{}\n\n", section.about);
    }
    page.push_str("| Variable | TOML key | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for key in KEYS.iter().filter(|key| key.section().prefix == section.prefix) {
        let variable = key.env.map_or_else(|| "–".to_owned(), code);
        let _ = writeln!(page, "| {variable} | {} | {} | {} |", toml_key(key), default(key), key.meaning);
    }
}

fn toml_key(key: &Key) -> String {
    match key.path {
        // Neither has a place in a file.
        "env" | "services" => "–".to_owned(),
        path => code(&path.replace("targets.*", "targets[]").replace(".*.", ".NAME.")),
    }
}

fn default(key: &Key) -> String {
    if key.default.is_empty() { "unset".to_owned() } else { code(key.default) }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}
