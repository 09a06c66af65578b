//! Catching panics, and saying once what happened.
//!
//! The default panic hook prints several lines to stderr before `catch_unwind` ever sees the
//! panic. A library must not replace the process's hook, so [`quiet_hook`] only makes one: the
//! binary installs it, and from then on a guarded panic is silent in the hook and is logged by the
//! guardian, with the place the hook saw.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// A panic hook as `std::panic::set_hook` takes it.
pub type PanicHook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync + 'static>;

thread_local! {
    /// Depth of guarded code on this thread.
    static GUARDED: Cell<usize> = const { Cell::new(0) };
    /// `file:line` of the last guarded panic on this thread.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A hook that keeps quiet about panics a guardian catches and hands others to `previous`.
///
/// It is about time as well as about tidy logs: with backtraces on, the default hook can keep the actors'
/// thread busy for more than 100 ms with the symbols of one panic, and all actors wait for it.
///
/// ```
/// std::panic::set_hook(opossum_actors::guardian::quiet_hook(std::panic::take_hook()));
/// ```
#[must_use]
pub fn quiet_hook(previous: PanicHook) -> PanicHook {
    Box::new(move |info| {
        // try_with: a panic may come while the thread's locals are already being destroyed.
        if GUARDED.try_with(Cell::get).unwrap_or(0) == 0 {
            return previous(info);
        }
        let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
        let _ = PLACE.try_with(|last| last.replace(place));
    })
}

/// What a panic said, and where where it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panic {
    pub(crate) message: String,
    /// `file:line`; only with [`quiet_hook`] installed.
    pub(crate) place: Option<String>,
}

impl Panic {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let place = PLACE.try_with(RefCell::take).unwrap_or(None);
        let message = match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(message) => (*message).to_owned(),
                Err(payload) => {
                    // A payload of another type may panic in its own destructor, outside of any
                    // guard. Leaking one value is the cheaper outcome.
                    std::mem::forget(payload);
                    "a value that is not text".to_owned()
                }
            },
        };
        Self { message, place }
    }
}

/// Marks the thread as guarded while it lives.
struct Guarded;

impl Guarded {
    fn enter() -> Self {
        GUARDED.with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        GUARDED.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Runs `work` and turns a panic into a value.
///
/// Unwind safety is asserted: callers drop whatever state `work` could have left half changed.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Result<R, Panic> {
    let guarded = Guarded::enter();
    let outcome = catch_unwind(AssertUnwindSafe(work));
    drop(guarded);
    outcome.map_err(Panic::new)
}

/// Runs a future and turns a panic in any of its polls into a value.
pub(crate) async fn catch_future<F: Future>(work: F) -> Result<F::Output, Panic> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| match catch(|| work.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "tests")]

    use super::*;
    use crate::testing::{heard_panics, quiet_panics};

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }

    #[test]
    fn text_payloads_are_told() {
        let of = |work: fn()| catch(work).map_err(|panic| panic.message);
        assert_eq!(of(|| panic!("plain")), Err("plain".to_owned()));
        assert_eq!(of(|| panic!("number {}", 7)), Err("number 7".to_owned()));
        assert_eq!(of(|| {}), Ok(()));
    }

    #[test]
    fn a_payload_whose_destructor_panics_is_survived() {
        let outcome = catch(|| std::panic::panic_any(PanicsOnDrop));
        assert_eq!(outcome.map_err(|panic| panic.message), Err("a value that is not text".to_owned()));
    }

    #[tokio::test]
    async fn a_panic_between_two_awaits_is_caught() {
        let outcome = catch_future(async {
            tokio::task::yield_now().await;
            panic!("later");
        });
        assert_eq!(outcome.await.map_err(|panic: Panic| panic.message), Err::<(), _>("later".to_owned()));
    }

    #[test]
    fn the_hook_is_quiet_for_guarded_panics_only_and_notes_their_place() {
        quiet_panics();
        let guarded = catch(|| panic!("guarded"));
        assert_eq!(heard_panics(), 0);
        let unguarded = catch_unwind(|| panic!("not guarded"));
        assert!(unguarded.is_err());
        assert_eq!(heard_panics(), 1);
        let place = guarded.map_err(|panic| panic.place.unwrap_or_default());
        assert!(place.is_err_and(|place| place.contains("panics.rs:")));
    }
}
