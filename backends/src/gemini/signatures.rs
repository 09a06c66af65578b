//! Thought signatures by call id.
//!
//! Gemini signs the reasoning that led to a function call and wants the signature back with that call in
//! the next turn; a Gemini 3 model refuses the request without it. The signature is given to the caller with
//! the call, but many clients drop fields they do not know, so it is also remembered here for an hour.
//!
//! The store is a least-recently-used map bounded by entries and by bytes: whatever a client does, it holds
//! at most 10 000 entries and 64 MiB. An entry is found only under the same call id *and* function name.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Entries kept.
const MAX_ENTRIES: usize = 10_000;
/// Bytes of keys and signatures kept.
const MAX_BYTES: usize = 64 << 20;
/// Longest signature remembered, in bytes; a longer one still travels with its call.
const MAX_SIGNATURE: usize = 1 << 20;
/// How long an entry is good for after it was stored.
const TTL: Duration = Duration::from_secs(3600);

/// A bounded, thread-safe memory of thought signatures.
#[derive(Debug, Default)]
pub(crate) struct SignatureStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// Uses in order; an item whose stamp is not its entry's latest is stale and skipped.
    uses: VecDeque<(Key, u64)>,
    next_stamp: u64,
    bytes: usize,
}

type Key = Arc<(Box<str>, Box<str>)>;

#[derive(Debug)]
struct Entry {
    signature: Arc<str>,
    stored: Instant,
    stamp: u64,
}

impl SignatureStore {
    /// Remembers the signature of a call.
    pub(crate) fn put(&self, call_id: &str, function: &str, signature: &str, now: Instant) {
        if signature.len() > MAX_SIGNATURE {
            return;
        }
        self.inner.lock().put(key(call_id, function), signature.into(), now);
    }

    /// The signature of a call, if it is still known at `now`.
    pub(crate) fn get(&self, call_id: &str, function: &str, now: Instant) -> Option<Arc<str>> {
        self.inner.lock().get(&key(call_id, function), now)
    }
}

fn key(call_id: &str, function: &str) -> Key {
    Arc::new((call_id.into(), function.into()))
}

impl Inner {
    fn put(&mut self, key: Key, signature: Arc<str>, now: Instant) {
        self.remove(&key);
        self.bytes += cost(&key, &signature);
        let stamp = self.stamp(Arc::clone(&key));
        self.entries.insert(key, Entry { signature, stored: now, stamp });
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            self.evict_oldest();
        }
    }

    fn get(&mut self, key: &Key, now: Instant) -> Option<Arc<str>> {
        let entry = self.entries.get(key)?;
        if now.saturating_duration_since(entry.stored) >= TTL {
            self.remove(key);
            return None;
        }
        let signature = Arc::clone(&entry.signature);
        let stamp = self.stamp(Arc::clone(key));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.stamp = stamp;
        }
        Some(signature)
    }

    /// Notes a use and returns its stamp; drops stale notes once they outnumber the live ones.
    fn stamp(&mut self, key: Key) -> u64 {
        if self.uses.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.uses.retain(|(key, stamp)| entries.get(key).is_some_and(|e| e.stamp == *stamp));
        }
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        self.uses.push_back((key, stamp));
        stamp
    }

    fn evict_oldest(&mut self) {
        while let Some((key, stamp)) = self.uses.pop_front() {
            if self.entries.get(&key).is_some_and(|e| e.stamp == stamp) {
                self.remove(&key);
                return;
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= cost(key, &entry.signature);
        }
    }
}

fn cost(key: &Key, signature: &str) -> usize {
    key.0.len() + key.1.len() + signature.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: Instant, seconds: u64) -> Instant {
        base + Duration::from_secs(seconds)
    }

    #[test]
    fn a_signature_is_found_for_an_hour_under_its_own_call() {
        let (store, t0) = (SignatureStore::default(), Instant::now());
        store.put("call_1", "weather", "sig", t0);
        assert_eq!(store.get("call_1", "weather", at(t0, 3599)).as_deref(), Some("sig"));
        assert_eq!(store.get("call_1", "other", t0), None);
        assert_eq!(store.get("call_2", "weather", t0), None);
        assert_eq!(store.get("call_1", "weather", at(t0, 3600)), None);
        assert_eq!(store.inner.lock().bytes, 0);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (store, t0) = (SignatureStore::default(), Instant::now());
        for i in 0..MAX_ENTRIES {
            store.put(&format!("c{i}"), "f", "s", t0);
        }
        assert!(store.get("c0", "f", t0).is_some());
        store.put("new", "f", "s", t0);
        assert!(store.get("c0", "f", t0).is_some(), "just used");
        assert!(store.get("c1", "f", t0).is_none(), "oldest use");
        assert_eq!(store.inner.lock().entries.len(), MAX_ENTRIES);
    }

    #[test]
    fn bytes_and_notes_stay_bounded() {
        let (store, t0) = (SignatureStore::default(), Instant::now());
        let big = "x".repeat(MAX_SIGNATURE);
        for i in 0..80 {
            store.put(&format!("c{i}"), "f", &big, t0);
        }
        store.put("huge", "f", &"x".repeat(MAX_SIGNATURE + 1), t0);
        assert!(store.get("huge", "f", t0).is_none());
        assert!(store.inner.lock().bytes <= MAX_BYTES);
        for _ in 0..10_000 {
            store.get("c79", "f", t0);
        }
        let inner = store.inner.lock();
        assert!(inner.uses.len() <= 2 * inner.entries.len() + 65);
    }

    #[test]
    fn storing_again_replaces() {
        let (store, t0) = (SignatureStore::default(), Instant::now());
        store.put("c", "f", "one", t0);
        store.put("c", "f", "three", at(t0, 10));
        assert_eq!(store.get("c", "f", at(t0, 3605)).as_deref(), Some("three"));
        assert_eq!(store.inner.lock().bytes, "cfthree".len());
    }
}
