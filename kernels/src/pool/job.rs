//! One job, and the gate through which workers come to it.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use super::SPIN;

/// What a task threw.
pub(super) type Panic = Box<dyn Any + Send>;

/// Numbers to call a task with. Threads take them one by one.
#[repr(align(64))]
pub(super) struct Job<'a> {
    next: AtomicUsize,
    tasks: usize,
    task: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Panic>>,
}

impl<'a> Job<'a> {
    pub(super) fn new(tasks: usize, task: &'a (dyn Fn(usize) + Sync)) -> Self {
        Self { next: AtomicUsize::new(0), tasks, task, panic: Mutex::new(None) }
    }

    /// Takes tasks until none is left. Never unwinds: the first panic is kept.
    pub(super) fn work(&self) {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks())) {
            let mut kept = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            kept.get_or_insert(panic);
        }
    }

    fn take_tasks(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.tasks {
                return;
            }
            (self.task)(index);
        }
    }

    /// What the first task that panicked threw.
    pub(super) fn into_panic(self) -> Option<Panic> {
        self.panic.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Workers may join the job.
const OPEN: u64 = 1 << 31;
/// The owner of the job sleeps until the last worker has left.
const AWAITED: u64 = 1 << 30;
/// No job comes any more.
const STOPPED: u64 = 1 << 29;
/// Workers that have joined.
const COUNT: u64 = STOPPED - 1;
/// Jobs are numbered in the upper half, so that a worker joins each at most once.
const NUMBER: u64 = 1 << 32;

/// Where workers find the job of the moment.
///
/// The job lies on its owner's stack. It is reachable from [`Gate::open`] until the [`Open`] is dropped, which closes
/// the gate and waits for those who are inside; a worker touches it only between joining and leaving, and it joins by
/// one exchange of `state` that fails if the gate has closed.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Gate {
    /// Number, flags and count in one word.
    state: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    owner: Mutex<Option<Thread>>,
}

/// What a waiting worker sees.
pub(super) enum Sight {
    Nothing,
    /// A job that it has not seen: the state to join by.
    Job(u64),
    Stopped,
}

impl Sight {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

impl Gate {
    /// Lets workers in. Only the one caller that has the workers may do so, and it keeps the result until all tasks are
    /// taken.
    pub(super) fn open<'a>(&'a self, job: &'a Job<'_>) -> Open<'a> {
        self.job.store(ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        // The gate is closed and empty: nobody else writes the state. Sequentially consistent against a worker that
        // says that it sleeps and then looks here once more.
        let number = self.state.load(Ordering::Relaxed) / NUMBER;
        self.state.store((number.wrapping_add(1) * NUMBER) | OPEN, Ordering::SeqCst);
        Open { gate: self, job: PhantomData }
    }

    /// Tells workers to end. No job is open.
    pub(super) fn stop(&self) {
        self.state.fetch_or(STOPPED, Ordering::SeqCst);
    }

    /// `seen`: the state by which the worker joined last.
    pub(super) fn look(&self, seen: u64) -> Sight {
        let state = self.state.load(Ordering::SeqCst);
        match state {
            _ if state & STOPPED != 0 => Sight::Stopped,
            _ if state & OPEN != 0 && state / NUMBER != seen / NUMBER => Sight::Job(state),
            _ => Sight::Nothing,
        }
    }

    /// Works on the job if it is still open. `state` is what [`Gate::look`] saw.
    pub(super) fn join(&self, state: u64) -> bool {
        if self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        // SAFETY: the gate was open when this worker was counted in, so the owner of the job keeps it until this worker
        // is counted out below; the job was written before the gate was opened.
        unsafe { &*self.job.load(Ordering::Relaxed) }.work();
        let before = self.state.fetch_sub(1, Ordering::AcqRel);
        if before & COUNT == 1 && before & AWAITED != 0 {
            let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(owner) = owner.as_ref() {
                owner.unpark();
            }
        }
        true
    }

    fn is_empty(&self) -> bool {
        self.state.load(Ordering::Acquire) & COUNT == 0
    }

    /// Closes the gate and returns when all who joined have left.
    fn close(&self) {
        if self.state.fetch_and(!OPEN, Ordering::AcqRel) & COUNT == 0 {
            return;
        }
        if spin_until(|| self.is_empty()) {
            return;
        }
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
        self.state.fetch_or(AWAITED, Ordering::AcqRel);
        while !self.is_empty() {
            std::thread::park();
        }
    }
}

/// A job that workers may join; closed when dropped.
pub(super) struct Open<'a> {
    gate: &'a Gate,
    job: PhantomData<&'a ()>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.gate.close();
    }
}

/// Whether it came true within [`SPIN`].
pub(super) fn spin_until(mut condition: impl FnMut() -> bool) -> bool {
    /// Looks at the condition from one look at the clock to the next.
    const LOOKS: usize = 16;
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}
