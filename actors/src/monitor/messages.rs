//! What is sent to the ServiceMonitor.

use actix::Message;

/// Probes everything now; answered when all probes have ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Refresh;
