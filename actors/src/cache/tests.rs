//! The promises of the CacheActor, on paused time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use futures::future::join_all;
use opossum_core::answer::Answer;
use opossum_core::cache::{CacheConfig, CacheKey};
use opossum_core::ids::ArmId;
use tokio::time::Instant;

use super::*;
use crate::guardian::ActorError;
use crate::registry::ActorThreads;
use crate::telemetry::NoTelemetry;
use crate::testing::{on_paused_time, pass, threads};

const KEY: CacheKey = CacheKey([7; 32]);

fn cache(threads: &ActorThreads) -> CacheHandle {
    CacheHandle::start(threads, CacheConfig::default(), Arc::new(NoTelemetry))
}

fn answer(text: &str) -> Arc<CachedAnswer> {
    let answer = Answer { model: text.to_owned(), choices: Vec::new(), usage: None };
    let body = CachedBody::Answer(answer);
    Arc::new(CachedAnswer { body, arm: ArmId::new("s", "m"), degraded: false, bytes: 100 })
}

fn text(cached: &CachedAnswer) -> &str {
    match &cached.body {
        CachedBody::Answer(answer) => &answer.model,
        other @ CachedBody::Embeddings(_) => panic!("{other:?} instead of an answer"),
    }
}

async fn lead(cache: &CacheHandle) -> LeadGuard {
    match cache.begin(KEY).await {
        CacheTurn::Lead(lead) => lead,
        other => panic!("{other:?} instead of the lead"),
    }
}

async fn join(cache: &CacheHandle) -> Follower {
    match cache.begin(KEY).await {
        CacheTurn::Join(follower) => follower,
        other => panic!("{other:?} instead of a follower"),
    }
}

async fn hit(cache: &CacheHandle) -> String {
    match cache.begin(KEY).await {
        CacheTurn::Hit(found) => text(&found).to_owned(),
        other => panic!("{other:?} instead of a hit"),
    }
}

#[test]
fn of_500_identical_requests_one_leads_and_all_are_answered() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        // 500 at once are more than a mailbox holds; those beyond it would do without the cache.
        pass(1).await;
        let mut turns = join_all((0..250).map(|_| cache.begin(KEY))).await;
        turns.extend(join_all((0..250).map(|_| cache.begin(KEY))).await);
        let mut leads = Vec::new();
        let mut followers = Vec::new();
        for turn in turns {
            match turn {
                CacheTurn::Lead(lead) => leads.push(lead),
                CacheTurn::Join(follower) => followers.push(follower.wait()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((leads.len(), followers.len()), (1, 499));
        leads.remove(0).complete(Some(answer("a")));
        for followed in join_all(followers).await {
            assert!(matches!(followed, Followed::Answer(found) if text(&found) == "a"));
        }
        assert_eq!(hit(&cache).await, "a");
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.joins, stats.hits, stats.keys), (1, 499, 1, 1));
    });
}

#[test]
fn whoever_asks_right_after_the_answer_finds_it() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        lead(&cache).await.complete(Some(answer("a")));
        assert_eq!(hit(&cache).await, "a");
    });
}

#[test]
fn a_leader_that_is_dropped_promotes_the_first_follower_that_is_still_there() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        let leader = lead(&cache).await;
        let (gone, first, second) = (join(&cache).await, join(&cache).await, join(&cache).await);
        drop(gone);
        drop(leader);
        let Followed::Lead(next) = first.wait().await else { panic!("not promoted") };
        next.complete(Some(answer("b")));
        assert!(matches!(second.wait().await, Followed::Answer(found) if text(&found) == "b"));
    });
}

#[test]
fn a_promoted_follower_that_left_unseen_hands_the_lead_on() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        let leader = lead(&cache).await;
        let (first, second) = (join(&cache).await, join(&cache).await);
        drop(leader);
        pass(5).await;
        // The lead is in its channel already, and nobody will take it out.
        drop(first);
        let followed = tokio::time::timeout(std::time::Duration::from_secs(1), second.wait()).await;
        assert!(matches!(followed, Ok(Followed::Lead(_))));
    });
}

#[test]
fn a_caller_that_leaves_while_it_asks_blocks_nobody() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        for yields in 0..5 {
            let mut asking = Box::pin(cache.begin(KEY));
            assert!(futures::poll!(&mut asking).is_pending());
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            drop(asking);
            pass(5).await;
        }
        drop(lead(&cache).await);
    });
}

#[test]
fn an_answer_that_cannot_be_shared_lets_each_follower_compute_its_own() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        let leader = lead(&cache).await;
        let follower = join(&cache).await;
        leader.complete(None);
        assert!(matches!(follower.wait().await, Followed::Alone));
        drop(lead(&cache).await);
    });
}

#[test]
fn peeking_leads_nothing_and_joins_nothing() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        assert!(cache.peek(&KEY).await.is_none());
        let leader = lead(&cache).await;
        assert!(cache.peek(&KEY).await.is_none());
        let follower = join(&cache).await;
        drop(leader);
        // One who only looked is passed over.
        let Followed::Lead(next) = follower.wait().await else { panic!("not promoted") };
        next.complete(Some(answer("a")));
        assert_eq!(text(&cache.peek(&KEY).await.unwrap()), "a");
    });
}

#[test]
fn a_refreshed_answer_replaces_the_stored_one_and_only_when_it_is_there() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        lead(&cache).await.complete(Some(answer("old")));
        drop(cache.refresh(KEY));
        cache.refresh(KEY).complete(None);
        assert_eq!(hit(&cache).await, "old");
        cache.refresh(KEY).complete(Some(answer("new")));
        assert_eq!(hit(&cache).await, "new");
        assert_eq!(cache.stats().keys, 1);
    });
}

#[test]
fn flushing_forgets_what_is_stored_and_what_is_on_its_way() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        lead(&cache).await.complete(Some(answer("a")));
        assert_eq!(hit(&cache).await, "a");
        cache.flush().await.unwrap();
        let late = lead(&cache).await;
        cache.flush().await.unwrap();
        late.complete(Some(answer("late")));
        drop(lead(&cache).await);
        assert_eq!(cache.stats().keys, 0);
    });
}

#[test]
fn a_degraded_answer_is_shared_but_neither_kept_nor_put_in_place_of_a_good_one() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        let degraded = || Arc::new(CachedAnswer { degraded: true, ..CachedAnswer::clone(&answer("poor")) });
        let leader = lead(&cache).await;
        let follower = join(&cache).await;
        leader.complete(Some(degraded()));
        assert!(matches!(follower.wait().await, Followed::Answer(found) if found.degraded));
        lead(&cache).await.complete(Some(answer("good")));
        assert_eq!(hit(&cache).await, "good");
        cache.refresh(KEY).complete(Some(degraded()));
        assert_eq!(hit(&cache).await, "good");
    });
}

#[test]
fn a_panic_lets_followers_compute_their_own_and_the_cache_is_back_at_once() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        let leader = lead(&cache).await;
        let follower = join(&cache).await;
        assert_eq!(threads.registry().poison("cache").await, Some(ActorError::Panicked));
        assert!(matches!(follower.wait().await, Followed::Alone));
        let begun = Instant::now();
        let next = lead(&cache).await;
        assert!(begun.elapsed().as_millis() < 100);
        // The old leader's answer belongs to a flight that is no more, and must not end the new one.
        leader.complete(Some(answer("old")));
        next.complete(Some(answer("new")));
        assert_eq!(hit(&cache).await, "new");
    });
}

#[test]
fn without_an_actor_the_cache_is_bypassed() {
    on_paused_time(async {
        let threads = threads();
        let cache = cache(&threads);
        for _ in 0..10 {
            threads.registry().poison("cache").await;
        }
        let begun = Instant::now();
        assert!(matches!(cache.begin(KEY).await, CacheTurn::Bypass));
        assert!(cache.peek(&KEY).await.is_none());
        assert_eq!(begun.elapsed().as_millis(), 0);
    });
}
