//! A job's way, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use futures::Stream;
use futures::stream::unfold;
use opossum_core::jobs::JobKey;
use opossum_jobs::{Door, JobView};
use tokio::time::Instant;

use super::frame;
use crate::http::openai::encode::KEEP_ALIVE;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A comment is sent after this much silence, so that proxies on the way keep the connection.
const SILENCE: Duration = Duration::from_secs(10);

/// A follower is sent away after this time, longer than any job lives; it may come again.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is sent next, and to whom.
struct Follower {
    door: Door,
    key: JobKey,
    /// The job as it was sent last; nothing was before the first time.
    sent: Option<JobView>,
    /// As it is.
    now: JobView,
    until: Instant,
}

/// The events, beginning with the job as it is.
pub(super) fn response(door: Door, key: JobKey, now: JobView) -> HttpResponse {
    let follower = Follower { door, key, sent: None, now, until: Instant::now() + LONGEST };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        // Proxies of the nginx kind hold streams back unless told otherwise.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(frames(follower))
}

fn frames(follower: Follower) -> impl Stream<Item = Result<web::Bytes, Infallible>> {
    unfold(Some(follower), async |follower| {
        let mut follower = follower?;
        let frame = follower.next().await?;
        Some((Ok(frame), Some(follower)))
    })
}

impl Follower {
    /// The next frame; `None` after the last.
    async fn next(&mut self) -> Option<web::Bytes> {
        if self.sent.as_ref().is_some_and(is_over) {
            return None;
        }
        let quiet_until = Instant::now() + SILENCE;
        while self.sent.as_ref() == Some(&self.now) {
            if Instant::now() >= self.until {
                return None;
            }
            if Instant::now() >= quiet_until {
                return Some(web::Bytes::from_static(KEEP_ALIVE));
            }
            tokio::time::sleep(LOOK).await;
            // A store that fails may be well the next time.
            if let Ok(view) = self.door.job(&self.key).await {
                self.now = view?;
            }
        }
        self.sent = Some(self.now.clone());
        Some(frame(&self.key, &self.now))
    }
}

/// Whether nothing more will come: a cancelled job's reply is worth no waiting.
fn is_over(view: &JobView) -> bool {
    view.state.is_final()
}
