//! The router's index of finished keys and its compaction, as the server's indexer and writer do them, one slice after
//! each sync.
//!
//! It decides when, never what: what the journal must keep is the machine's to say. Invariants: a segment goes only when
//! its keys are indexed, look-ups that may have found them are void, and every record that a verdict rests on is durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use sheaf_journal::index::{BuildError, Posting, Span, Tiers, build, merge};
use sheaf_journal::testing::MemDisk;
use sheaf_journal::{DiskError, Journal, Keep, Progress, SegmentId, SegmentView};
use sheaf_roles::router::record::index_key;
use sheaf_roles::router::{Event, Generation, Lsn, Record, Router};
use sheaf_session::Micros;
use sheaf_task::Key;

/// See the module.
pub(crate) struct Archive {
    tiers: Tiers,
    /// What compaction moved into segments that have no index yet.
    moved: BTreeMap<Posting, SegmentId>,
    generation: Generation,
    /// The index has everything up to here.
    upto: Lsn,
    /// What is older answers no row any more.
    floor: Lsn,
    state: State,
    rests_on: Lsn,
    round: Round,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Asking,
    Leaving,
}

/// Each segment is compacted once in a round, or what is needed for long would be moved on and on.
#[derive(Clone, Copy)]
struct Round {
    end: SegmentId,
    /// Syncs since it began.
    syncs: u32,
}

/// Read and judged at once.
const SLICE: usize = 4 << 10;

/// A round takes at least so many syncs.
const ROUND_SYNCS: u32 = 16;

impl Archive {
    /// Opens the index files of a journal, and builds those that are missing.
    pub(crate) fn open(journal: &mut Journal<MemDisk>) -> Result<Self, BuildError> {
        let sealed = journal.sealed_views();
        let ids: Vec<SegmentId> = sealed.iter().map(SegmentView::id).collect();
        let (tiers, _) = Tiers::open(journal.disk_mut(), &ids)?;
        let active = journal.active_view();
        let mut archive = Self {
            tiers,
            moved: BTreeMap::new(),
            generation: Generation::default(),
            upto: Lsn::NONE,
            floor: Lsn(sealed.first().map_or(active.base(), SegmentView::base).0),
            state: State::Idle,
            rests_on: Lsn::NONE,
            round: Round { end: active.id(), syncs: 0 },
        };
        archive.build_missing(journal, &sealed)?;
        // What is older than all segments was moved, or is gone.
        archive.upto = archive.covered(&sealed).map_or(Lsn(archive.floor.0 - 1), |(_, upto)| upto);
        let upto = archive.upto;
        let moved = postings(journal.disk(), &active)?.into_iter().filter(|(_, lsn)| lsn.0 <= upto.0);
        archive.moved = moved.map(|posting| (posting, active.id())).collect();
        Ok(archive)
    }

    /// What the machine need not remember, and under which generation look-ups find it.
    pub(crate) fn sealed(&self) -> (Lsn, Generation) {
        (self.upto, self.generation)
    }

    /// The generation of the look-ups that are made now.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// An outcome in an older record answers no row.
    pub(crate) fn floor(&self) -> Lsn {
        self.floor
    }

    /// The records that the index names for `key`, in LSN order.
    pub(crate) fn records(&self, journal: &Journal<MemDisk>, key: Key) -> Vec<(Lsn, Record)> {
        let found = self.tiers.lookup(journal.disk(), &[key.0]).found;
        let own = (key.0, sheaf_journal::Lsn(0))..=(key.0, sheaf_journal::Lsn(u64::MAX));
        let mut lsns: Vec<_> = found.into_iter().map(|(_, lsn)| lsn).collect();
        lsns.extend(self.moved.range(own).map(|((_, lsn), _)| *lsn));
        lsns.sort_unstable();
        lsns.dedup();
        let read = |lsn: sheaf_journal::Lsn| {
            let record = journal.read(lsn).ok()?;
            Some((Lsn(lsn.0), Record::decode(record.kind, record.payload).ok()?))
        };
        lsns.into_iter().filter_map(read).collect()
    }

    /// Indexes what was sealed since the last time; says so to the machine.
    pub(crate) fn index(&mut self, journal: &mut Journal<MemDisk>) -> Result<Option<Event>, BuildError> {
        let sealed = journal.sealed_views();
        self.build_missing(journal, &sealed)?;
        if let Some(oldest) = sealed.first() {
            self.tiers.drop_before(journal.disk_mut(), oldest.id())?;
        }
        while let Some(spans) = self.tiers.plan_merge() {
            let index = merge(journal.disk_mut(), &spans, &|_| false)?;
            self.tiers.add(journal.disk_mut(), index)?;
        }
        let Some((segment, upto)) = self.covered(&sealed).filter(|(_, upto)| *upto > self.upto) else {
            return Ok(None);
        };
        self.upto = upto;
        self.moved.retain(|_, held| *held > segment);
        self.generation = Generation(self.generation.0 + 1);
        Ok(Some(Event::Sealed { upto, generation: self.generation }))
    }

    /// Takes up the oldest segment, if it is past its retention: what it answered, it answers no more.
    pub(crate) fn begin(
        &mut self,
        journal: &Journal<MemDisk>,
        mut ripe: impl FnMut(SegmentId) -> bool,
    ) -> Option<Event> {
        self.round.syncs += 1;
        let oldest = journal.oldest_sealed().filter(|_| self.state == State::Idle)?;
        if oldest.id() >= self.round.end && self.round.syncs >= ROUND_SYNCS {
            self.round = Round { end: journal.active_view().id(), syncs: 0 };
        }
        let is_indexed = self.tiers.files().iter().any(|file| file.span().covers(Span::of(oldest.id())));
        if oldest.id() >= self.round.end || !is_indexed || !ripe(oldest.id()) {
            return None;
        }
        self.state = State::Asking;
        self.floor = self.floor.max(Lsn(oldest.end().0));
        self.generation = Generation(self.generation.0 + 1);
        Some(Event::Sealed { upto: Lsn::NONE, generation: self.generation })
    }

    /// Moves on what the machine needs of the next slice, or lets the segment go. The words of what went wrong.
    pub(crate) fn compact(&mut self, journal: &mut Journal<MemDisk>, router: &Router) -> Result<(), String> {
        match self.state {
            State::Idle => Ok(()),
            State::Asking => self.judge(journal, router),
            State::Leaving => self.leave(journal),
        }
    }

    fn judge(&mut self, journal: &mut Journal<MemDisk>, router: &Router) -> Result<(), String> {
        let mut kept: Vec<Posting> = Vec::new();
        let mut bad = None;
        let is_left = journal.compact_next(SLICE, &mut |_, _, _| {}).map_err(|error| error.to_string())?;
        if !is_left {
            self.state = State::Leaving;
            return self.leave(journal);
        }
        let outcome = journal.compact(SLICE, &mut |lsn, kind, payload| {
            let record = match Record::decode(kind, Bytes::copy_from_slice(payload)) {
                Ok(record) => record,
                Err(error) => {
                    bad = Some(format!("record {} does not decode in compaction: {error}", lsn.0));
                    return Keep::Keep;
                }
            };
            if !router.needed(Lsn(lsn.0), &record) {
                return Keep::Drop;
            }
            kept.extend(index_key(&record).map(|key| (key.0, lsn)));
            Keep::Keep
        });
        self.rests_on = self.rests_on.max(router.written());
        let active = journal.active_view().id();
        self.moved.extend(kept.into_iter().map(|posting| (posting, active)));
        match (outcome, bad) {
            (Err(error), _) => Err(format!("compaction failed on a good disk: {error}")),
            (Ok(_), Some(bad)) => Err(bad),
            (Ok(_), None) => Ok(()),
        }
    }

    fn leave(&mut self, journal: &mut Journal<MemDisk>) -> Result<(), String> {
        if journal.durable().0 < self.rests_on.0 {
            return Ok(());
        }
        for _ in 0..2 {
            match journal.compact(SLICE, &mut |_, _, _| Keep::Keep) {
                Ok(Progress::AwaitsCommit) => {
                    journal.commit().map_err(|error| format!("a commit failed on a good disk: {error}"))?;
                }
                Ok(Progress::Dropped(_) | Progress::Nothing | Progress::Slice { .. }) => {
                    self.state = State::Idle;
                    return Ok(());
                }
                Err(error) => return Err(format!("compaction failed on a good disk: {error}")),
            }
        }
        Ok(())
    }

    fn build_missing(&mut self, journal: &mut Journal<MemDisk>, sealed: &[SegmentView]) -> Result<(), BuildError> {
        for view in sealed {
            if !self.has(view.id()) {
                let mut postings = postings(journal.disk(), view)?;
                let index = build(journal.disk_mut(), Span::of(view.id()), &mut postings)?;
                self.tiers.add(journal.disk_mut(), index)?;
            }
        }
        Ok(())
    }

    fn has(&self, segment: SegmentId) -> bool {
        self.tiers.files().iter().any(|file| file.span().covers(Span::of(segment)))
    }

    /// The last segment, and its last record, up to which no segment is without a file.
    fn covered(&self, sealed: &[SegmentView]) -> Option<(SegmentId, Lsn)> {
        let last = sealed.iter().take_while(|view| self.has(view.id())).last()?;
        Some((last.id(), Lsn(last.end().0 - 1)))
    }
}

fn postings(disk: &MemDisk, view: &SegmentView) -> Result<Vec<Posting>, DiskError> {
    let mut postings = Vec::new();
    view.scan(disk, &mut |lsn, _, kind, payload| {
        let record = Record::decode(kind, Bytes::copy_from_slice(payload)).ok();
        postings.extend(record.as_ref().and_then(index_key).map(|key| (key.0, lsn)));
    })?;
    Ok(postings)
}

/// When segments were sealed: their age is their files', and survives the process.
#[derive(Default)]
pub(crate) struct Ages(BTreeMap<SegmentId, Micros>);

impl Ages {
    /// Looks which segments have been sealed since the last sync.
    pub(crate) fn see(&mut self, journal: &Journal<MemDisk>, now: Micros) {
        for segment in journal.segments().filter(|segment| segment.is_sealed) {
            self.0.entry(segment.id).or_insert(now);
        }
    }

    /// Whether a sealed segment is older than `retention`.
    pub(crate) fn is_ripe(&self, segment: SegmentId, now: Micros, retention: Micros) -> bool {
        self.0.get(&segment).is_some_and(|sealed| now.since(*sealed) >= retention)
    }
}
