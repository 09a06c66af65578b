//! Files and templates that lie: every seed of the fuzz targets, and what reading a lie may allocate. In a file of its
//! own: it counts the allocations of its process, by thread.

#![expect(unsafe_code, reason = "an allocator is unsafe by nature; this one only counts")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use opossum_inference::InferenceError;
use opossum_inference::gguf::Header;
use opossum_inference::safetensors::tensors_of;
use opossum_inference::testing::hostile;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    // A thread that is ending has no counter any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held at once by `work` above what was held before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let result = work();
    (result, (MOST.get() - before) as usize)
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    assert!(seeds.len() >= 10, "{target} has only {} seeds", seeds.len());
    seeds
}

#[test]
fn every_seed_file_is_read_or_refused() {
    for (name, bytes) in seeds("gguf") {
        hostile::gguf(&bytes);
        let refused = matches!(Header::parse(&bytes), Err(InferenceError::ModelInvalid { .. }));
        assert_eq!(refused, name.starts_with("lie-"), "{name}");
    }
}

#[test]
fn every_seed_table_is_read_or_refused() {
    for (name, bytes) in seeds("safetensors") {
        hostile::safetensors(&bytes);
        let (result, most) = peak(|| tensors_of(&bytes).map(drop));
        let refused = matches!(result, Err(InferenceError::ModelInvalid { .. }));
        assert_eq!(refused, name.starts_with("lie-"), "{name}");
        // Besides the content: the message and the small change of hash tables.
        assert!(most <= bytes.len() * 11 / 10 + 4096, "{name}: {most} bytes for a file of {}", bytes.len());
    }
}

#[test]
fn every_seed_template_ends_soon() {
    for (name, source) in seeds("template") {
        let started = Instant::now();
        hostile::template(std::str::from_utf8(&source).unwrap());
        // The limit is 100 ms in an optimised build; a busy machine and an unoptimised one take longer.
        assert!(started.elapsed() < Duration::from_secs(5), "{name} took {:?}", started.elapsed());
    }
}

#[test]
fn a_file_that_lies_allocates_no_more_than_it_holds() {
    for (name, bytes) in seeds("gguf").into_iter().filter(|(name, _)| name.starts_with("lie-")) {
        let (result, most) = peak(|| Header::parse(&bytes).map(drop));
        assert!(result.is_err(), "{name}");
        // Besides the content: the message and the small change of hash tables.
        let limit = bytes.len() * 11 / 10 + 4096;
        assert!(most <= limit, "{name}: {most} bytes for a file of {}", bytes.len());
    }
}

/// One tensor of one number for every 32 bytes of data.
fn many_tensors(count: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((count as u64).to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    for index in 0..count {
        let name = format!("{index}");
        file.extend((name.len() as u64).to_le_bytes());
        file.extend(name.as_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(1_u64.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        file.extend((index as u64 * 32).to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32) + 32 * count, 0);
    file
}

#[test]
fn a_hundred_thousand_tensors_are_read_and_one_more_refused() {
    let file = many_tensors(100_000);
    let (header, most) = peak(|| Header::parse(&file).unwrap());
    assert_eq!(header.tensors.len(), 100_000);
    // A description takes more room in memory than in the file; what matters is that the factor is small.
    assert!(most <= 8 * file.len(), "{most} bytes for a file of {}", file.len());
    assert!(Header::parse(&many_tensors(100_001)).is_err());
}

#[test]
fn the_counter_counts() {
    let ((), most) = peak(|| drop(std::hint::black_box(vec![0_u8; 5000])));
    assert!(most >= 5000);
}
