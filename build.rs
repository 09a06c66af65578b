//! Tells the binary which commit it is built from.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=OPOSSUM_COMMIT");
    // A development build does not start over for every commit; a release does.
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    watch(if release { ".git/logs/HEAD" } else { ".git/HEAD" });
    // A container is built without the repository's history and gets the commit as a variable.
    let given = std::env::var("OPOSSUM_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(commit_of_head).unwrap_or_else(|| "commit unknown".to_owned());
    println!("cargo::rustc-env=OPOSSUM_COMMIT={commit}");
}

/// Only what is there: cargo takes a missing file for one that always changes.
fn watch(path: &str) {
    if Path::new(path).exists() {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn commit_of_head() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
