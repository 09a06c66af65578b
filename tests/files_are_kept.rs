//! A file that was taken is kept until it is deleted or expires, whatever becomes of the process; one that was
//! not leaves nothing, and none has to fit into memory.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use opossum_testkit::form::Form;
use opossum_testkit::{Answer, Client, Service, SqliteLock, eventually};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const SOON: Duration = Duration::from_secs(30);

async fn uploaded(client: &Client, form: &Form) -> Value {
    let answer = form.upload(client).await;
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    answer.json()
}

fn place(file: &Value) -> String {
    format!("/v1/files/{}", file["id"].as_str().unwrap())
}

/// What a refusal says: its status, code and field.
fn refusal(answer: &Answer) -> (u16, String, String) {
    (answer.status, answer.error_code(), answer.error_param())
}

#[tokio::test]
async fn a_file_is_kept_listed_read_and_deleted_and_outlives_the_process() {
    let mut service = Service::of(BIN).start().await;
    let client = service.client();
    let first = uploaded(&client, &Form::batch(b"{}\n")).await;
    assert!(first["id"].as_str().unwrap().starts_with("file-"));
    assert_eq!(
        (&first["object"], &first["bytes"], &first["purpose"]),
        (&json!("file"), &json!(3), &json!("batch"))
    );
    assert_eq!((&first["filename"], &first["status"]), (&json!("lines.jsonl"), &json!("processed")));
    let (created, expires) = (first["created_at"].as_i64().unwrap(), first["expires_at"].as_i64().unwrap());
    assert_eq!(expires - created, 30 * 86_400);
    // The file before the purpose, and an end of its own.
    let form = Form::default().file("../b.jsonl", b"second").field("expires_after[anchor]", "created_at");
    let second =
        uploaded(&client, &form.field("expires_after[seconds]", "3600").field("purpose", "batch")).await;
    assert_eq!(second["filename"], "b.jsonl");
    assert_eq!(second["expires_at"].as_i64().unwrap() - second["created_at"].as_i64().unwrap(), 3600);

    service.kill();
    let service = service.restart().await;
    let client = service.client();
    assert!(eventually(SOON, async || client.get(&place(&first)).await.status == 200).await);
    assert_eq!(client.get(&place(&first)).await.json(), first);
    let content = client.get(&format!("{}/content", place(&second))).await;
    assert_eq!((content.status, content.body_text().as_str()), (200, "second"));
    assert_eq!(content.header("content-type"), Some("application/octet-stream"));

    let list = client.get("/v1/files?limit=1&order=asc").await.json();
    assert_eq!((&list["data"][0], &list["has_more"]), (&first, &json!(true)));
    let rest =
        client.get(&format!("/v1/files?order=asc&after={}", list["last_id"].as_str().unwrap())).await.json();
    assert_eq!((&rest["data"], &rest["has_more"]), (&json!([second]), &json!(false)));
    assert_eq!(client.get("/v1/files?purpose=batch_output").await.json()["data"], json!([]));
    assert_eq!(client.get("/v1/files?limit=0").await.error_param(), "limit");

    let deleted = client.call("DELETE", &place(&first), None).await;
    assert_eq!(deleted.json(), json!({ "id": first["id"], "object": "file", "deleted": true }));
    for path in [place(&first), format!("{}/content", place(&first)), "/v1/files/none".to_owned()] {
        assert_eq!(refusal(&client.get(&path).await).0, 404, "{path}");
    }
    assert_eq!(client.call("DELETE", &place(&first), None).await.status, 404);
    assert_eq!(client.call("PUT", "/v1/files", None).await.header("allow"), Some("GET, POST"));
}

#[tokio::test]
async fn a_form_that_is_wrong_is_refused_by_field_and_nothing_is_kept() {
    let service = Service::of(BIN).set("server.file_limit", 2048).start().await;
    let client = service.client();
    let invalid = |name: &str| (400, "invalid_value".to_owned(), name.to_owned());
    let missing = |name: &str| (400, "missing_parameter".to_owned(), name.to_owned());
    let file = || Form::default().file("a", b"x");
    for (form, wanted) in [
        (file().field("purpose", "fine-tune"), invalid("purpose")),
        (file(), missing("purpose")),
        (Form::default().field("purpose", "batch"), missing("file")),
        (Form::batch(b"x").file("b", b"y"), invalid("file")),
        (Form::batch(b"x").field("file", "no file"), invalid("file")),
        (Form::batch(b"x").field("purpose", "batch"), invalid("purpose")),
        (Form::batch(b"x").field("purpose", &"x".repeat(5000)), invalid("purpose")),
        (Form::batch(b"x").field("expires_after[seconds]", "9"), missing("expires_after[anchor]")),
        (
            Form::batch(b"x").field("model", "auto"),
            (400, "unsupported_parameter".to_owned(), "model".to_owned()),
        ),
        (Form::batch(&[b'x'; 2049]), (413, "request_too_large".to_owned(), String::new())),
    ] {
        assert_eq!(
            refusal(&form.upload(&client).await),
            wanted,
            "{}",
            String::from_utf8_lossy(&form.bytes())
        );
    }
    let cut =
        Form::client(client.clone()).call("POST", "/v1/files", Some(&Form::batch(b"x").bytes()[..150])).await;
    assert_eq!(refusal(&cut).0, 400, "{}", cut.body_text());
    let no_boundary = vec![b'-'; 3 << 20];
    let endless = Form::client(client.clone()).try_call("POST", "/v1/files", Some(&no_boundary)).await;
    assert!(endless.is_err() || endless.is_ok_and(|answer| answer.status >= 400));
    let json = client.post("/v1/files", &json!({ "purpose": "batch" })).await;
    assert_eq!(refusal(&json).0, 415);
    // A caller who leaves half-way.
    let mut conn = client.connect().await;
    let form = Form::batch(&[b'x'; 2000]).bytes();
    let request = Form::client(client.clone()).request("POST", "/v1/files", Some(&form));
    conn.send(&request[..request.len() - 500]).await.unwrap();
    conn.leave();
    assert_eq!(client.get("/v1/files").await.json()["data"], json!([]));
    let taken = uploaded(&client, &Form::batch(&[b'x'; 2048])).await;
    assert_eq!(taken["bytes"], 2048);
}

#[tokio::test]
async fn a_large_file_passes_through_without_lying_in_memory() {
    const SIZE: usize = 48 << 20;
    let service = Service::of(BIN).start().await;
    let client = service.client().limit(Duration::from_secs(90));
    uploaded(&client, &Form::batch(b"warm")).await;
    let before = service.peak_rss_kib();
    let content: Vec<u8> = (0..SIZE).map(|n| (n / 3 % 251) as u8).collect();
    let file = uploaded(&client, &Form::batch(&content)).await;
    assert_eq!(file["bytes"], SIZE);
    let back = client.get(&format!("{}/content", place(&file))).await;
    assert!(back.body == content, "what is read is what was written");
    let grown = (service.peak_rss_kib() - before) / 1024;
    assert!(grown < 32, "{grown} MiB more for a file of {} MiB", SIZE >> 20);
}

#[tokio::test]
async fn while_the_database_is_locked_files_are_refused_and_nothing_else() {
    let service = Service::of(BIN).start().await;
    let client = service.client();
    uploaded(&client, &Form::batch(b"x")).await;
    let thief = SqliteLock::take(&service.dir().join("state/ledger.db"));
    let refused = Form::batch(b"y").upload(&client).await;
    assert_eq!(refusal(&refused), (503, "storage_unavailable".to_owned(), String::new()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(client.get("/v1/files").await.json()["data"].as_array().unwrap().len(), 1, "reading goes on");
    drop(thief);
    let back = eventually(SOON, async || Form::batch(b"y").upload(&client).await.status == 200);
    assert!(back.await);
}
