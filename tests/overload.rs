//! Full means an answer at once that says when to come again, and those who are in are served.

use std::time::{Duration, Instant};

use opossum_testkit::{Script, Service, Upstream, ask, eventually};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

#[tokio::test]
async fn past_the_queue_requests_are_refused_at_once_and_the_others_are_answered() {
    let up =
        Upstream::openai().script(Script::new().delay(Duration::from_millis(400)).answer("served")).start();
    let builder = Service::of(BIN).named("only", &up).set("server.max_in_flight", 10).set("server.queue", 20);
    let service = builder.start().await;
    service.settled(&["only"]).await;
    let answers = futures::future::join_all((0..200).map(|i| {
        let client = service.client();
        async move { client.chat(&ask(&format!("caller {i}"))).await }
    }))
    .await;
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    // Batch work keeps a share of the queue that nobody asks for here.
    assert!((20..=30).contains(&served.len()), "{} of 10 at work and 20 waiting were served", served.len());
    assert_eq!(up.calls(), served.len(), "a refused request was sent upstream");
    for answer in &refused {
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "overloaded"));
        let wait: u64 = answer.header("retry-after").and_then(|v| v.parse().ok()).unwrap_or(0);
        assert!((1..=60).contains(&wait), "{answer:?}");
    }
    let mut waits: Vec<_> = refused.iter().map(|a| a.elapsed).collect();
    waits.sort_unstable();
    let median = waits[waits.len() / 2];
    assert!(median < Duration::from_millis(100), "a refusal took {median:?}");
    let metrics = service.client().metrics().await;
    assert_eq!(metrics.sum("opossum_requests_in_flight", &[]), Some(0.0), "a permit leaked");
    assert_eq!(metrics.sum("opossum_requests_waiting", &[]), Some(0.0));
}

#[tokio::test]
async fn never_more_than_the_limit_reach_the_upstream_at_once() {
    let up = Upstream::openai().script(Script::new().delay(Duration::from_millis(30)).answer("x")).start();
    let builder = Service::of(BIN).named("only", &up).set("server.max_in_flight", 3).set("server.queue", 100);
    let service = builder.start().await;
    service.settled(&["only"]).await;
    let asked = futures::future::join_all((0..60).map(|i| {
        let client = service.client();
        async move { client.chat(&ask(&format!("caller {i}"))).await.status }
    }));
    let mut most = 0;
    let watch = async {
        while up.calls() < 60 {
            most = most.max(up.in_flight());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (statuses, watched) = tokio::join!(asked, tokio::time::timeout(Duration::from_secs(15), watch));
    assert!(watched.is_ok(), "{} calls", up.calls());
    assert!(statuses.iter().all(|s| *s == 200), "{statuses:?}");
    assert!((2..=3).contains(&most), "{most} at once");
}

#[tokio::test]
async fn nobody_waits_in_the_queue_longer_than_promised() {
    let up = Upstream::openai().script(Script::hang()).start();
    let builder = Service::of(BIN).named("only", &up).set("server.max_in_flight", 1);
    let service = builder.set("server.queue_wait", 0.3).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let holder = {
        let client = client.clone();
        tokio::spawn(async move { client.chat(&ask("holds the only place")).await })
    };
    assert!(up.wait_calls(1, Duration::from_secs(2)).await);
    let waited = client.chat(&ask("waits")).await;
    assert_eq!((waited.status, waited.error_code().as_str()), (503, "overloaded"));
    let range = Duration::from_millis(250)..Duration::from_millis(900);
    assert!(range.contains(&waited.elapsed), "{:?}", waited.elapsed);
    holder.abort();
    let free = eventually(Duration::from_secs(2), async || {
        client.metrics().await.sum("opossum_requests_in_flight", &[]) == Some(0.0)
    });
    assert!(free.await);
}

#[tokio::test]
async fn a_deadline_counts_the_wait_in_the_queue() {
    let up = Upstream::openai().script(Script::hang()).start();
    let service = Service::of(BIN).named("only", &up).set("server.max_in_flight", 1).start().await;
    service.settled(&["only"]).await;
    let holder = {
        let client = service.client();
        tokio::spawn(async move { client.chat(&ask("holds the only place")).await })
    };
    assert!(up.wait_calls(1, Duration::from_secs(2)).await);
    let started = Instant::now();
    let late = service.client().with("x-opossum-timeout-ms", "400").chat(&ask("in a hurry")).await;
    assert_eq!((late.status, late.error_code().as_str()), (504, "deadline_exceeded"), "{}", late.body_text());
    assert!(started.elapsed() < Duration::from_millis(1200), "{:?}", started.elapsed());
    holder.abort();
}

#[tokio::test]
async fn hundreds_of_callers_who_dawdle_do_not_hold_up_a_quick_one() {
    let up = Upstream::openai().text("quick").start();
    let builder =
        Service::of(BIN).named("only", &up).set("server.head_timeout", 1).set("server.body_timeout", 1);
    let service = builder.set("server.max_in_flight", 50).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let mut dawdlers = Vec::new();
    for i in 0..300 {
        let mut conn = client.connect().await;
        let begun = match i % 3 {
            0 => "POST /v1/chat/completions HTTP/1.1\r\nhos".to_owned(),
            1 => "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                  content-length: 1000\r\n\r\n{\"model\""
                .to_owned(),
            _ => String::new(),
        };
        assert!(conn.send(begun.as_bytes()).await.is_ok());
        dawdlers.push(conn);
    }
    for i in 0..30 {
        let answer = client.chat(&ask(&format!("question {i}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.body_text());
        assert!(answer.elapsed < Duration::from_millis(500), "{:?}", answer.elapsed);
    }
    let mut told = 0;
    for (i, conn) in dawdlers.iter_mut().enumerate().take(60) {
        if i % 3 != 2 {
            told += usize::from(conn.answer().await.is_ok_and(|answer| answer.status == 408));
        }
    }
    assert_eq!(told, 40, "a head or body that trickles in is a 408");
    assert_eq!(up.calls(), 30);
}
