//! Working on jobs: from a delivery to its acknowledgement.

mod control;
mod desk;
mod job;
mod outbox;
mod responder;
mod running;
mod watch;

pub(crate) use control::cancellation;
pub(crate) use desk::{Desk, DeskParts};
pub(crate) use outbox::job_properties;
