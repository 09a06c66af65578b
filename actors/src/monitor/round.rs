//! One round of probes.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use opossum_backends::BackendError;

use super::board::{Board, DependencyPlan, WatchedBackend};
use crate::guardian::catch_future;

/// Why a probe failed, in a word or a few.
type Why = Cow<'static, str>;

/// Probes everything side by side and publishes each outcome as it comes.
pub(super) async fn probe_all(board: Arc<Board>) {
    let backends = join_all(board.backends.iter().map(|watched| probe_backend(&board, watched)));
    let dependencies = join_all(board.dependencies.iter().map(|plan| probe_dependency(&board, plan)));
    join(backends, dependencies).await;
}

async fn probe_backend(board: &Board, watched: &WatchedBackend) {
    let service = watched.backend.service();
    let probe = async {
        let answer = bounded(board.timeout, async { watched.backend.probe().await }).await;
        board.backend_said(service, &answer.and_then(|answer| answer.map_err(|error| class(&error))));
    };
    let models = async {
        // A backend that cannot list its models keeps those it listed before.
        if let Ok(Ok(models)) = bounded(board.timeout, async { watched.backend.models().await }).await {
            board.models_listed(service, &models);
        }
    };
    join(probe, models).await;
}

async fn probe_dependency(board: &Board, plan: &DependencyPlan) {
    let Some(probe) = &plan.probe else { return };
    // Called inside, so that a panic before its first poll is caught too.
    let answer = bounded(board.timeout, async { probe().await }).await;
    board.dependency_said(&plan.name, &answer.and_then(|answer| answer.map_err(Cow::Owned)));
}

/// The class says enough to a reader of health; what the upstream said goes to the log.
fn class(error: &BackendError) -> Why {
    tracing::debug!(status = error.status, detail = %error.detail, "probe failed");
    Cow::Borrowed(error.class.label())
}

/// Runs one probe so that neither its silence nor its panic reaches the others.
async fn bounded<F: Future>(limit: Duration, probe: F) -> Result<F::Output, Why> {
    match catch_future(tokio::time::timeout(limit, probe)).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(_)) => Err(Cow::Borrowed("timeout")),
        Err(panic) => {
            tracing::error!(panic = %panic.message, place = panic.place.as_deref(), "a probe panicked");
            Err(Cow::Borrowed("probe panicked"))
        }
    }
}
