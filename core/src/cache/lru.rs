//! A map that knows the order of use: a hash map into a slab of doubly linked entries.

use std::collections::HashMap;

use super::key::CacheKey;

const NONE: usize = usize::MAX;

struct Entry<V> {
    key: CacheKey,
    /// `None` in a free slot.
    value: Option<V>,
    newer: usize,
    older: usize,
}

/// Keys in the order of their last use. Every operation takes constant time.
pub(super) struct Lru<V> {
    places: HashMap<CacheKey, usize>,
    slab: Vec<Entry<V>>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
}

impl<V> Lru<V> {
    pub(super) fn new() -> Self {
        Self { places: HashMap::new(), slab: Vec::new(), free: Vec::new(), newest: NONE, oldest: NONE }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Looks without using.
    pub(super) fn peek(&self, key: &CacheKey) -> Option<&V> {
        let place = *self.places.get(key)?;
        self.slab[place].value.as_ref()
    }

    /// Makes an entry the newest.
    pub(super) fn touch(&mut self, key: &CacheKey) {
        if let Some(&place) = self.places.get(key) {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Puts an entry in as the newest; only after `remove` of the same key.
    pub(super) fn push(&mut self, key: CacheKey, value: V) {
        let entry = Entry { key, value: Some(value), newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.slab[place] = entry;
                place
            }
            None => {
                self.slab.push(entry);
                self.slab.len() - 1
            }
        };
        self.places.insert(key, place);
        self.link(place);
    }

    pub(super) fn remove(&mut self, key: &CacheKey) -> Option<V> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        self.free.push(place);
        self.slab[place].value.take()
    }

    pub(super) fn pop_oldest(&mut self) -> Option<V> {
        let key = self.slab.get(self.oldest)?.key;
        self.remove(&key)
    }

    fn link(&mut self, place: usize) {
        self.slab[place].newer = NONE;
        self.slab[place].older = self.newest;
        match self.slab.get_mut(self.newest) {
            Some(before) => before.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.slab[place].newer, self.slab[place].older);
        match self.slab.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.slab.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }
}
