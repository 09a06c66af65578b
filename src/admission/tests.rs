#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;

fn door(max_in_flight: u32, queue: u32) -> Admission {
    Admission::new(AdmissionConfig {
        max_in_flight,
        queue,
        max_wait: Duration::from_secs(10),
        batch_share: 0.0,
    })
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_again_when_its_permit_is_dropped() {
    let door = door(1, 0);
    let first = door.admit(Lane::Live, far()).await.unwrap();
    assert!(matches!(door.admit(Lane::Live, far()).await, Err(PipelineError::Overloaded { .. })));
    assert_eq!(door.counts().live.running, 1);
    drop(first);
    assert_eq!(door.counts().live.running, 0);
    door.admit(Lane::Live, far()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_the_next_place() {
    let door = door(1, 2);
    let first = door.admit(Lane::Live, far()).await.unwrap();
    let waiter = tokio::spawn({
        let door = door.clone();
        async move { door.admit(Lane::Live, far()).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(door.counts().live.waiting, 1);
    drop(first);
    waiter.await.unwrap().unwrap();
    assert_eq!(door.counts().live.waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn patience_and_deadline_both_end_the_wait() {
    let door = door(1, 2);
    let _first = door.admit(Lane::Live, far()).await.unwrap();
    let begun = Instant::now();
    assert!(matches!(door.admit(Lane::Live, far()).await, Err(PipelineError::Overloaded { .. })));
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    let soon = Instant::now() + Duration::from_secs(3);
    assert_eq!(door.admit(Lane::Live, soon).await.err(), Some(PipelineError::DeadlineExceeded));
    assert_eq!(door.counts().live.waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn draining_sends_away_who_waits_and_keeps_who_works() {
    let door = door(1, 2);
    let first = door.admit(Lane::Live, far()).await.unwrap();
    let waiter = tokio::spawn({
        let door = door.clone();
        async move { door.admit(Lane::Live, far()).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    door.drain();
    assert!(matches!(waiter.await.unwrap(), Err(PipelineError::Draining { .. })));
    assert!(matches!(door.admit(Lane::Live, far()).await, Err(PipelineError::Draining { .. })));
    assert_eq!(door.counts().live.running, 1);
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_who_leaves_frees_its_place_in_the_queue() {
    let door = door(1, 2);
    let _first = door.admit(Lane::Live, far()).await.unwrap();
    let waiter = tokio::spawn({
        let door = door.clone();
        async move { door.admit(Lane::Live, far()).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    waiter.abort();
    let _ = waiter.await;
    assert_eq!(door.counts().live.waiting, 0);
}
