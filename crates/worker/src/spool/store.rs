//! The spool as the loop uses it: the session's records and the marks of what executes, in one log.
//!
//! Marks of starts are for suspects: an attempt that started and has no end in the log was executing when the worker
//! died. An end is written before the record that carries its result: a crash between the two costs an execution, and
//! makes no suspect of a task that had ended.
//!
//! Invariants: what the log says and `state`, `started` are the same but for what is pending; the log is at most about
//! twice what is live plus [`REWRITE_BYTES`]. On a full disk nothing is lost: what is pending stays in memory, bounded by
//! what the worker may hold, until a write succeeds.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use sheaf_session::{Record, SessionId, State};
use sheaf_task::{Fence, Key, WorkerId};

use super::{Entry, Log, SpoolError, WorkerDir};

const KIND_SESSION: u8 = 1;
const KIND_STARTED: u8 = 2;
const KIND_ENDED: u8 = 3;

/// Growth since the last rewrite at which the log is rewritten, bytes.
const REWRITE_BYTES: u64 = 8 << 20;

/// The open spool of a worker.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: WorkerDir,
    log: Log,
    /// What the session's records add up to.
    state: State,
    /// Started, and no end seen; the earlier life's among them until the router has them on record.
    started: BTreeSet<Fence>,
    rewritten_len: u64,
}

/// What earlier lives left behind.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub(crate) worker: WorkerId,
    pub(crate) incarnation: u64,
    pub(crate) state: State,
    pub(crate) died_with: Vec<Fence>,
}

impl Spool {
    /// Opens the directory and begins a new life: its number is on disk when this returns.
    pub(crate) fn open(path: &Path) -> Result<(Self, Recovered), SpoolError> {
        let dir = WorkerDir::open(path)?;
        let (log, entries, cut) = Log::open(path)?;
        if cut > 0 {
            tracing::warn!(bytes = cut, path = %path.display(), "the spool's end was torn by a crash and is cut off; what it held is executed again");
        }
        let (state, started) = replay(path, SessionId(dir.session), entries)?;
        let mut spool = Self { dir, rewritten_len: 0, log, state, started };
        let incarnation = spool.dir.incarnation.max(spool.state.incarnation + 1);
        spool.state.apply(Record::start(incarnation));
        spool.rewrite()?;
        let recovered = Recovered {
            worker: spool.dir.worker,
            incarnation,
            state: spool.state.clone(),
            died_with: spool.started.iter().copied().collect(),
        };
        Ok((spool, recovered))
    }

    /// These are about to execute.
    pub(crate) fn on_started(&mut self, fences: impl IntoIterator<Item = Fence>) {
        self.mark(KIND_STARTED, fences.into_iter().collect());
    }

    /// These have ended, whatever became of them.
    pub(crate) fn on_ended(&mut self, fences: impl IntoIterator<Item = Fence>) {
        self.mark(KIND_ENDED, fences.into_iter().collect());
    }

    /// The session wants this kept.
    pub(crate) fn on_record(&mut self, record: Record) {
        self.log.push(KIND_SESSION, &record.to_bytes());
        self.state.apply(record);
    }

    /// Writes what is pending, unsynced: it survives the process from here on. After an error it is still pending.
    /// A full disk is tried once more by a rewrite, which may need less than what it replaces.
    pub(crate) fn write(&mut self) -> Result<(), SpoolError> {
        match self.log.write() {
            Ok(()) if self.log.len() <= 2 * self.rewritten_len + REWRITE_BYTES => Ok(()),
            Ok(()) => match self.rewrite() {
                // All is written; what is superfluous goes another time.
                Err(error) if error.is_full() => {
                    self.rewritten_len = self.log.len();
                    Ok(())
                }
                rewritten => rewritten,
            },
            Err(error) if error.is_full() => self.rewrite(),
            Err(error) => Err(error),
        }
    }

    /// True when something waits to be written.
    pub(crate) fn is_pending(&self) -> bool {
        self.log.is_pending()
    }

    /// A handle for syncing on another thread.
    pub(crate) fn syncer(&self) -> Result<File, SpoolError> {
        self.log.syncer()
    }

    fn mark(&mut self, kind: u8, fences: Vec<Fence>) {
        if fences.is_empty() {
            return;
        }
        self.log.push(kind, &encode(&fences));
        apply_mark(&mut self.started, kind, fences);
    }

    fn rewrite(&mut self) -> Result<(), SpoolError> {
        let session = self.state.snapshot().into_iter();
        let mut entries: Vec<Entry> =
            session.map(|record| Entry { kind: KIND_SESSION, payload: record.to_bytes() }).collect();
        if !self.started.is_empty() {
            let fences: Vec<Fence> = self.started.iter().copied().collect();
            entries.push(Entry { kind: KIND_STARTED, payload: encode(&fences).into() });
        }
        self.log.rewrite(&entries)?;
        self.rewritten_len = self.log.len();
        Ok(())
    }
}

fn replay(path: &Path, id: SessionId, entries: Vec<Entry>) -> Result<(State, BTreeSet<Fence>), SpoolError> {
    let damaged = || SpoolError::Damaged { path: path.join("spool") };
    let (mut state, mut started) = (State::new(id), BTreeSet::new());
    for Entry { kind, payload } in entries {
        match kind {
            KIND_SESSION => state.apply(Record::from_bytes(payload).map_err(|_| damaged())?),
            KIND_STARTED | KIND_ENDED => apply_mark(&mut started, kind, decode(payload).ok_or_else(damaged)?),
            // Whole by its CRC, so a later version wrote it: half understood is not understood.
            _ => return Err(damaged()),
        }
    }
    Ok((state, started))
}

fn apply_mark(started: &mut BTreeSet<Fence>, kind: u8, fences: Vec<Fence>) {
    if kind == KIND_STARTED {
        started.extend(fences);
    } else {
        for fence in &fences {
            started.remove(fence);
        }
    }
}

/// `(key [16] | epoch u64le | attempt u32le)*`
fn encode(fences: &[Fence]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fences.len() * FENCE_BYTES);
    for fence in fences {
        out.put_slice(&fence.key.0);
        out.put_u64_le(fence.epoch);
        out.put_u32_le(fence.attempt);
    }
    out
}

fn decode(mut bytes: Bytes) -> Option<Vec<Fence>> {
    let mut fences = Vec::with_capacity(bytes.len() / FENCE_BYTES);
    while bytes.len() >= FENCE_BYTES {
        let key = Key::from_slice(&bytes.split_to(16))?;
        fences.push(Fence { key, epoch: bytes.get_u64_le(), attempt: bytes.get_u32_le() });
    }
    bytes.is_empty().then_some(fences)
}

const FENCE_BYTES: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(n: u32) -> Fence {
        Fence { key: Key([n as u8; 16]), epoch: 3, attempt: n }
    }

    #[test]
    fn what_had_not_ended_died_with_it_until_that_is_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, recovered) = Spool::open(dir.path()).unwrap();
        assert_eq!((recovered.incarnation, recovered.died_with.len()), (1, 0));
        spool.on_started([fence(1), fence(2), fence(3)]);
        spool.on_ended([fence(2)]);
        spool.write().unwrap();
        spool.on_ended([fence(3)]);
        drop(spool);
        for incarnation in 2..4 {
            let (_, recovered) = Spool::open(dir.path()).unwrap();
            assert_eq!((recovered.incarnation, recovered.died_with), (incarnation, vec![fence(1), fence(3)]));
        }
        let (mut spool, recovered) = Spool::open(dir.path()).unwrap();
        spool.on_ended(recovered.died_with);
        spool.write().unwrap();
        drop(spool);
        assert_eq!(Spool::open(dir.path()).unwrap().1.died_with, []);
    }

    #[test]
    fn cut_at_every_byte_no_attempt_is_forgotten_that_was_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path()).unwrap();
        let before = spool.log.len();
        for n in 0..6 {
            spool.on_started([fence(n), fence(n + 100)]);
            spool.on_ended([fence(n + 100)]);
            spool.write().unwrap();
        }
        drop(spool);
        let file = dir.path().join("spool");
        let whole = std::fs::read(&file).unwrap();
        let mut most = 0;
        for at in before as usize..=whole.len() {
            std::fs::write(&file, &whole[..at]).unwrap();
            let (_, recovered) = Spool::open(dir.path()).unwrap();
            let known = recovered.died_with.iter().filter(|fence| fence.attempt < 100).count();
            assert!(known >= most && known <= 6, "at {at}");
            most = known;
            assert_eq!(recovered.state.incarnation, recovered.incarnation);
        }
        assert_eq!(most, 6);
    }

    #[test]
    fn the_log_stays_short_however_much_goes_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(dir.path()).unwrap();
        spool.on_started([fence(7)]);
        let many: Vec<Fence> = (1_000..11_000).map(fence).collect();
        for _ in 0..60 {
            spool.on_started(many.iter().copied());
            spool.on_ended(many.iter().copied());
            spool.write().unwrap();
            assert!(spool.log.len() < 3 * REWRITE_BYTES);
        }
        drop(spool);
        assert_eq!(Spool::open(dir.path()).unwrap().1.died_with, [fence(7)]);
    }
}
