//! The store and the flights over it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::key::CacheKey;
use super::lru::Lru;

/// The numbers of an [`ExactCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// How long an answer is good.
    pub ttl: Duration,
    /// Bytes kept at most, with an allowance for the store's own.
    pub max_bytes: usize,
    /// Bytes of one answer at most; a larger one is not kept.
    pub max_entry_bytes: usize,
    /// How long a leader may take before a newcomer no longer waits for it.
    pub max_flight: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(3600),
            max_bytes: 64 << 20,
            max_entry_bytes: 4 << 20,
            // The longest that an upstream may take in all.
            max_flight: Duration::from_secs(300),
        }
    }
}

/// What an entry costs beyond its answer: key, links and the map's slot, rounded up.
const OVERHEAD: usize = 192;

/// Who waits: a number of the caller's own choice, different for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(pub u64);

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn<V> {
    /// Here it is.
    Hit(V),
    /// The caller is to compute it, and to end the flight by [`ExactCache::complete`] or
    /// [`ExactCache::abandon`].
    Lead,
    /// Someone is computing it: wait.
    Join,
}

/// How a flight ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// Those who wait, in the order of their arrival.
    pub followers: VecDeque<OwnerId>,
    /// Whether the answer was kept.
    pub stored: bool,
}

/// What the cache did so far. Counts grow; keys and bytes are of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStats {
    /// Found.
    pub hits: u64,
    /// Not found; the caller led.
    pub misses: u64,
    /// Not found, but someone was computing it.
    pub joins: u64,
    /// Answers kept now.
    pub keys: usize,
    /// Bytes of them now.
    pub bytes: usize,
    /// Answers dropped to make room.
    pub evictions: u64,
    /// Answers dropped for their age.
    pub expirations: u64,
    /// Answers not kept for their size.
    pub too_large: u64,
}

struct Stored<V> {
    value: V,
    bytes: usize,
    expires: Instant,
}

struct Flight {
    leader: OwnerId,
    since: Instant,
    /// The flush before which it began: what was flushed must not come back by a late leader.
    epoch: u64,
    followers: VecDeque<OwnerId>,
}

/// Answers by key, within a budget of bytes and of age, with single flight.
///
/// It has one owner. `V` is cheap to clone (an `Arc`). Every operation takes constant time, apart from
/// evicting as many old entries as a new one displaces.
pub struct ExactCache<V> {
    config: CacheConfig,
    entries: Lru<Stored<V>>,
    flights: HashMap<CacheKey, Flight>,
    bytes: usize,
    epoch: u64,
    stats: CacheStats,
}

impl<V: Clone> ExactCache<V> {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Self {
        Self {
            config,
            entries: Lru::new(),
            flights: HashMap::new(),
            bytes: 0,
            epoch: 0,
            stats: CacheStats::default(),
        }
    }

    /// Looks a key up and, when it is not there, takes part in its flight as `owner`.
    pub fn begin(&mut self, key: CacheKey, owner: OwnerId, now: Instant) -> Turn<V> {
        if let Some(value) = self.get(&key, now) {
            self.stats.hits += 1;
            return Turn::Hit(value);
        }
        if let Some(flight) = self.flights.get_mut(&key)
            && now.saturating_duration_since(flight.since) < self.config.max_flight
        {
            flight.followers.push_back(owner);
            self.stats.joins += 1;
            return Turn::Join;
        }
        self.stats.misses += 1;
        // Followers of a leader that took too long wait on, now for the new one.
        let followers = self.flights.remove(&key).map(|flight| flight.followers).unwrap_or_default();
        self.flights.insert(key, Flight { leader: owner, since: now, epoch: self.epoch, followers });
        Turn::Lead
    }

    /// Ends `owner`'s flight with an answer and its size in bytes, or with none that may be shared.
    ///
    /// Followers are handed over in any case: with no value each has to compute for itself. A leader that
    /// was replaced in the meantime ends nothing, and its answer is not kept.
    pub fn complete(
        &mut self,
        key: CacheKey,
        owner: OwnerId,
        value: Option<(V, usize)>,
        now: Instant,
    ) -> Completed {
        let leads = self.flights.get(&key).is_some_and(|flight| flight.leader == owner);
        let flight = if leads { self.flights.remove(&key) } else { None };
        let current = flight.as_ref().is_some_and(|flight| flight.epoch == self.epoch);
        let stored = match value {
            Some((value, bytes)) if current => self.insert(key, value, bytes, now),
            _ => false,
        };
        Completed { followers: flight.map(|flight| flight.followers).unwrap_or_default(), stored }
    }

    /// `owner` gives up before it is done. If it led and others wait, the first of them leads from now on
    /// and is returned: it must be told, and if it is gone too, must be given up in turn.
    pub fn abandon(&mut self, key: &CacheKey, owner: OwnerId, now: Instant) -> Option<OwnerId> {
        let flight = self.flights.get_mut(key)?;
        if flight.leader != owner {
            return None;
        }
        match flight.followers.pop_front() {
            Some(next) => {
                flight.leader = next;
                flight.since = now;
                flight.epoch = self.epoch;
                Some(next)
            }
            None => {
                self.flights.remove(key);
                None
            }
        }
    }

    /// Keeps an answer outside any flight; says whether it was kept.
    pub fn insert(&mut self, key: CacheKey, value: V, bytes: usize, now: Instant) -> bool {
        self.remove(&key);
        let bytes = bytes.saturating_add(OVERHEAD);
        if bytes > self.config.max_entry_bytes.saturating_add(OVERHEAD) || bytes > self.config.max_bytes {
            self.stats.too_large += 1;
            return false;
        }
        while self.bytes + bytes > self.config.max_bytes {
            let Some(oldest) = self.entries.pop_oldest() else { break };
            self.bytes -= oldest.bytes;
            self.stats.evictions += 1;
        }
        self.bytes += bytes;
        self.entries.push(key, Stored { value, bytes, expires: now + self.config.ttl });
        true
    }

    /// Drops every answer. Flights go on, but what they bring is not kept.
    pub fn flush(&mut self) {
        self.entries = Lru::new();
        self.bytes = 0;
        self.epoch += 1;
    }

    /// What it did so far.
    pub fn stats(&self) -> CacheStats {
        CacheStats { keys: self.entries.len(), bytes: self.bytes, ..self.stats }
    }

    fn get(&mut self, key: &CacheKey, now: Instant) -> Option<V> {
        let stored = self.entries.peek(key)?;
        if stored.expires <= now {
            self.remove(key);
            self.stats.expirations += 1;
            return None;
        }
        let value = stored.value.clone();
        self.entries.touch(key);
        Some(value)
    }

    fn remove(&mut self, key: &CacheKey) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= old.bytes;
        }
    }
}
