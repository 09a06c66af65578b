//! A caller who leaves stops the work done for it, in every phase, within 250 ms.

use std::time::{Duration, Instant};

use opossum_testkit::client::Conn;
use opossum_testkit::{Client, Script, Service, Step, Upstream, ask, ask_stream, eventually};
use serde_json::Value;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const PROMISE: Duration = Duration::from_millis(250);
const SOON: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
enum Leaving {
    Fin,
    Rst,
}

const BOTH: [Leaving; 2] = [Leaving::Fin, Leaving::Rst];

/// One permit, so that a permit that is not given back is noticed by the next request.
async fn serve(up: &Upstream) -> Service {
    let service = Service::of(BIN).named("only", up).set("server.max_in_flight", 1).start().await;
    service.settled(&["only"]).await;
    service
}

async fn send(client: &Client, body: &Value) -> Conn {
    let mut conn = client.connect().await;
    let bytes = client.request("POST", "/v1/chat/completions", Some(body.to_string().as_bytes()));
    assert!(conn.send(&bytes).await.is_ok());
    conn
}

fn leave(conn: Conn, how: Leaving) -> Instant {
    let now = Instant::now();
    match how {
        Leaving::Fin => conn.leave(),
        Leaving::Rst => assert!(conn.reset().is_ok()),
    }
    now
}

/// The upstream has seen its caller leave in time, the permit is free, and the exchange counts as 499.
async fn cleaned_up(up: &Upstream, service: &Service, left: Instant, what: &str) {
    let index = up.calls() - 1;
    let aborted = up.wait_abort(index, SOON).await;
    assert!(aborted.is_some(), "{what}: the upstream still works for nobody");
    let at = up.seen()[index].at + aborted.unwrap_or_default();
    let after = at.saturating_duration_since(left);
    assert!(after < PROMISE, "{what}: aborted {after:?} after the caller left");
    up.push([Script::text("next")]);
    let next = service.client().chat(&ask("next")).await;
    assert_eq!(next.status, 200, "{what}");
    assert!(next.elapsed < Duration::from_secs(1), "{what}: the permit came back after {:?}", next.elapsed);
    let counted = eventually(SOON, async || {
        service.client().metrics().await.count("opossum_requests_total", &[("status", "499")]) >= 1.0
    });
    assert!(counted.await, "{what}: not counted as 499");
}

#[tokio::test]
async fn before_the_first_token_of_a_stream() {
    for how in BOTH {
        let up = Upstream::openai().script(Script::hang()).start();
        let service = serve(&up).await;
        let conn = send(&service.client(), &ask_stream("x")).await;
        assert!(up.wait_calls(1, SOON).await);
        cleaned_up(&up, &service, leave(conn, how), &format!("before the first token, {how:?}")).await;
    }
}

#[tokio::test]
async fn between_the_head_and_the_first_token_of_the_upstream() {
    for how in BOTH {
        let up = Upstream::openai().script(Script::stall_after(0)).start();
        let service = serve(&up).await;
        let conn = send(&service.client(), &ask_stream("x")).await;
        assert!(up.wait_calls(1, SOON).await);
        // Time for the upstream's head to have gone through.
        tokio::time::sleep(Duration::from_millis(50)).await;
        cleaned_up(&up, &service, leave(conn, how), &format!("after the upstream's head, {how:?}")).await;
    }
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    for script in [Script::stall_after(2), Script::slow(2000, Duration::from_millis(20))] {
        for how in BOTH {
            let up = Upstream::openai().script(script.clone()).start();
            let service = serve(&up).await;
            let mut stream = service.client().stream(&ask_stream("x")).await;
            assert!(stream.next_text().await.is_some());
            let left = Instant::now();
            match how {
                Leaving::Fin => stream.leave(),
                Leaving::Rst => assert!(stream.reset().is_ok()),
            }
            cleaned_up(&up, &service, left, &format!("mid-stream, {how:?}")).await;
        }
    }
}

#[tokio::test]
async fn while_a_whole_answer_is_awaited() {
    for script in [Script::hang(), Script::stall_after(2)] {
        for how in BOTH {
            let up = Upstream::openai().script(script.clone()).start();
            let service = serve(&up).await;
            let conn = send(&service.client(), &ask("x")).await;
            assert!(up.wait_calls(1, SOON).await);
            cleaned_up(&up, &service, leave(conn, how), &format!("whole answer, {how:?}")).await;
        }
    }
}

#[tokio::test]
async fn while_queued_for_admission() {
    for how in BOTH {
        let up = Upstream::openai().script(Script::hang()).start();
        let service = serve(&up).await;
        let client = service.client();
        let running = send(&client, &ask("running")).await;
        assert!(up.wait_calls(1, SOON).await);
        let queued = send(&client, &ask("queued")).await;
        let waits = eventually(SOON, async || {
            client.metrics().await.sum("opossum_requests_waiting", &[]) == Some(1.0)
        });
        assert!(waits.await, "the second request does not wait");
        let left = leave(queued, how);
        let gone = eventually(SOON, async || {
            client.metrics().await.sum("opossum_requests_waiting", &[]) == Some(0.0)
        });
        assert!(gone.await && left.elapsed() < Duration::from_millis(500), "{how:?}: {:?}", left.elapsed());
        cleaned_up(&up, &service, leave(running, how), "running while another was queued").await;
        assert_eq!(up.calls(), 2, "{how:?}: the queued request was sent upstream though nobody waits for it");
    }
}

#[tokio::test]
async fn between_two_attempts() {
    let up = Upstream::openai().script(Script::status(500)).start();
    let builder = Service::of(BIN).named("only", &up).env("ONLY_RETRY_DELAY", "5").env("ONLY_MAX_RETRIES", 3);
    let service = builder.start().await;
    service.settled(&["only"]).await;
    let conn = send(&service.client(), &ask("x")).await;
    assert!(up.wait_calls(1, SOON).await);
    let calls = up.calls();
    leave(conn, Leaving::Fin);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(up.calls() <= calls + 1, "attempts go on for nobody");
    let metrics = service.client().metrics().await;
    assert_eq!(metrics.sum("opossum_requests_in_flight", &[]), Some(0.0));
}

#[tokio::test]
async fn a_caller_who_only_half_closes_still_gets_its_answer() {
    let up = Upstream::openai().script(Script::text("still here")).start();
    let service = serve(&up).await;
    let mut conn = send(&service.client(), &ask("x")).await;
    assert!(conn.half_close().await.is_ok());
    // A caller that has said everything may be taken for one that left; what it must not get is half an answer.
    match conn.answer().await {
        Ok(answer) => assert_eq!(answer.text(), "still here"),
        Err(err) => assert_eq!(err.kind(), std::io::ErrorKind::UnexpectedEof),
    }
}

#[tokio::test]
async fn a_caller_who_never_reads_is_given_up_and_its_upstream_too() {
    let text = "x".repeat(16 * 1024);
    let texts = vec![text; 20_000];
    let endless = Script::new().then(Step::RoleOnly).then(Step::Chunks { texts, gap: Duration::ZERO });
    let up = Upstream::openai().script(endless).start();
    let builder = Service::of(BIN).named("only", &up).set("server.write_idle", 1);
    let service = builder.start().await;
    service.settled(&["only"]).await;
    let conn = send(&service.client(), &ask_stream("x")).await;
    assert!(up.wait_calls(1, SOON).await);
    let before = service.rss_kib();
    let aborted = up.wait_abort(0, Duration::from_secs(8)).await;
    assert!(aborted.is_some(), "the upstream streams on into nowhere");
    assert!(service.peak_rss_kib() < before + 64 * 1024, "what nobody reads is kept in memory");
    drop(conn);
}
