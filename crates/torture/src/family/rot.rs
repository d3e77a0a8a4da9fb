//! Bits flip, in any file of the router's directory: they are detected, cost the record they hit and no other, also
//! where it shares a frame, and no wrong byte is served.
//!
//! The directory is one that a real router wrote, in many small files with their indexes. Most flips are judged in
//! process, through the real recovery, reader and index over real files; after some a real router starts on the damaged
//! copy, and a client asks for everything again: the sink is compared with what was executed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use sheaf_journal::index::{LookupError, Span, Tiers};
use sheaf_journal::{Lsn, Quarantined, ReadError, Report, SegmentView};
use sheaf_server::DataDir;

use super::patient::Patient;
use super::{Family, Round, lacks_nothing};
use crate::seed::Rng;
use crate::specimen::{Bench, Files, Form, Frame, HEADER, Specimen, is_segment};

pub(super) const FAMILY: Family = Family {
    name: "rot",
    about: "single bits flip anywhere in the router's directory, indexes and identity included",
    lacks: lacks_nothing,
    short: Duration::from_secs(15),
    round,
};

/// Flips of a round that are judged in process.
const FLIPS: u64 = 1_000;
/// Flips of a round on which a real router starts.
const RESTARTS: u64 = 6;
/// Small files, so that there are many, and indexes of most.
const SMALL: &[&str] = &["--segment-size", "64KiB"];
/// The router's name and secret.
const IDENTITY: &str = "identity";

/// One bit of one file.
#[derive(Clone, Debug)]
struct Flip {
    file: String,
    byte: usize,
    bit: u8,
}

fn round(round: &mut Round) -> anyhow::Result<()> {
    let mut patient = Patient::make(round, 400, SMALL)?;
    let bench = Bench::new(&round.dir)?;
    let specimen = Specimen::read(patient.data(), &bench)?;
    for _ in 0..RESTARTS {
        let rng = &mut round.rng;
        let flip = if rng.chance(60) { flip_of_a_kind(&specimen, rng)? } else { flip(&specimen.files, rng)? };
        on_real_router(round, &mut patient, &specimen, &flip).with_context(|| format!("{flip:?}, real router"))?;
        round.tally.faults += 1;
    }
    let mut done = 0;
    while done < FLIPS && round.wants_more() {
        let flip = flip(&specimen.files, &mut round.rng)?;
        bench.lay(&flipped(&specimen.files, &flip)?)?;
        judge(&specimen, &bench, &flip).with_context(|| format!("{flip:?}"))?;
        round.tally.faults += 1;
        done += 1;
    }
    Ok(())
}

/// Any file with content as likely as any other, or any byte.
fn flip(files: &Files, rng: &mut Rng) -> anyhow::Result<Flip> {
    let filled: Vec<(&String, usize)> =
        files.iter().map(|(name, bytes)| (name, bytes.len())).filter(|(_, len)| *len > 0).collect();
    let (file, len) = if rng.chance(50) { *rng.pick(&filled) } else { by_bytes(&filled, rng)? };
    let byte = usize::try_from(rng.between(0, len as u64))?;
    Ok(Flip { file: file.clone(), byte, bit: u8::try_from(rng.between(0, 8))? })
}

/// A record of any kind as likely as one of any other: of most there are few, and much rests on each.
fn flip_of_a_kind(specimen: &Specimen, rng: &mut Rng) -> anyhow::Result<Flip> {
    let mut kinds = BTreeMap::<u8, Vec<(&String, &Frame)>>::new();
    for (file, frame) in specimen.frames.iter().flat_map(|(file, frames)| frames.iter().map(move |frame| (file, frame)))
    {
        for (kind, _) in frame.lsns.clone().filter_map(|lsn| specimen.records.get(&lsn)) {
            kinds.entry(*kind).or_default().push((file, frame));
        }
    }
    let kinds: Vec<_> = kinds.into_values().collect();
    ensure!(!kinds.is_empty(), "there are no records");
    let of_kind = rng.pick(&kinds);
    let (file, frame) = *rng.pick(of_kind);
    let byte = usize::try_from(rng.between(frame.start as u64, frame.end as u64))?;
    Ok(Flip { file: file.clone(), byte, bit: u8::try_from(rng.between(0, 8))? })
}

fn by_bytes<'a>(files: &[(&'a String, usize)], rng: &mut Rng) -> anyhow::Result<(&'a String, usize)> {
    let all: usize = files.iter().map(|(_, len)| len).sum();
    let mut at = usize::try_from(rng.between(0, all as u64))?;
    for (name, len) in files {
        if at < *len {
            return Ok((*name, *len));
        }
        at -= len;
    }
    anyhow::bail!("there are no bytes")
}

fn flipped(files: &Files, flip: &Flip) -> anyhow::Result<Files> {
    let mut files = files.clone();
    let byte = files.get_mut(&flip.file).and_then(|bytes| bytes.get_mut(flip.byte)).context("no such byte")?;
    *byte ^= 1 << flip.bit;
    Ok(files)
}

fn judge(specimen: &Specimen, bench: &Bench, flip: &Flip) -> anyhow::Result<()> {
    if flip.file == IDENTITY {
        ensure!(DataDir::open(&bench.path()).is_err(), "UNDETECTED: a damaged identity is believed");
        return Ok(());
    }
    let (found, report) = bench.open()?;
    specimen.insist_right(&found)?;
    let missing = specimen.missing(&found);
    if is_segment(&flip.file) {
        judge_segment(specimen, flip, &missing, &report)?;
    } else {
        ensure!(missing.is_empty() && report.damaged == 0, "LOST: {missing:?}, though no segment was damaged");
    }
    judge_reads(specimen, bench, &missing)?;
    judge_indexes(bench, flip)
}

/// What is lost is the record that was hit and no other, and it is named.
fn judge_segment(specimen: &Specimen, flip: &Flip, missing: &[u64], report: &Report) -> anyhow::Result<()> {
    let frames = &specimen.frames[&flip.file];
    let Some(hit) = frames.iter().find(|frame| (frame.start..frame.end).contains(&flip.byte)) else {
        ensure!(missing.is_empty(), "LOST: {missing:?}, and the flip is behind the last frame");
        ensure!(report.damaged == 0, "{:?} is damaged, and the flip is behind the last frame", report.quarantined);
        return Ok(());
    };
    // Whether the end of the journal was cut off by a crash or by rot cannot be told: nothing says it was durable.
    if flip.file == specimen.last && hit.seq > durable_without(frames, hit) {
        return judge_tail(specimen, hit, missing, report);
    }
    ensure!(report.torn.is_none(), "what was durable is taken for a torn tail");
    let [bad] = report.quarantined.as_slice() else {
        anyhow::bail!("UNDETECTED, or more than it is: {:?}, where the flip hit {hit:?}", report.quarantined);
    };
    let lost: Vec<u64> = specimen.without_copy(hit.costs(flip.byte)).collect();
    ensure!(missing == lost, "LOST: {missing:?}, where the flip costs {lost:?}; it hit {hit:?}");
    insist_named(flip, hit, bad)
}

/// The journal ends before the frame that was hit. Of a group nothing is shown then: together or not at all.
fn judge_tail(specimen: &Specimen, hit: &Frame, missing: &[u64], report: &Report) -> anyhow::Result<()> {
    let torn = report.torn.as_ref().with_context(|| format!("UNDETECTED: the flip hit {hit:?} in the tail"))?;
    ensure!(torn.offset == hit.start as u64, "{torn:?}, where the flip hit {hit:?}");
    ensure!(report.damaged == 0, "{:?} was never said to be durable", report.quarantined);
    let tail = || specimen.last_frames().iter().filter(|frame| frame.seq >= hit.seq);
    let others: Vec<&u64> = missing.iter().filter(|lsn| !tail().any(|frame| frame.lsns.contains(lsn))).collect();
    ensure!(others.is_empty(), "LOST: {others:?} by a flip in the tail, which begins with {hit:?}");
    let shown: Vec<u64> = specimen.without_copy(hit.lsns.clone()).filter(|lsn| !missing.contains(lsn)).collect();
    ensure!(shown.is_empty(), "UNDETECTED: {shown:?} are shown, and the flip hit {hit:?}");
    Ok(())
}

/// What is reported is the frame that was hit, with the number of the record that is lost in it, if one is.
fn insist_named(flip: &Flip, hit: &Frame, bad: &Quarantined) -> anyhow::Result<()> {
    let is_there = flip.file.strip_prefix("journal/") == Some(bad.file.as_str()) && bad.offset == hit.start as u64;
    let lost = hit.costs(flip.byte);
    let is_lost = bad.lsns == lost || (bad.lsns.is_empty() && lost.is_empty());
    let is_named = match hit.form {
        Form::Record | Form::Mark => bad.frames == 1 && is_lost,
        Form::Group => bad.frames == 0 && is_lost,
        // What it is a copy of is told by its header alone.
        Form::Moved => {
            let is_claimed = bad.claimed == Some(Lsn(lost.start)) || flip.byte < hit.start + HEADER;
            bad.frames == 1 && bad.lsns.is_empty() && is_claimed
        }
    };
    ensure!(is_there && is_named, "{bad:?} is reported, where the flip costs {lost:?}; it hit {hit:?}");
    Ok(())
}

/// The last frame that is known to be durable without the word of the one that was hit.
fn durable_without(frames: &[Frame], hit: &Frame) -> u64 {
    frames.iter().filter(|frame| frame.seq != hit.seq).map(|frame| frame.durable).max().unwrap_or(0)
}

/// Every record by its number, as links read them.
fn judge_reads(specimen: &Specimen, bench: &Bench, missing: &[u64]) -> anyhow::Result<()> {
    let (journal, _) = bench.journal()?;
    for (lsn, (kind, payload)) in &specimen.records {
        match journal.read(Lsn(*lsn)) {
            Ok(record) => {
                let is_right = record.kind == *kind && record.payload == payload.as_slice();
                ensure!(is_right, "WRONG: record {lsn} was read with other bytes");
                ensure!(!missing.contains(lsn), "record {lsn} can be read and is not shown in replay");
            }
            Err(ReadError::Missing { .. } | ReadError::Corrupt { .. }) => {
                ensure!(missing.contains(lsn), "record {lsn} is shown in replay and cannot be read");
            }
            Err(ReadError::Disk(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A damaged index file says so, and no other does.
fn judge_indexes(bench: &Bench, flip: &Flip) -> anyhow::Result<()> {
    let (journal, _) = bench.journal()?;
    let mut disk = journal.disk().clone();
    let sealed: Vec<_> = journal.sealed_views().iter().map(SegmentView::id).collect();
    let hit = flip.file.strip_prefix("journal/").and_then(Span::parse);
    let (tiers, _) = Tiers::open(&mut disk, &sealed)?;
    for file in tiers.files() {
        match file.verify(&disk) {
            Ok(()) => ensure!(Some(file.span()) != hit, "UNDETECTED: a damaged index file is believed"),
            Err(LookupError::Damaged(_)) => ensure!(Some(file.span()) == hit, "{} is whole", file.span().file()),
            Err(LookupError::Disk(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A router that starts refuses a damaged identity; anything else it serves, and an index that was damaged is whole again.
fn on_real_router(round: &mut Round, patient: &mut Patient, specimen: &Specimen, flip: &Flip) -> anyhow::Result<()> {
    let files = flipped(&specimen.files, flip)?;
    if flip.file == IDENTITY {
        ensure!(patient.is_refused(&files)?, "UNDETECTED: a router starts with a damaged identity");
        return Ok(());
    }
    patient.go_on(round, &files)?;
    let rebuilt = patient.data().join(&flip.file);
    let is_index = flip.file.ends_with(".idx2");
    if is_index && let Ok(bytes) = std::fs::read(rebuilt) {
        ensure!(bytes == specimen.files[&flip.file], "the index was not built again as it was");
    }
    Ok(())
}
