//! One who posts jobs over HTTP, one at a time, and fetches each answer, wherever a worker listens. A 202 is a
//! promise as a confirm is: the job is asked for until it is over, and then once more of another worker.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opossum_testkit::{Answer, Client, ask};
use serde_json::json;
use tokio::sync::watch;

use crate::book::{Asking, Book, Due, Heard, open};

/// Pause between two looks at a job, and after an answer that was none.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a worker may take to answer; it says within five seconds that the broker is away.
const LIMIT: Duration = Duration::from_secs(15);

/// Posts jobs and fetches their answers, for as long as it is polled.
pub(crate) async fn ask_over_http(
    number: usize,
    workers: Arc<[SocketAddr]>,
    book: Arc<Mutex<Book>>,
    asking: watch::Receiver<Asking>,
) {
    let mut turn = number;
    loop {
        let due = {
            let mut book = open(&book);
            let asking = *asking.borrow();
            if asking != Asking::Nothing {
                // Nobody knows what became of a job without a 202: it is not asked twice.
                book.ask(Asking::Once, usize::MAX);
            }
            book.take_due()
        };
        tokio::time::sleep(PAUSE).await;
        if let Some(due) = due {
            turn += 1;
            ask_one(&due, turn, &workers, &book).await;
        }
    }
}

async fn ask_one(due: &Due, turn: usize, workers: &[SocketAddr], book: &Mutex<Book>) {
    let job = json!({ "endpoint": "/v1/chat/completions", "body": ask(&due.question) });
    let body = job.to_string();
    let posted = call(workers[turn % workers.len()], "POST", "/v1/jobs", Some(body.as_bytes())).await;
    let Some(accepted) = posted.filter(|answer| answer.status == 202) else {
        open(book).forget(due.number);
        return;
    };
    open(book).confirm(due.number);
    let place = format!("/v1/jobs/{}", accepted.json()["id"].as_str().unwrap_or_default());
    for look in [turn + 1, turn + 2] {
        let result = result(&place, look, workers).await;
        let answer = result["body"]["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        let answers = (result["status"] == 200).then_some(answer);
        open(book).hear(&Heard { id: &due.id, answers, content: &result.to_string() });
    }
}

/// Asks one worker after the other until a job is over.
async fn result(place: &str, first: usize, workers: &[SocketAddr]) -> serde_json::Value {
    for turn in first.. {
        if let Some(answer) = call(workers[turn % workers.len()], "GET", place, None).await
            && answer.status == 200
            && !answer.json()["result"].is_null()
        {
            return answer.json()["result"].take();
        }
        tokio::time::sleep(PAUSE).await;
    }
    serde_json::Value::Null
}

/// Calls a worker; nothing when it is away.
async fn call(worker: SocketAddr, method: &str, path: &str, body: Option<&[u8]>) -> Option<Answer> {
    Client::new(worker).limit(LIMIT).try_call(method, path, body).await.ok()
}
