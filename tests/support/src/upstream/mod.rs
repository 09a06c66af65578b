//! A fake OpenAI, Gemini or Ollama server that follows scripts and records what it saw.
//!
//! Each upstream runs on a thread of its own, so that neither a busy nor a time-paused test disturbs it. It
//! watches the caller while it answers: a caller that leaves (FIN or RST) is recorded with the time, counted
//! from the arrival of the request.

mod dialect;
mod play;
mod record;
mod serve;
mod vectors;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub use dialect::{Dialect, PROMPT_TOKENS};
pub use record::Seen;
pub use vectors::vector_of;

use crate::script::Script;
use crate::wait::eventually;
use record::{Plan, State};

/// What the upstream's thread and its owner share.
pub(crate) struct Shared {
    dialect: Dialect,
    models: Vec<String>,
    state: Mutex<State>,
}

impl Shared {
    /// The state; a test that panicked while holding it left nothing half-written.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running fake upstream; stops when dropped.
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// An upstream about to be started.
pub struct UpstreamBuilder {
    dialect: Dialect,
    models: Vec<String>,
    plan: Plan,
    probe: Option<Script>,
}

impl UpstreamBuilder {
    /// Answers every request well, with this text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.script(Script::text(text))
    }

    /// Answers every request by this script.
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.plan.set_default(vec![script]);
        self
    }

    /// Answers the first requests by these scripts, one each, then by the default.
    #[must_use]
    pub fn first(mut self, scripts: impl IntoIterator<Item = Script>) -> Self {
        self.plan.queue.extend(scripts);
        self
    }

    /// Answers probes (lists of models, versions) by this script.
    #[must_use]
    pub fn probe(mut self, script: Script) -> Self {
        self.probe = Some(script);
        self
    }

    /// What the upstream lists as its models.
    #[must_use]
    pub fn models(mut self, models: &[&str]) -> Self {
        self.models = models.iter().map(|m| (*m).to_owned()).collect();
        self
    }

    /// Starts it on a free port of the loopback interface.
    pub fn start(self) -> Upstream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let state = Mutex::new(State::new(self.plan, self.probe));
        let shared = Arc::new(Shared { dialect: self.dialect, models: self.models, state });
        let running = Some(spawn(listener, &shared));
        Upstream { addr, shared, running }
    }
}

impl Upstream {
    /// An OpenAI-compatible server with the model `test-model`.
    pub fn openai() -> UpstreamBuilder {
        Self::of(Dialect::OpenAi, &["test-model"])
    }

    /// A Gemini API with the models `gemini-2.5-flash` and `gemini-2.5-pro`.
    pub fn gemini() -> UpstreamBuilder {
        Self::of(Dialect::Gemini, &["gemini-2.5-flash", "gemini-2.5-pro"])
    }

    /// An Ollama server that has pulled `llama3.2:1b`.
    pub fn ollama() -> UpstreamBuilder {
        Self::of(Dialect::Ollama, &["llama3.2:1b"])
    }

    fn of(dialect: Dialect, models: &[&str]) -> UpstreamBuilder {
        UpstreamBuilder { dialect, models: Vec::new(), plan: Plan::new(Script::text("hello")), probe: None }
            .models(models)
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The base that an OpenAI SDK is given: it ends in `/v1`.
    pub fn openai_base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// From now on, requests past the queue are answered by this script.
    pub fn set_default(&self, script: Script) {
        self.shared.state().plan.set_default(vec![script]);
    }

    /// From now on, requests past the queue are answered by these scripts in turn.
    ///
    /// # Panics
    /// When there is none.
    pub fn set_cycle(&self, scripts: Vec<Script>) {
        assert!(!scripts.is_empty(), "a cycle needs a script");
        self.shared.state().plan.set_default(scripts);
    }

    /// From now on, requests for this model are answered by this script, whatever else is set.
    pub fn set_model(&self, model: &str, script: Script) {
        self.shared.state().by_model.insert(model.to_owned(), script);
    }

    /// Adds scripts for the next requests, one each.
    pub fn push(&self, scripts: impl IntoIterator<Item = Script>) {
        self.shared.state().plan.queue.extend(scripts);
    }

    /// From now on, probes are answered by this script; well again with `None`.
    pub fn set_probe(&self, script: Option<Script>) {
        self.shared.state().probe = script;
    }

    /// Every request for an answer so far, in order of arrival; probes are not among them.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Every probe so far, in order of arrival.
    pub fn probes(&self) -> Vec<Seen> {
        self.shared.state().probes.clone()
    }

    /// Number of requests for an answer so far.
    pub fn calls(&self) -> usize {
        self.shared.state().seen.len()
    }

    /// Number of requests that are being answered now.
    pub fn in_flight(&self) -> usize {
        self.shared.state().seen.iter().filter(|s| s.ended.is_none()).count()
    }

    /// Waits for at least `n` requests; false when `limit` passes first.
    pub async fn wait_calls(&self, n: usize, limit: Duration) -> bool {
        eventually(limit, async || self.calls() >= n).await
    }

    /// Waits until the caller of request `index` has left, and says how long after its arrival that was.
    pub async fn wait_abort(&self, index: usize, limit: Duration) -> Option<Duration> {
        eventually(limit, async || self.seen().get(index).is_some_and(|s| s.aborted_after.is_some())).await;
        self.seen().get(index)?.aborted_after
    }

    /// Kills the upstream: connections break, new ones are refused. What it recorded stays.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // The thread is gone already only if it panicked; joining tells.
            let _ = running.stop.send(());
            running.thread.join().expect("the upstream's thread ends well");
        }
    }

    /// Brings a killed upstream back at the same address.
    pub fn restart(&mut self) {
        self.stop();
        let listener = TcpListener::bind(self.addr).expect("the upstream's own port");
        self.running = Some(spawn(listener, &self.shared));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            let _ = running.thread.join();
        }
    }
}

fn spawn(listener: TcpListener, shared: &Arc<Shared>) -> Running {
    let (stop, stopped) = oneshot::channel();
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new()
        .name("fake-upstream".to_owned())
        .spawn(move || serve::run(listener, &shared, stopped))
        .expect("a thread for the upstream");
    Running { stop, thread }
}
