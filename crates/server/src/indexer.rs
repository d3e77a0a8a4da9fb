//! The indexer's thread: builds the index file of each sealed segment off the commit path, merges files, rebuilds damaged
//! ones, and tells the machine when look-ups find what it may forget.
//!
//! It reads segments as they lie on disk and deliberately knows no journal: the writer tells it which are sealed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use sheaf_journal::index::{BuildError, Index, LookupError, Posting, Span, Tiers, build, merge};
use sheaf_journal::{Disk, DiskError, Journal, SegmentId, SegmentView};
use sheaf_roles::router::record::index_key;
use sheaf_roles::router::{Generation, Lsn, Record, kind};
use tokio::sync::mpsc::Sender;

use crate::disk::FileDisk;
use crate::finished::{Finished, remove};
use crate::pulse::Pulse;
use crate::stages::SEALS;

/// What the indexer tells the core.
#[derive(Clone, Debug)]
pub(crate) enum Indexed {
    /// The index has everything up to a record.
    Upto { upto: Lsn, generation: Generation },
    /// A sync has failed: the process must stop.
    Failed(DiskError),
}

/// How often files that could not answer, and builds that failed, are taken up again.
const RETRY: Duration = Duration::from_secs(1);

/// The indexer and everything it reaches.
pub(crate) struct Indexer {
    pub disk: FileDisk,
    pub finished: Arc<Finished>,
    /// The sealed segments, oldest first.
    pub sealed: Vec<SegmentView>,
    pub upto: Lsn,
    pub to_core: Sender<Indexed>,
    pub pulse: Arc<Pulse>,
    /// The last turn failed, and that was said.
    pub has_failed: bool,
}

impl Indexer {
    /// Runs until the writer is gone.
    pub(crate) fn run(mut self, seals: &Receiver<Vec<SegmentView>>) {
        loop {
            match seals.recv_timeout(RETRY) {
                Ok(sealed) => self.sealed = sealed,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.pulse.begin(&SEALS);
            let outcome = self.turn();
            self.pulse.end();
            match outcome {
                Ok(()) => self.has_failed = false,
                Err(BuildError::Disk(error)) if self.disk.has_failed() => {
                    tracing::error!(%error, "an index file could not be made durable");
                    return self.say(Indexed::Failed(error));
                }
                Err(error) if self.has_failed => tracing::debug!(%error, "still no index"),
                Err(error) => {
                    self.has_failed = true;
                    tracing::warn!(%error, "an index cannot be written for now: its keys stay in memory");
                }
            }
        }
    }

    fn turn(&mut self) -> Result<(), BuildError> {
        let damaged = self.finished.close_damaged()?;
        let built = self.build_missing();
        self.finished.mended(&damaged);
        built?;
        if let Some(oldest) = self.sealed.first() {
            self.finished.change(|tiers| tiers.drop_before(&mut self.disk.clone(), oldest.id()))?;
        }
        self.merge_some()
    }

    fn build_missing(&mut self) -> Result<(), BuildError> {
        let missing = missing(&self.finished.tiers(), &self.sealed);
        for view in missing {
            match build_one(&mut self.disk, &view) {
                Ok(index) => self.add(index)?,
                // Compaction was faster than this.
                Err(BuildError::Disk(error)) if error.kind == sheaf_journal::DiskErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.pulse.beat();
            self.tell();
        }
        Ok(())
    }

    fn merge_some(&mut self) -> Result<(), BuildError> {
        loop {
            let Some(spans) = self.finished.tiers().plan_merge() else { return Ok(()) };
            match merge(&mut self.disk, &spans, &|_| false) {
                Ok(index) => self.add(index)?,
                Err(BuildError::Source(LookupError::Damaged(damaged))) => {
                    self.finished.note_damaged(&[damaged]);
                    self.finished.close(&[damaged])?;
                    let built = self.build_missing();
                    self.finished.mended(&[damaged]);
                    built?;
                }
                Err(error) => return Err(error),
            }
            self.pulse.beat();
        }
    }

    fn add(&mut self, index: Index) -> Result<(), DiskError> {
        self.finished.change(|tiers| tiers.add(&mut self.disk.clone(), index))
    }

    /// Tells the machine what it may forget, and lets go of what stood in for the files.
    fn tell(&mut self) {
        let Some((segment, upto)) = covered(&self.finished.tiers(), &self.sealed) else { return };
        if upto <= self.upto {
            return;
        }
        self.upto = upto;
        self.finished.forget_moved(segment);
        let generation = self.finished.next_generation();
        self.say(Indexed::Upto { upto, generation });
    }

    fn say(&self, what: Indexed) {
        if self.to_core.blocking_send(what).is_err() {
            tracing::debug!("the core has ended before the indexer");
        }
    }
}

/// Opens the index files of a journal and builds those that are missing. Returns also what they have, up to which record.
pub(crate) fn open(journal: &Journal<FileDisk>) -> Result<(Finished, Lsn), DiskError> {
    let mut disk = journal.disk().clone();
    let sealed = journal.sealed_views();
    let ids: Vec<SegmentId> = sealed.iter().map(SegmentView::id).collect();
    let before = spans(&disk)?;
    let (mut tiers, _) = Tiers::open(&mut disk, &ids)?;
    close_broken(&disk, &mut tiers)?;
    let lost = |span: &&Span| ids.iter().any(|id| span.covers(Span::of(*id))) && !has(&tiers, **span);
    for span in before.iter().filter(lost) {
        tracing::error!(
            file = span.file(),
            "an index file is damaged or left over: it is built again where it is needed"
        );
    }
    for view in missing(&tiers, &sealed) {
        match build_one(&mut disk, &view) {
            Ok(index) => tiers.add(&mut disk, index)?,
            Err(error) => {
                tracing::warn!(%error, "an index cannot be written for now: its keys stay in memory");
                break;
            }
        }
    }
    let active = journal.active_view();
    let floor = sealed.first().map_or(active.base(), SegmentView::base);
    // What is older than all segments was moved, or is gone: the machine must not answer rows with what refers to it.
    let upto = covered(&tiers, &sealed).map_or(Lsn(floor.0 - 1), |(_, upto)| upto);
    let unindexed: Vec<SegmentView> = missing(&tiers, &sealed).into_iter().chain([active]).collect();
    let finished = Finished::new(disk.clone(), tiers, Lsn(floor.0));
    for view in unindexed {
        let mut moved = postings(&disk, &view)?;
        moved.retain(|(_, lsn)| lsn.0 <= upto.0);
        finished.enter_moved(view.id(), moved);
    }
    Ok((finished, upto))
}

/// Reads every block: a damaged one would make a look-up miss.
fn close_broken(disk: &FileDisk, tiers: &mut Tiers) -> Result<(), DiskError> {
    let mut broken = Vec::new();
    for file in tiers.files() {
        match file.verify(disk) {
            Ok(()) => {}
            Err(LookupError::Damaged(damaged)) => broken.push(damaged),
            Err(LookupError::Disk(error)) => return Err(error),
        }
    }
    for damaged in broken {
        tiers.close(damaged);
        remove(disk, damaged.span)?;
    }
    Ok(())
}

fn spans(disk: &FileDisk) -> Result<Vec<Span>, DiskError> {
    Ok(disk.list()?.iter().filter_map(|file| Span::parse(&file.name)).collect())
}

fn has(tiers: &Tiers, span: Span) -> bool {
    tiers.files().iter().any(|file| file.span().covers(span))
}

fn missing(tiers: &Tiers, sealed: &[SegmentView]) -> Vec<SegmentView> {
    sealed.iter().filter(|view| !has(tiers, Span::of(view.id()))).copied().collect()
}

/// The last segment, and its last record, up to which no segment is without a file.
fn covered(tiers: &Tiers, sealed: &[SegmentView]) -> Option<(SegmentId, Lsn)> {
    let last = sealed.iter().take_while(|view| has(tiers, Span::of(view.id()))).last()?;
    Some((last.id(), Lsn(last.end().0 - 1)))
}

fn build_one(disk: &mut FileDisk, view: &SegmentView) -> Result<Index, BuildError> {
    let mut postings = postings(disk, view)?;
    build(disk, Span::of(view.id()), &mut postings)
}

fn postings(disk: &FileDisk, view: &SegmentView) -> Result<Vec<Posting>, DiskError> {
    let mut postings = Vec::new();
    view.scan(disk, &mut |lsn, _, kind, payload| {
        // Bodies are most of the bytes and never finished keys.
        if kind == kind::SUBMITTED {
            return;
        }
        match Record::decode(kind, Bytes::copy_from_slice(payload)) {
            Ok(record) => postings.extend(index_key(&record).map(|key| (key.0, lsn))),
            Err(error) => tracing::error!(%error, lsn = lsn.0, "a record does not decode: it is not in the index"),
        }
    })?;
    Ok(postings)
}
