//! A killed service is back within two seconds, and nobody mistakes a cut answer for a whole one.

use std::time::Duration;

use opossum_testkit::{End, Script, Service, Upstream, ask, ask_stream, eventually};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

#[tokio::test]
async fn after_a_kill_mid_stream_clients_see_the_cut_and_the_restart_is_ready_in_two_seconds() {
    let up = Upstream::openai().script(Script::slow(100, Duration::from_millis(30))).start();
    let mut service = Service::of(BIN).named("only", &up).start().await;
    service.settled(&["only"]).await;
    let mut exact = ask_stream("x");
    exact["temperature"] = json!(0);
    let mut stream = service.client().stream(&exact).await;
    assert!(stream.next_text().await.is_some());
    service.kill();
    let rest = stream.collect().await;
    assert_eq!((rest.end, rest.has_done(), rest.finish_reason().as_str()), (End::Cut, false, ""));

    let service = service.restart().await;
    assert!(service.started_in() < Duration::from_secs(2), "{:?}", service.started_in());
    let ready = eventually(Duration::from_secs(2) - service.started_in(), async || {
        service.client().get("/health/ready").await.status == 200
    });
    assert!(ready.await, "alive after {:?}, not ready after 2 s", service.started_in());
    up.set_default(Script::text("whole"));
    let again = service.client().stream(&exact).await.collect().await;
    assert_eq!((again.text().as_str(), again.done()), ("whole", true));
}

#[tokio::test]
async fn with_few_file_descriptors_the_service_accepts_again_once_some_are_free() {
    let up = Upstream::openai().text("fine").start();
    let service = Service::of(BIN).named("only", &up).open_files(64).start().await;
    service.settled(&["only"]).await;
    let client = service.client().limit(Duration::from_secs(2));
    let mut held = Vec::new();
    for _ in 0..120 {
        held.push(client.connect().await);
    }
    let starved = eventually(Duration::from_secs(2), async || service.open_fds() >= 60).await;
    assert!(starved, "only {} descriptors in use: the limit was never reached", service.open_fds());
    drop(held);
    let back = eventually(Duration::from_secs(2), async || {
        let body = ask("x").to_string();
        let answer = client.try_call("POST", "/v1/chat/completions", Some(body.as_bytes())).await;
        answer.is_ok_and(|a| a.status == 200)
    });
    assert!(back.await, "not back two seconds after descriptors were free");
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_clear_failure_and_no_hang() {
    let taken = Service::of(BIN).start().await;
    let port = taken.addr().port();
    let (status, logs) = Service::of(BIN).port(port).refused().await;
    assert_eq!(status.code(), Some(1), "{logs}");
    assert!(logs.contains(&port.to_string()), "the port is not named: {logs}");
}
