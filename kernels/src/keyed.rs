//! Tables in memory whose keys are bytes of the input, hashed as everything else here is: no seed, so that nothing depends on the process.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::key;

pub(crate) type KeyMap<'a, V> = HashMap<Key<'a>, V, BuildHasherDefault<Given>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key<'a>(pub(crate) &'a [u8]);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(key::hash(self.0));
    }
}

/// The one number that it was given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given(u64);

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= key::hash(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
