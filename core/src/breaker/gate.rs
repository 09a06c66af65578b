//! What the request path reads instead of asking the owner.

use std::collections::HashMap;

use super::backend::both;
use super::config::BreakerConfig;
use super::face::{Admission, Face};
use super::words::GateDecision;
use crate::ids::ModelName;
use crate::moment::Moment;

/// The breakers of one backend at one moment; immutable and cheap to ask.
///
/// It does not age: a wait that ends after it was taken ends for its readers too. Models that have nothing
/// to say are left out, so in good times a question is two comparisons.
#[derive(Clone, Debug)]
pub struct BackendGate {
    config: BreakerConfig,
    transport: Face,
    models: HashMap<ModelName, Face>,
}

impl BackendGate {
    pub(super) fn new(config: BreakerConfig, transport: Face, models: HashMap<ModelName, Face>) -> Self {
        Self { config, transport, models }
    }

    /// Whether a caller may go in now. `roll` is uniform in [0, 1); 0 is admitted by every ramp.
    pub fn check(&self, model: &ModelName, at: Moment, roll: f64) -> GateDecision {
        let transport = self.transport.admit(&self.config, at, roll);
        let arm = if self.models.is_empty() {
            Ok(Admission::Pass)
        } else {
            self.models.get(model).map_or(Ok(Admission::Pass), |face| face.admit(&self.config, at, roll))
        };
        match both(transport, arm) {
            Ok((Admission::Pass, Admission::Pass)) => GateDecision::Pass,
            Ok(_) => GateDecision::AskActor,
            Err(refused) => GateDecision::Refused(refused),
        }
    }
}
