//! The ledger: opened at start, asked for a sign of life by the monitor.

use std::sync::Arc;
use std::time::Duration;

use opossum_actors::DependencyPlan;
use opossum_ledger::{Ledger, LedgerConfig, LedgerError, LedgerObserver};

use super::WiringError;
use crate::settings::Settings;
use crate::telemetry::Metrics;

/// Starts to open the ledger; requests need not wait for it.
pub(super) fn start(settings: &Settings, metrics: &Metrics) -> Result<Ledger, WiringError> {
    let address = settings.database.address(&settings.state_dir)?;
    let observer = Arc::clone(&metrics.ledger) as Arc<dyn LedgerObserver>;
    Ok(Ledger::start(LedgerConfig::new(address), observer))
}

/// Asks the ledger to write. One that is silent for longer than this is told of with what was last wrong.
pub(super) fn plan(ledger: &Ledger, patience: Duration) -> DependencyPlan {
    let ledger = ledger.clone();
    DependencyPlan {
        name: crate::service::LEDGER.to_owned(),
        probe: Some(Arc::new(move || Box::pin(ask(ledger.clone(), patience)))),
    }
}

async fn ask(ledger: Ledger, patience: Duration) -> Result<(), String> {
    let answer = tokio::time::timeout(patience, ledger.probe()).await;
    let answer = answer.unwrap_or_else(|_| Err(ledger.fault().unwrap_or(LedgerError::Timeout)));
    answer.map_err(|error| error.to_string())
}
