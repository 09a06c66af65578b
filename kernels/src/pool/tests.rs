#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Barrier, Mutex};
use std::thread;

use super::*;

/// How often each number was called.
fn calls(pool: &Pool, tasks: usize) -> Vec<u32> {
    let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
    pool.run(tasks, &|index| {
        counts[index].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicU32::into_inner).collect()
}

#[test]
fn each_task_is_called_once_whatever_the_number_of_threads() {
    for threads in [1, 2, 3, 8] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for tasks in [0, 1, 2, 3, 7, 100, 1000] {
            assert_eq!(calls(&pool, tasks), vec![1; tasks]);
        }
    }
}

#[test]
fn thousands_of_short_jobs_lose_no_task_and_no_wake_up() {
    let pool = Pool::new(4);
    for round in 0..20_000 {
        let sum = AtomicUsize::new(0);
        pool.run(5, &|index| {
            sum.fetch_add(index + 1, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 15, "round {round}");
    }
}

#[test]
fn jobs_after_a_pause_find_workers_that_sleep() {
    let pool = Pool::new(3);
    for pause in [0, 10, 39, 41, 60, 100, 500, 3000].repeat(40) {
        thread::sleep(Duration::from_micros(pause));
        // All three meet here, so that the job ends only if every worker is woken.
        let barrier = Barrier::new(3);
        pool.run(3, &|_| {
            barrier.wait();
        });
    }
}

#[test]
fn workers_are_named_and_the_caller_works_too() {
    let pool = Pool::new(3);
    let names = Mutex::new(HashSet::new());
    let barrier = Barrier::new(3);
    pool.run(3, &|_| {
        barrier.wait();
        names.lock().unwrap().insert(thread::current().name().map(str::to_owned));
    });
    let own = thread::current().name().map(str::to_owned);
    let want = [own, Some("inference-1".to_owned()), Some("inference-2".to_owned())];
    assert_eq!(names.into_inner().unwrap(), HashSet::from(want));
}

#[test]
fn a_panic_of_any_task_reaches_the_caller_after_the_others_and_the_pool_stays_usable() {
    for threads in [2, 4] {
        let pool = Pool::new(threads);
        for bad in 0..20 {
            let done = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(20, &|index| {
                    thread::sleep(Duration::from_micros(20));
                    assert!(index != bad, "task {index} fails");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }));
            let message = outcome.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(*message, format!("task {bad} fails"));
            assert_eq!(done.into_inner(), 19);
            assert_eq!(calls(&pool, 50), vec![1; 50]);
        }
    }
}

#[test]
fn of_several_panics_one_reaches_the_caller() {
    let pool = Pool::new(3);
    let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(100, &|_| panic!("all fail"))));
    assert_eq!(*outcome.unwrap_err().downcast::<&str>().unwrap(), "all fail");
    assert_eq!(calls(&pool, 9), vec![1; 9]);
}

#[test]
fn several_callers_at_once_are_all_served() {
    let pool = Pool::new(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    assert_eq!(calls(&pool, 6), vec![1; 6]);
                }
            });
        }
    });
}

#[test]
fn a_task_may_run_tasks() {
    let pool = Pool::new(2);
    let count = AtomicUsize::new(0);
    pool.run(4, &|_| {
        pool.run(5, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.into_inner(), 20);
}

#[test]
fn a_caller_that_waits_long_for_the_last_task_is_told_of_its_end() {
    let pool = Pool::new(2);
    for _ in 0..20 {
        let ended = AtomicBool::new(false);
        let barrier = Barrier::new(2);
        let caller = thread::current().id();
        pool.run(2, &|_| {
            barrier.wait();
            if thread::current().id() != caller {
                thread::sleep(Duration::from_millis(2));
                ended.store(true, Ordering::Relaxed);
            }
        });
        assert!(ended.into_inner());
    }
}

#[test]
fn idle_workers_sleep() {
    let pool = Pool::new(3);
    calls(&pool, 10);
    let asleep = || pool.workers.iter().all(Worker::is_asleep);
    let patience = std::time::Instant::now();
    while !asleep() {
        assert!(patience.elapsed() < Duration::from_secs(20), "workers spin on");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(calls(&pool, 10), vec![1; 10]);
}

#[test]
fn a_pool_ends_its_threads_when_dropped() {
    for _ in 0..50 {
        let pool = Pool::new(4);
        calls(&pool, 4);
        let gate = Arc::downgrade(&pool.gate);
        drop(pool);
        assert!(gate.upgrade().is_none(), "a thread still holds the gate");
    }
}
