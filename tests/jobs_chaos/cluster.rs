//! What a run is made of: a broker, a store, an upstream, and workers that each reach the broker by a proxy of
//! their own.
//!
//! The store is a PostgreSQL, as replicas on several machines share one; an SQLite file, which cannot be lost
//! while its users live, is what `jobs_survive_a_kill` has. A store of another kind is another [`Store`].

use std::net::SocketAddr;
use std::time::Duration;

use opossum_testkit::requester::PATIENCE;
use opossum_testkit::{Broker, Postgres, Proxy, Script, Service, Step, Upstream, eventually};

use crate::plan::{Link, WORKERS};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// Jobs that one worker works on at once.
pub(crate) const SLOTS: usize = 16;

/// How long the upstream takes, in milliseconds, by turns.
const WORK: [u64; 4] = [5, 20, 50, 120];

/// The virtual host of the run.
pub(crate) const VHOST: usize = 0;

/// All that a run is made of.
pub(crate) struct Cluster {
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    pub(crate) upstream: Upstream,
    pub(crate) workers: Vec<Worker>,
}

/// What remembers the jobs.
pub(crate) struct Store(Postgres);

/// A replica of the service.
pub(crate) struct Worker {
    /// Nothing only while it is away.
    service: Option<Service>,
    proxy: Proxy,
}

impl Cluster {
    /// Starts everything; `None` where the store is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let store = Store(Postgres::start().await?);
        let url = store.0.database("jobs");
        let broker = Broker::start("").await;
        let upstream = Upstream::openai().start();
        let takes = |ms| Script::new().delay(Duration::from_millis(ms)).then(Step::Echo);
        upstream.set_cycle(WORK.map(takes).to_vec());
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            let proxy = Proxy::to(broker.port()).await;
            let service = Service::of(BIN)
                .named("only", &upstream)
                .set("server.max_in_flight", SLOTS)
                // On a busy machine this upstream is slow, which is not what is broken here.
                .env("ONLY_CIRCUIT_BREAKER_ENABLED", "false")
                .env("LOG_LEVEL", "warn")
                .env("AMQP_URL", Broker::url_by(proxy.port(), "opossum", VHOST))
                .env("DATABASE_URL", &url);
            workers.push(Worker { service: Some(service.start().await), proxy });
        }
        for worker in &workers {
            worker.well().await;
        }
        Some(Self { broker, store, upstream, workers })
    }

    /// Where the workers listen; it stays when they come back.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.workers.iter().filter_map(|worker| Some(worker.service.as_ref()?.addr())).collect()
    }

    /// Whether no job is left with the broker, waiting or being worked on, within so long.
    pub(crate) async fn settled(&self, within: Duration) -> bool {
        eventually(within, async || {
            let queues = self.queues().await;
            queues.lines().all(|line| !line.starts_with("opossum.jobs.") || is_empty_or_dead(line))
        })
        .await
    }

    /// The queues, and how many messages each has.
    pub(crate) async fn queues(&self) -> String {
        let host = format!("v{VHOST}");
        self.broker.control(&["-q", "-p", &host, "list_queues", "name", "messages"]).await
    }
}

/// Whether a line of the list is of an empty queue, or of the one for those that were given up.
fn is_empty_or_dead(line: &str) -> bool {
    let mut fields = line.split_whitespace();
    let (name, messages) = (fields.next(), fields.next());
    messages == Some("0") || name == Some("opossum.jobs.dead")
}

impl Store {
    /// Kills it.
    pub(crate) fn lose(&mut self) {
        self.0.kill();
    }

    /// Starts it again.
    pub(crate) async fn find(&mut self) {
        self.0.resume().await;
    }
}

impl Worker {
    /// Kills it, and starts it again after a while.
    pub(crate) async fn kill(&mut self, away: Duration) {
        if let Some(mut service) = self.service.take() {
            service.kill();
            tokio::time::sleep(away).await;
            self.service = Some(service.restart().await);
        }
    }

    /// Cuts a connection.
    pub(crate) fn cut(&self, link: Link) {
        self.proxy.cut(name(link));
    }

    /// Lets nothing through any more of what it says on a connection.
    pub(crate) fn mute(&self, link: Link) {
        self.proxy.mute(name(link));
    }

    /// Waits until everything it needs is there.
    ///
    /// # Panics
    /// When something stays away, with what it logged.
    async fn well(&self) {
        let Some(service) = &self.service else { return };
        let client = service.client();
        let well = eventually(PATIENCE, async || client.health(false).await["status"] == "ok");
        assert!(well.await, "{}", service.logs());
    }
}

/// What a connection calls itself.
fn name(link: Link) -> &'static str {
    match link {
        Link::Consumer => "opossum consumer",
        Link::Publisher => "opossum publisher",
    }
}
