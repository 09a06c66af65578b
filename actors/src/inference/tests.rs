//! The promises of the InferenceActor, on paused time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opossum_backends::BackendError;
use opossum_backends::transformers::{
    GenerationParams, LocalInference, LocalJob, LocalModelInfo, LocalState, LocalStatus, LocalStream, Prompt,
};
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;
use tokio::time::Instant;

use super::*;
use crate::guardian::{ActorError, ActorRef};
use crate::registry::ActorThreads;
use crate::telemetry::NoTelemetry;
use crate::testing::{on_paused_time, pass, threads};

/// Steers the engines that a test makes.
#[derive(Default)]
struct Workshop {
    made: AtomicUsize,
    load_fails: AtomicBool,
    load_panics: AtomicBool,
    /// Every engine made so far is gone.
    gone_up_to: AtomicUsize,
    tells: AtomicBool,
    jobs: AtomicUsize,
}

impl Workshop {
    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    fn lose_engines(&self) {
        self.gone_up_to.store(self.made(), Ordering::SeqCst);
    }
}

struct Engine {
    workshop: Arc<Workshop>,
    number: usize,
}

impl Engine {
    fn is_gone(&self) -> bool {
        self.number <= self.workshop.gone_up_to.load(Ordering::SeqCst)
    }
}

impl LocalInference for Engine {
    fn submit(&self, _: LocalJob) -> BoxFuture<'static, Result<LocalStream, BackendError>> {
        let taken = if self.is_gone() {
            Err(BackendError::new(FailureClass::ServerError, "the engine has stopped"))
        } else {
            self.workshop.jobs.fetch_add(1, Ordering::SeqCst);
            Ok(LocalStream::channel().1)
        };
        async move { taken }.boxed()
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        vec![LocalModelInfo { context_tokens: 2048, ..info() }]
    }

    fn status(&self) -> LocalStatus {
        let gone = self.is_gone() && self.workshop.tells.load(Ordering::SeqCst);
        let state = if gone { LocalState::Failed("gone".to_owned()) } else { LocalState::Ready };
        LocalStatus { state, ..LocalStatus::default() }
    }
}

fn info() -> LocalModelInfo {
    LocalModelInfo {
        name: ModelName::from("m"),
        architecture: "llama".to_owned(),
        context_tokens: 0,
        parameters: 0,
        quantization: String::new(),
        licence: None,
        device: "cpu".to_owned(),
        chat: true,
        tools: None,
    }
}

fn job() -> LocalJob {
    LocalJob {
        model: ModelName::from("m"),
        prompt: Prompt::Raw("hello".to_owned()),
        params: GenerationParams::default(),
    }
}

struct Running {
    handle: InferenceHandle,
    _actor: ActorRef<InferenceWorker>,
}

fn start(threads: &ActorThreads, workshop: &Arc<Workshop>, lazy: bool) -> Running {
    let workshop = Arc::clone(workshop);
    let factory: EngineFactory = Arc::new(move || {
        assert!(!workshop.load_panics.load(Ordering::SeqCst), "load told to panic");
        if workshop.load_fails.load(Ordering::SeqCst) {
            return Err(BackendError::new(FailureClass::ModelMissing, "no such file"));
        }
        let number = workshop.made.fetch_add(1, Ordering::SeqCst) + 1;
        let engine: Arc<dyn LocalInference> = Arc::new(Engine { workshop: Arc::clone(&workshop), number });
        Ok(engine)
    });
    let plan = InferencePlan::new(vec![info()], lazy, factory);
    Running { handle: plan.handle(), _actor: plan.start("inference", threads, Arc::new(NoTelemetry)) }
}

/// Waits, on the clock of the blocking threads, until the engine's state is as wanted.
async fn until(handle: &InferenceHandle, wanted: impl Fn(&LocalState) -> bool) {
    for _ in 0..10_000 {
        if wanted(&handle.status().state) {
            return;
        }
        // Loading runs on a real thread: give it real time, without letting the paused clock run ahead.
        std::thread::sleep(Duration::from_micros(100));
        tokio::task::yield_now().await;
    }
    panic!("still {:?}", handle.status().state);
}

fn is_failed(state: &LocalState) -> bool {
    matches!(state, LocalState::Failed(_))
}

#[test]
fn a_job_waits_for_the_engine_that_is_being_loaded() {
    on_paused_time(async {
        let threads = threads();
        let workshop = Arc::default();
        let Running { handle, _actor } = start(&threads, &workshop, false);
        assert_eq!(handle.status().state, LocalState::Loading);
        assert_eq!(handle.models()[0].context_tokens, 0);
        handle.submit(job()).await.unwrap();
        assert_eq!(handle.status().state, LocalState::Ready);
        assert_eq!(handle.models()[0].context_tokens, 2048);
        assert_eq!((workshop.made(), workshop.jobs.load(Ordering::SeqCst)), (1, 1));
    });
}

#[test]
fn a_lazy_engine_is_loaded_by_the_first_jobs_and_once() {
    on_paused_time(async {
        let threads = threads();
        let workshop = Arc::default();
        let Running { handle, _actor } = start(&threads, &workshop, true);
        pass(5_000).await;
        assert_eq!((handle.status().state, workshop.made()), (LocalState::Absent, 0));
        let taken = futures::future::join_all((0..50).map(|_| handle.submit(job()))).await;
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(workshop.made(), 1);
    });
}

#[test]
fn a_model_that_cannot_be_loaded_refuses_at_once_and_is_tried_again() {
    on_paused_time(async {
        let threads = threads();
        let workshop: Arc<Workshop> = Arc::default();
        workshop.load_fails.store(true, Ordering::SeqCst);
        let Running { handle, _actor } = start(&threads, &workshop, false);
        // A job that waited for this load hears of its end.
        let error = handle.submit(job()).await.unwrap_err();
        assert_eq!(error.class, FailureClass::NotLoaded);
        assert!(error.retry_after.is_some());
        until(&handle, is_failed).await;
        workshop.load_fails.store(false, Ordering::SeqCst);
        pass(5_000).await;
        until(&handle, |state| *state == LocalState::Ready).await;
        handle.submit(job()).await.unwrap();
    });
}

#[test]
fn a_panic_while_loading_is_a_load_that_failed() {
    on_paused_time(async {
        let threads = threads();
        let workshop: Arc<Workshop> = Arc::default();
        workshop.load_panics.store(true, Ordering::SeqCst);
        let Running { handle, _actor } = start(&threads, &workshop, false);
        assert!(handle.submit(job()).await.is_err());
        workshop.load_panics.store(false, Ordering::SeqCst);
        pass(5_000).await;
        until(&handle, |state| *state == LocalState::Ready).await;
    });
}

#[test]
fn jobs_that_find_the_engine_gone_are_taken_by_the_next_one() {
    on_paused_time(async {
        let threads = threads();
        let workshop = Arc::default();
        let Running { handle, _actor } = start(&threads, &workshop, false);
        handle.submit(job()).await.unwrap();
        workshop.lose_engines();
        let begun = Instant::now();
        let taken = futures::future::join_all((0..20).map(|_| handle.submit(job()))).await;
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(workshop.made(), 2);
        assert!(begun.elapsed() < Duration::from_millis(100));
    });
}

#[test]
fn an_engine_that_says_it_is_gone_is_replaced_without_a_job() {
    on_paused_time(async {
        let threads = threads();
        let workshop: Arc<Workshop> = Arc::default();
        workshop.tells.store(true, Ordering::SeqCst);
        let Running { handle, _actor } = start(&threads, &workshop, false);
        handle.submit(job()).await.unwrap();
        workshop.lose_engines();
        pass(1_100).await;
        until(&handle, |state| *state == LocalState::Ready).await;
        assert_eq!(workshop.made(), 2);
    });
}

#[test]
fn a_job_that_ends_engines_is_refused_after_the_second() {
    on_paused_time(async {
        let threads = threads();
        let workshop: Arc<Workshop> = Arc::default();
        let Running { handle, _actor } = start(&threads, &workshop, false);
        handle.submit(job()).await.unwrap();
        workshop.gone_up_to.store(usize::MAX, Ordering::SeqCst);
        let error = handle.submit(job()).await.unwrap_err();
        assert_eq!(error.class, FailureClass::ServerError);
        assert_eq!(workshop.made(), 2);
    });
}

#[test]
fn a_panic_of_the_worker_keeps_the_ready_engine() {
    on_paused_time(async {
        let threads = threads();
        let workshop = Arc::default();
        let Running { handle, _actor } = start(&threads, &workshop, false);
        handle.submit(job()).await.unwrap();
        assert_eq!(threads.registry().poison("inference").await, Some(ActorError::Panicked));
        handle.submit(job()).await.unwrap();
        pass(50).await;
        workshop.lose_engines();
        handle.submit(job()).await.unwrap();
        assert_eq!(workshop.made(), 2);
    });
}
