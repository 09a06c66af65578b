//! The jobs under way in this process, and how they are cancelled.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use opossum_core::jobs::JobKey;
use tokio::sync::Notify;

/// The jobs under way.
#[derive(Debug, Default)]
pub(crate) struct Running {
    by_key: RefCell<HashMap<JobKey, Rc<Notify>>>,
}

/// A job under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Underway<'a> {
    running: &'a Running,
    key: JobKey,
    cancelled: Rc<Notify>,
}

impl Running {
    /// Notes a job; `None` when it is under way already, for a message that came twice.
    pub(crate) fn begin(&self, key: &JobKey) -> Option<Underway<'_>> {
        let mut by_key = self.by_key.borrow_mut();
        if by_key.contains_key(key) {
            return None;
        }
        let cancelled = Rc::new(Notify::new());
        by_key.insert(key.clone(), Rc::clone(&cancelled));
        Some(Underway { running: self, key: key.clone(), cancelled })
    }

    /// Stops a job, if it is under way.
    pub(crate) fn cancel(&self, key: &JobKey) {
        if let Some(cancelled) = self.by_key.borrow().get(key) {
            // Kept for one who is not waiting yet.
            cancelled.notify_one();
        }
    }
}

impl Underway<'_> {
    /// Waits until the job is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.running.by_key.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_job_is_under_way_once_and_hears_of_its_cancellation() {
        let running = Running::default();
        let key = JobKey::new("acme", "m1");
        running.cancel(&key);
        let job = running.begin(&key);
        assert!(running.begin(&key).is_none());
        if let Some(job) = &job {
            assert!(job.cancelled().now_or_never().is_none(), "it had not begun");
            running.cancel(&key);
            job.cancelled().await;
        }
        drop(job);
        assert!(running.begin(&key).is_some());
    }
}
