//! Which keys are finished, for the links: the index files beside sealed segments. What was finished since the last seal
//! is in the machine's memory.
//!
//! The index is never trusted: whatever it finds is read from the journal and checked for its key.

use sheaf_roles::router::record::prior_of;
use sheaf_roles::router::{Generation, JobNo, Lsn, Prior, Record};
use sheaf_task::{Key, RowId};

use crate::store::Store;

/// The index files that are open.
#[derive(Debug, Default)]
pub(crate) struct Finished {}

impl Finished {
    /// Which state of the index look-ups see now.
    pub(crate) fn generation(&self) -> Generation {
        Generation(0)
    }

    /// What the journal knows of `key`, and of `row` in `job`.
    pub(crate) fn prior(&self, store: &Store, key: Key, job: Option<JobNo>, row: RowId) -> Option<Prior> {
        let lsns = self.candidates(key);
        if lsns.is_empty() {
            return None;
        }
        let mut found = Vec::with_capacity(lsns.len());
        for (lsn, fetched) in lsns.iter().zip(store.fetch(&lsns)) {
            let Some(fetched) = fetched else { continue };
            match Record::decode(fetched.kind, fetched.payload) {
                Ok(record) => found.push((*lsn, record)),
                Err(error) => tracing::error!(%error, lsn = lsn.0, "a record that the index names does not decode"),
            }
        }
        prior_of(key, job, row, &found)
    }

    fn candidates(&self, _key: Key) -> Vec<Lsn> {
        Vec::new()
    }
}
