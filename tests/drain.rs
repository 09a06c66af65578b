//! SIGTERM ends the service without cutting what runs.

use std::time::{Duration, Instant};

use opossum_testkit::{End, Script, Service, Upstream, ask, ask_stream, eventually};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn streams_finish_readiness_falls_at_once_and_the_exit_is_clean() {
    let up = Upstream::openai().script(Script::slow(30, Duration::from_millis(60))).start();
    let mut service = Service::of(BIN).named("only", &up).set("server.drain_delay", 0.5).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let mut stream = client.stream(&ask_stream("x")).await;
    assert!(stream.next_text().await.is_some());
    // A connection that is kept alive and idle must not hold the exit up.
    let mut idle = client.connect().await;
    assert!(idle.send(&client.request("GET", "/health/live", None)).await.is_ok());
    assert_eq!(idle.answer().await.map(|a| a.status).ok(), Some(200));

    service.terminate();
    let signalled = Instant::now();
    let unready = eventually(SOON, async || {
        client.try_call("GET", "/health/ready", None).await.is_ok_and(|a| a.status == 503)
    });
    assert!(unready.await, "readiness was never taken back");
    assert!(signalled.elapsed() < Duration::from_millis(400), "{:?}", signalled.elapsed());

    let rest = stream.collect().await;
    assert!(rest.done() && rest.end == End::Clean, "the drain cut a stream: {rest:?}");
    assert_eq!(rest.finish_reason(), "stop");
    let status = service.wait_exit(SOON).await;
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{status:?}\n{}", service.logs());
    assert!(idle.closes_within(Duration::from_secs(1)).await);
}

#[tokio::test]
async fn what_is_queued_is_told_to_go_elsewhere() {
    let up = Upstream::openai().script(Script::slow(20, Duration::from_millis(50))).start();
    let builder = Service::of(BIN).named("only", &up).set("server.max_in_flight", 1);
    let mut service = builder.set("server.drain_delay", 0).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let mut running = client.stream(&ask_stream("running")).await;
    assert!(running.next_text().await.is_some());
    let queued = {
        let client = client.clone();
        tokio::spawn(async move { client.chat(&ask("queued")).await })
    };
    let waits =
        eventually(SOON, async || client.metrics().await.sum("opossum_requests_waiting", &[]) == Some(1.0));
    assert!(waits.await);
    service.terminate();
    let told = queued.await;
    assert!(told.is_ok());
    if let Ok(answer) = told {
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "draining"));
        assert!(answer.header("retry-after").is_some());
    }
    assert!(running.collect().await.done(), "the running stream was cut");
    assert_eq!(service.wait_exit(SOON).await.and_then(|s| s.code()), Some(0));
    assert_eq!(up.calls(), 1);
}

#[tokio::test]
async fn a_stream_that_never_ends_does_not_hold_the_exit_for_ever() {
    let up = Upstream::openai().script(Script::stall_after(1)).start();
    let builder = Service::of(BIN).named("only", &up).set("server.drain_delay", 0);
    let mut service = builder.set("server.drain_timeout", 1).start().await;
    service.settled(&["only"]).await;
    let mut stream = service.client().stream(&ask_stream("x")).await;
    assert!(stream.next_text().await.is_some());
    service.terminate();
    let signalled = Instant::now();
    let status = service.wait_exit(Duration::from_secs(10)).await;
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", service.logs());
    assert!(signalled.elapsed() < Duration::from_secs(4), "{:?}", signalled.elapsed());
    let rest = stream.collect().await;
    assert!(!rest.has_done() && rest.finish_reason().is_empty(), "a cut stream looks complete: {rest:?}");
}

#[tokio::test]
async fn an_idle_service_stops_at_once() {
    let mut service = Service::of(BIN).set("server.drain_delay", 0).start().await;
    service.terminate();
    let signalled = Instant::now();
    assert_eq!(service.wait_exit(SOON).await.and_then(|s| s.code()), Some(0), "{}", service.logs());
    assert!(signalled.elapsed() < Duration::from_secs(2), "{:?}", signalled.elapsed());
}
