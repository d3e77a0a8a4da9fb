//! The end of the journal is not what was written: cut off, zeros, garbage or a hole, at every byte of the last 64 KiB.
//!
//! The journal is one that a real router wrote. It must open, show every record that lies before the place, none that is
//! broken, and of the rest only what was written. Most places are tried in process, through the real recovery and the real files; after some
//! the real router goes on with what is left, and the sink must be right.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, ensure};
use sheaf_journal::{Class, Entry};

use super::patient::Patient;
use super::{Family, Round, lacks_nothing};
use crate::seed::Rng;
use crate::specimen::{Bench, Files, Form, Frame, Part, Records, Specimen};

pub(super) const FAMILY: Family = Family {
    name: "tail",
    about: "the journal's last 64 KiB cut, zeroed, overwritten or with a hole, at every byte",
    lacks: lacks_nothing,
    short: Duration::from_secs(15),
    round,
};

/// How much of the end is tried.
const TAIL: usize = 64 << 10;
/// A lost sector.
const HOLE: usize = 512;
/// Real restarts of a round.
const RESTARTS: u64 = 2;
/// Once in so many places, recovery's own work is tried: it writes, and opens again.
const GO_ON_EVERY: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Harm {
    Cut,
    Zeros,
    Garbage,
    Hole,
}

const HARMS: [Harm; 4] = [Harm::Cut, Harm::Zeros, Harm::Garbage, Harm::Hole];

fn round(round: &mut Round) -> anyhow::Result<()> {
    // Recovery copies the whole of a short last segment, and only the unconfirmed end of a long one.
    let row_bytes = *round.rng.pick(&[150, 600]);
    let mut patient = Patient::make(round, row_bytes, &[])?;
    let bench = Bench::new(&round.dir)?;
    let specimen = Specimen::read(patient.data(), &bench)?;
    for _ in 0..RESTARTS {
        let (at, harm) = (place(&specimen, &mut round.rng)?, *round.rng.pick(&HARMS));
        let files = harmed(&specimen, at, harm, &mut round.rng);
        patient.go_on(round, &files).with_context(|| format!("{harm:?} at byte {at}, real router"))?;
        round.tally.faults += 1;
    }
    // All places if there is time for it; spread over the whole tail if not.
    let length = specimen.files[&specimen.last].len().min(written(&specimen));
    let tail = length.saturating_sub(TAIL)..length;
    let stride = *round.rng.pick(&[4_099, 8_209, 16_411]);
    for step in 0..tail.len() {
        let at = tail.start + (step * stride) % tail.len();
        for harm in HARMS {
            if !round.wants_more() {
                return Ok(());
            }
            let files = harmed(&specimen, at, harm, &mut round.rng);
            bench.lay(&files)?;
            let judged = judge(&specimen, &bench, &files[&specimen.last], step % GO_ON_EVERY == 0);
            judged.with_context(|| format!("{harm:?} at byte {at} of {}", specimen.last))?;
            round.tally.faults += 1;
        }
    }
    println!("torture tail: every byte of the last {} KiB, each with {} harms", tail.len() >> 10, HARMS.len());
    Ok(())
}

/// Bytes of frames: what was reserved behind them is no tail.
fn written(specimen: &Specimen) -> usize {
    specimen.last_frames().last().map_or(0, |frame| frame.end)
}

fn place(specimen: &Specimen, rng: &mut Rng) -> anyhow::Result<usize> {
    let length = written(specimen) as u64;
    Ok(usize::try_from(rng.between(length.saturating_sub(TAIL as u64), length))?)
}

fn harmed(specimen: &Specimen, at: usize, harm: Harm, rng: &mut Rng) -> Files {
    let mut files = specimen.files.clone();
    if let Some(bytes) = files.get_mut(&specimen.last) {
        let end = bytes.len();
        match harm {
            Harm::Cut => bytes.truncate(at),
            Harm::Zeros => bytes[at..].fill(0),
            Harm::Garbage => bytes[at..].iter_mut().for_each(|byte| *byte = rng.next().to_le_bytes()[0]),
            Harm::Hole => bytes[at..end.min(at + HOLE)].fill(0),
        }
    }
    files
}

/// `left` is what the harm left of the last segment.
fn judge(specimen: &Specimen, bench: &Bench, left: &[u8], goes_on: bool) -> anyhow::Result<()> {
    let (found, _) = bench.open()?;
    specimen.insist_right(&found)?;
    insist_kept(specimen, &found, left)?;
    if goes_on {
        go_on(bench, &found)?;
    }
    Ok(())
}

/// What lies before the first broken frame that nothing says was durable is there, and of a broken group that was durable
/// the records before the harm. No record that is broken is shown, and nothing of a frame that is and was never durable.
fn insist_kept(specimen: &Specimen, found: &Records, left: &[u8]) -> anyhow::Result<()> {
    let harm = Harmed { written: &specimen.files[&specimen.last], left };
    let frames = specimen.last_frames();
    let durable = |wrong: u32| frames.iter().filter(|frame| harm.speaks(frame, wrong)).map(|frame| frame.durable).max();
    // One wrong bit of a header may be mended, or not.
    let (least, most) = (durable(0).unwrap_or(0), durable(1).unwrap_or(0));
    let is_broken = |frame: &&Frame| harm.is_changed(frame.start..frame.end);
    let cut = frames.iter().find(|frame| is_broken(frame) && frame.seq > least).map_or(u64::MAX, |frame| frame.seq);
    for frame in frames.iter().filter(|frame| frame.seq < cut) {
        let kept = harm.kept(frame);
        for lsn in frame.lsns.clone().take(kept) {
            ensure!(found.contains_key(&lsn), "LOST: record {lsn}");
        }
    }
    for frame in frames.iter().filter(is_broken) {
        for (lsn, part) in frame.lsns.clone().zip(&frame.parts) {
            let is_gone = frame.seq > most || harm.is_lost(frame, part);
            let is_shown = is_gone && found.contains_key(&lsn) && specimen.without_copy(lsn..lsn + 1).next().is_some();
            ensure!(!is_shown, "UNDETECTED: record {lsn} is shown, and is broken");
        }
    }
    let in_last: BTreeSet<u64> = frames.iter().flat_map(|frame| frame.lsns.clone()).collect();
    let before = specimen.missing(found).into_iter().find(|lsn| !in_last.contains(lsn));
    ensure!(before.is_none(), "LOST: record {before:?} of an earlier segment");
    Ok(())
}

/// A segment before and after.
struct Harmed<'a> {
    written: &'a [u8],
    left: &'a [u8],
}

impl Harmed<'_> {
    fn is_changed(&self, bytes: Range<usize>) -> bool {
        self.left.get(bytes.clone()) != self.written.get(bytes)
    }

    fn wrong_bits(&self, bytes: Range<usize>) -> u32 {
        bytes.map(|at| self.left.get(at).map_or(8, |byte| (byte ^ self.written[at]).count_ones())).sum()
    }

    /// True if what the frame says of others can be read, with so many wrong bits at most: of a group, whatever became of
    /// its records.
    fn speaks(&self, frame: &Frame, wrong: u32) -> bool {
        match frame.form {
            Form::Record | Form::Moved | Form::Mark => !self.is_changed(frame.start..frame.end),
            Form::Group => {
                frame.end <= self.left.len()
                    && frame.frame_bytes().map(|part| self.wrong_bits(part)).iter().sum::<u32>() <= wrong
            }
        }
    }

    /// How many of its records, from the first on, must be readable.
    fn kept(&self, frame: &Frame) -> usize {
        let is_kept = |part: &&Part| !self.is_changed(part.bytes.clone());
        if self.speaks(frame, 0) { frame.parts.iter().take_while(is_kept).count() } else { 0 }
    }

    /// True if this record of a broken frame must not be read. A wrong length may be mended.
    fn is_lost(&self, frame: &Frame, part: &Part) -> bool {
        match frame.form {
            Form::Record | Form::Moved | Form::Mark => true,
            Form::Group => part.bytes.clone().any(|at| part.is_checked_at(at) && self.is_changed(at..at + 1)),
        }
    }
}

/// The journal takes a record, and it and everything that was found are there when it is opened again.
fn go_on(bench: &Bench, found: &Records) -> anyhow::Result<()> {
    let (mut journal, _) = bench.journal()?;
    let appended = journal.append(Class::Intake, &[Entry { kind: 1, payload: b"goes on".as_slice() }])?;
    journal.commit()?;
    drop(journal);
    let (mut again, _) = bench.open()?;
    let last = again.remove(&appended.0);
    ensure!(last == Some((1, b"goes on".to_vec())), "LOST: what was appended after recovery");
    ensure!(again == *found, "another opening shows other records");
    Ok(())
}
