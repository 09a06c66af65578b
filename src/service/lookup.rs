//! Asking the cache, and waiting for an identical request that is being answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use opossum_actors::{CacheTurn, CachedAnswer, Followed, LeadGuard};
use opossum_core::cache::{CacheKey, CacheTarget};
use tokio::time::Instant;

use super::Inner;
use super::ask::Ask;
use super::catalogue::Target;
use super::context::{CacheMode, CacheStatus, RequestContext};

/// What the cache said.
pub(super) enum Looked {
    /// The answer is there.
    Found(Arc<CachedAnswer>),
    /// It is not; ours is to be stored.
    Lead(LeadGuard),
    /// The cache has no part in this request.
    Unused(CacheStatus),
}

impl Inner {
    /// Looks a request up if its answer may be stored. A cache that fails is a cache that has nothing.
    pub(super) async fn look_up<A: Ask>(
        &self,
        context: &RequestContext,
        request: &A,
        model: &str,
        target: &Target,
    ) -> Looked {
        if context.cache == CacheMode::Bypass {
            return Looked::Unused(CacheStatus::Bypass);
        }
        let Some(cache) = self.cache.as_ref().filter(|_| self.is_wanted(context, request)) else {
            return Looked::Unused(CacheStatus::Miss);
        };
        let Ok(key) = key(context, request, model, target) else {
            return Looked::Unused(CacheStatus::Miss);
        };
        if context.cache == CacheMode::Refresh {
            self.stored_on_request.store(true, Ordering::Relaxed);
            return Looked::Lead(cache.refresh(key));
        }
        if !request.is_repeatable() {
            let found = cache.peek(&key).await;
            self.metrics.cache_seen("exact", found.is_some());
            return found.map_or(Looked::Unused(CacheStatus::Miss), Looked::Found);
        }
        let looked = match cache.begin(key).await {
            CacheTurn::Hit(cached) => Looked::Found(cached),
            CacheTurn::Lead(lead) => Looked::Lead(lead),
            CacheTurn::Bypass => Looked::Unused(CacheStatus::Miss),
            CacheTurn::Join(follower) => {
                // The one who leads may have more time, or a caller who reads slowly: half of ours is kept
                // for asking a backend ourselves.
                let patience = context.deadline.saturating_duration_since(Instant::now()) / 2;
                match tokio::time::timeout(patience, follower.wait()).await {
                    Ok(Followed::Answer(cached)) => Looked::Found(cached),
                    Ok(Followed::Lead(lead)) => Looked::Lead(lead),
                    Ok(Followed::Alone) | Err(_) => Looked::Unused(CacheStatus::Miss),
                }
            }
        };
        self.metrics.cache_seen("exact", matches!(looked, Looked::Found(_)));
        looked
    }

    fn is_wanted(&self, context: &RequestContext, request: &impl Ask) -> bool {
        request.is_repeatable()
            || context.cache == CacheMode::Refresh
            || self.stored_on_request.load(Ordering::Relaxed)
    }
}

fn key<A: Ask>(
    context: &RequestContext,
    request: &A,
    model: &str,
    target: &Target,
) -> Result<CacheKey, serde_json::Error> {
    let restrict = (!context.only.is_empty()).then_some(&*context.only);
    CacheKey::of(
        &context.tenant,
        CacheTarget { endpoint: request.endpoint(), model, revision: &target.revision, restrict },
        request,
    )
}
