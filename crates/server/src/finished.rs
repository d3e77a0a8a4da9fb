//! Which keys are finished, for the links: the index files beside sealed segments. What was finished since the last seal
//! is in the machine's memory.
//!
//! The index is never trusted: whatever it finds is read from the journal and checked for its key.

use sheaf_roles::router::{Generation, Lsn, Record};
use sheaf_task::Key;

use crate::store::Store;

/// The index files that are open.
#[derive(Debug, Default)]
pub(crate) struct Finished {}

impl Finished {
    /// Which state of the index look-ups see now.
    pub(crate) fn generation(&self) -> Generation {
        Generation(0)
    }

    /// The records that the index names for `key`, in LSN order. Whoever uses them checks that they are of that key.
    pub(crate) fn records(&self, store: &Store, key: Key) -> Vec<(Lsn, Record)> {
        let lsns = self.candidates(key);
        if lsns.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::with_capacity(lsns.len());
        for (lsn, fetched) in lsns.iter().zip(store.fetch(&lsns)) {
            let Some(fetched) = fetched else { continue };
            match Record::decode(fetched.kind, fetched.payload) {
                Ok(record) => found.push((*lsn, record)),
                Err(error) => tracing::error!(%error, lsn = lsn.0, "a record that the index names does not decode"),
            }
        }
        found
    }

    fn candidates(&self, _key: Key) -> Vec<Lsn> {
        Vec::new()
    }
}
