//! What the run knows of each of its rows: where it stands in the source, and how far it is.
//!
//! One entry of 21 bytes per row in hash tables, 24 to 50 bytes with their slack. Many small tables instead of one, so
//! that growing never holds two copies of everything.

use hashbrown::HashTable;
use sheaf_task::RowId;

/// How far a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Read, perhaps submitted; the sink does not have it.
    Open,
    /// Refused for now: to be submitted again.
    Refused,
    /// On its way into the sink, or there, with an answer.
    Ok,
    /// The same without an answer.
    Failed,
    /// In the sink without an answer since an earlier run.
    KeptFailed,
}

const STATES: [State; 5] = [State::Open, State::Refused, State::Ok, State::Failed, State::KeptFailed];
const STATE_BITS: u32 = 3;
const NUMBER_BYTES: usize = 5;
/// Rows of a source at most.
pub(super) const NUMBER_MAX: u64 = (1 << (NUMBER_BYTES as u32 * 8 - STATE_BITS)) - 1;
const SHARDS: usize = 256;

/// Byte-aligned on purpose: 21 bytes, not 24.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: RowId,
    /// `number << 3 | state`, little-endian.
    packed: [u8; NUMBER_BYTES],
}

impl Entry {
    fn new(row: RowId, number: u64, state: State) -> Self {
        assert!(number <= NUMBER_MAX, "a source has at most {NUMBER_MAX} rows");
        let mut entry = Self { row, packed: [0; NUMBER_BYTES] };
        entry.pack(number, state);
        entry
    }

    fn pack(&mut self, number: u64, state: State) {
        let bytes = (number << STATE_BITS | state as u64).to_le_bytes();
        self.packed.copy_from_slice(&bytes[..NUMBER_BYTES]);
    }

    fn unpack(&self) -> (u64, State) {
        let mut bytes = [0; 8];
        bytes[..NUMBER_BYTES].copy_from_slice(&self.packed);
        let packed = u64::from_le_bytes(bytes);
        (packed >> STATE_BITS, STATES[(packed & ((1 << STATE_BITS) - 1)) as usize])
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Rows {
    shards: Vec<HashTable<Entry>>,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect() }
    }

    /// Number and state of a row of this run.
    pub(super) fn find(&self, row: RowId) -> Option<(u64, State)> {
        self.shards[shard(row)].find(hash(row), |entry| entry.row == row).map(Entry::unpack)
    }

    /// Adds a row that is not there.
    pub(super) fn insert(&mut self, row: RowId, number: u64, state: State) {
        self.shards[shard(row)].insert_unique(hash(row), Entry::new(row, number, state), |entry| hash(entry.row));
    }

    /// Moves a row on; one that is not there stays unknown.
    pub(super) fn set(&mut self, row: RowId, state: State) {
        if let Some(entry) = self.shards[shard(row)].find_mut(hash(row), |entry| entry.row == row) {
            let (number, _) = entry.unpack();
            entry.pack(number, state);
        }
    }
}

/// A row's name is a digest: any of its bytes are as good as a hash.
fn hash(row: RowId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&row.0[..8]);
    u64::from_le_bytes(bytes)
}

fn shard(row: RowId) -> usize {
    usize::from(row.0[15])
}
