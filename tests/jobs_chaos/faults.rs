//! What the plan says, done.

use std::collections::BTreeMap;

use opossum_testkit::Broker;

use crate::cluster::{Cluster, VHOST, Worker};
use crate::plan::{Act, BrokerFault, Timed, WorkerFault};

/// The name of the one fault that makes jobs run again.
pub(crate) const WORKER_KILLED: &str = "worker killed";

/// How often each fault was met.
pub(crate) type Tally = BTreeMap<&'static str, usize>;

/// Breaks the broker and the workers as an act says, side by side; everything is there again afterwards.
pub(crate) async fn storm(cluster: &mut Cluster, act: &Act, tally: &mut Tally) {
    let (broker, workers) = (&mut cluster.broker, &mut cluster.workers);
    let (of_broker, of_workers) =
        tokio::join!(break_broker(broker, &act.broker), break_workers(workers, &act.workers));
    for name in of_broker.into_iter().chain(of_workers) {
        *tally.entry(name).or_default() += 1;
    }
}

/// Loses the store for a while.
pub(crate) async fn lose_store(cluster: &mut Cluster, act: &Act, tally: &mut Tally) {
    cluster.store.lose();
    tokio::time::sleep(act.store_away).await;
    cluster.store.find().await;
    *tally.entry("store lost").or_default() += 1;
}

async fn break_broker(broker: &mut Broker, faults: &[Timed<BrokerFault>]) -> Vec<&'static str> {
    let mut done = Vec::new();
    for Timed { after, fault } in faults {
        tokio::time::sleep(*after).await;
        done.push(match *fault {
            BrokerFault::Kill { away } => {
                broker.kill();
                tokio::time::sleep(away).await;
                broker.restart().await;
                "broker killed"
            }
            BrokerFault::Freeze { lasts } => {
                broker.freeze();
                tokio::time::sleep(lasts).await;
                broker.thaw();
                "broker frozen"
            }
            BrokerFault::CloseConnections => {
                let host = format!("v{VHOST}");
                broker.control(&["close_all_connections", "-p", &host, "as the plan says"]).await;
                "all connections closed"
            }
        });
    }
    done
}

async fn break_workers(workers: &mut [Worker], faults: &[Timed<(usize, WorkerFault)>]) -> Vec<&'static str> {
    let mut done = Vec::new();
    for Timed { after, fault: (worker, fault) } in faults {
        tokio::time::sleep(*after).await;
        let worker = &mut workers[*worker];
        done.push(match *fault {
            WorkerFault::Kill { away } => {
                worker.kill(away).await;
                WORKER_KILLED
            }
            WorkerFault::Cut(link) => {
                worker.cut(link);
                "connection cut"
            }
            WorkerFault::Mute(link) => {
                worker.mute(link);
                "connection muted"
            }
        });
    }
    done
}
