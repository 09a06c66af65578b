//! `opossum jobs`: jobs at a running service, queued, looked at and cancelled.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::settings::Settings;

use super::args::Jobs;
use super::remote::{Remote, Wish};
use super::{Failure, Outcome, block_on, term};

/// The pause between two looks at a job: the first, and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

pub(super) fn run(settings: &Settings, action: Jobs) -> Outcome {
    block_on(async {
        match action {
            Jobs::Publish { file, timeout_ms, wait, at } => {
                let body = read(&file)?;
                let remote = Remote::new(settings, at)?;
                let wish = Wish { method: Method::POST, path: "/jobs", body, timeout_ms };
                let job = remote.ask(wish).await?;
                match job["id"].as_str() {
                    Some(id) if wait => {
                        // Whoever stops waiting can ask for it later.
                        term::note(&format!("{id}: queued"));
                        answered(&remote, &place(id)?).await
                    }
                    _ => show(&job),
                }
            }
            Jobs::Get { id, wait, at } => {
                let (remote, place) = (Remote::new(settings, at)?, place(&id)?);
                if wait { answered(&remote, &place).await } else { show(&get(&remote, &place).await?) }
            }
            Jobs::Cancel { id, at } => {
                let (remote, path) = (Remote::new(settings, at)?, place(&id)?);
                let wish = Wish { method: Method::DELETE, path: &path, body: Vec::new(), timeout_ms: None };
                show(&remote.ask(wish).await?)
            }
        }
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    if file == Path::new("-") {
        return term::read_all().map(String::into_bytes);
    }
    std::fs::read(file).map_err(|error| Failure::of(&file.display().to_string(), error))
}

/// Where a job is; its id may hold anything.
fn place(id: &str) -> Result<String, Failure> {
    if id.is_empty() {
        return Err(Failure::Failed("a job's id is not empty".to_owned()));
    }
    let mut path = "/jobs/".to_owned();
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(path)
}

async fn get(remote: &Remote, path: &str) -> Result<Value, Failure> {
    remote.ask(Wish { method: Method::GET, path, body: Vec::new(), timeout_ms: None }).await
}

/// Waits until a job is over and prints it.
async fn answered(remote: &Remote, path: &str) -> Outcome {
    let mut pause = FIRST_LOOK;
    loop {
        let job = get(remote, path).await?;
        match job["status"].as_str() {
            Some("queued" | "running") => {}
            Some("succeeded") => return show(&job),
            // A cancelled job has no answer; what is worth knowing is its state.
            status => {
                show(&job)?;
                return Err(Failure::Failed(format!("the job is {}", status.unwrap_or("unknown"))));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

fn show(job: &Value) -> Outcome {
    let text = serde_json::to_string_pretty(job).map_err(|error| Failure::of("the answer", error))?;
    term::line(&text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_any_kind_is_one_part_of_a_path() {
        assert_eq!(place("job_1").unwrap(), "/jobs/job_1");
        assert_eq!(place("a/../b c?ü").unwrap(), "/jobs/a%2F..%2Fb%20c%3F%C3%BC");
        assert!(place("").is_err());
    }
}
