//! One at a time for each name: who comes second waits, and then finds what the first has fetched.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Mutex as Gate;

/// From this many names on, those that nobody waits for are forgotten.
const SWEEP_FROM: usize = 256;

/// A gate for each name that somebody is at.
pub(crate) struct Gates<K>(Mutex<HashMap<K, Weak<Gate<()>>>>);

impl<K> Default for Gates<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Gates<K> {
    /// The gate of this name. Lock it, and look again whether there is still something to do.
    pub(crate) fn at(&self, name: K) -> Arc<Gate<()>> {
        let mut gates = self.0.lock();
        if gates.len() >= SWEEP_FROM {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let gate = gates.entry(name).or_default();
        if let Some(gate) = gate.upgrade() {
            return gate;
        }
        let new = Arc::new(Gate::new(()));
        *gate = Arc::downgrade(&new);
        new
    }
}
