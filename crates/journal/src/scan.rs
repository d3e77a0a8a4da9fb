//! Walks the frames of one segment file in order, steps over damage, and never shows a frame that was not written there.
//!
//! It does not know which damage matters: that a bad frame is a torn tail or corruption is for recovery to say.

use crate::disk::{Disk, DiskError};
use crate::frame::{self, GROUP_MAX, Head, Kind, Originals};
use crate::group::{BYTES_MAX, MEMBER_PREFIX};
use crate::name::SegmentName;
use crate::number::{Epoch, Lsn, Seq};

/// One step of a walk.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The next frame; its payload is [`Scanner::payload`], its records [`Scanner::originals`]. Some of a group's may be
    /// damaged.
    Frame { offset: u64, head: Head },
    /// Frames `first..next` are not readable; the walk goes on at the frame `next`, or is at the segment's end.
    Damage(Damage),
    /// No further frames.
    End { offset: u64 },
}

/// Bytes that should be frames and are not.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) first: Seq,
    pub(crate) next: Seq,
    /// What the damaged header claims to be, where it looks like one. Never to be trusted.
    pub(crate) claimed: Option<Head>,
    /// How many records there is room for, where it is known how long it is.
    pub(crate) records_max: u64,
}

/// A walk over a segment.
pub(crate) struct Scanner<'a, D> {
    disk: &'a D,
    file: String,
    seed: u32,
    /// Bytes `start..start + filled` of the file.
    buf: Vec<u8>,
    filled: usize,
    start: u64,
    at: u64,
    expect: Expect,
    /// The segment's frames end before this one.
    end: Seq,
    epoch: Epoch,
    /// The number of the next record, as far as the frames told it.
    lsn: Lsn,
    trusts_length: bool,
    current: Option<Head>,
}

/// Which frame must come next.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Exactly this one.
    Exactly(Seq),
    /// After a start in the middle: this or any later one.
    From(Seq),
}

/// How much is read at once.
const CHUNK: usize = 256 << 10;

impl<'a, D: Disk> Scanner<'a, D> {
    /// A walk from the first frame. `end`: the seq after the last frame, where it is known.
    pub(crate) fn new(disk: &'a D, name: &SegmentName, end: Option<Seq>, trusts_length: bool) -> Self {
        Self {
            disk,
            file: name.file(),
            seed: frame::seed(name.id.0),
            buf: vec![0; CHUNK],
            filled: 0,
            start: 0,
            at: 0,
            expect: Expect::Exactly(name.base_seq),
            end: end.unwrap_or(Seq(u64::MAX)),
            epoch: Epoch(0),
            lsn: name.base,
            trusts_length,
            current: None,
        }
    }

    /// Starts at `offset`, where a frame begins, instead of at the first frame. `next`: which frame that is, if it is known.
    pub(crate) fn resuming(mut self, offset: u64, next: Option<Seq>) -> Self {
        if offset > 0 {
            self.at = offset;
            self.expect = next.map_or(Expect::From(self.expect.seq()), Expect::Exactly);
        }
        self
    }

    /// The next step.
    pub(crate) fn step(&mut self) -> Result<Step, DiskError> {
        self.current = None;
        let first = self.expect.seq();
        if first >= self.end {
            return Ok(Step::End { offset: self.at });
        }
        let at = self.at;
        let sound = self.frame_at(at, self.expect)?;
        if let Some(head) = if sound.is_some() { sound } else { self.mended_at(at)? } {
            return Ok(self.accept(at, head));
        }
        let claimed = self.head_at(at)?;
        match self.resync(at, claimed)? {
            Some((found, head)) => {
                self.at = found;
                self.expect = Expect::Exactly(head.seq);
                let room = (found - at) / MEMBER_PREFIX as u64;
                let records_max = (head.seq.0 - first.0).saturating_mul(GROUP_MAX as u64).min(room);
                Ok(Step::Damage(Damage { offset: at, first, next: head.seq, claimed, records_max }))
            }
            None if self.end == Seq(u64::MAX) => {
                self.end = first;
                Ok(Step::End { offset: at })
            }
            None => {
                self.expect = Expect::Exactly(self.end);
                // The segment's end is known, and so is the number there.
                Ok(Step::Damage(Damage { offset: at, first, next: self.end, claimed, records_max: 0 }))
            }
        }
    }

    /// Payload of the frame that the last step gave.
    pub(crate) fn payload(&self) -> &[u8] {
        let Some(head) = self.current else { return &[] };
        let from = (self.at - self.start) as usize - head.size() + frame::HEADER;
        &self.buf[from..from + head.len]
    }

    /// The records of the frame that the last step gave, but for damaged ones.
    pub(crate) fn originals(&self) -> Originals<'_> {
        let nothing = Head::new(Kind::Mark, Seq(0), self.lsn, self.epoch);
        frame::originals(self.seed, self.current.as_ref().unwrap_or(&nothing), self.payload())
    }

    /// At the end: whether one more frame was begun there.
    pub(crate) fn is_torn(&mut self) -> Result<bool, DiskError> {
        let (at, seq, lsn) = (self.at, self.expect.seq(), self.lsn);
        Ok(self.load(at, frame::HEADER)?
            && Head::is_begun(&self.buf[(at - self.start) as usize..self.filled], seq, lsn))
    }

    fn accept(&mut self, offset: u64, head: Head) -> Step {
        self.at = offset + head.size() as u64;
        self.expect = Expect::Exactly(head.seq.next());
        self.epoch = head.epoch;
        self.lsn = head.next_lsn(self.lsn);
        self.current = Some(head);
        Step::Frame { offset, head }
    }

    /// Looks for the next valid frame behind a damaged one. Frames are aligned, so one place in eight is tried; the cheap
    /// tests on the numbers come before the checksum.
    fn resync(&mut self, damaged: u64, claimed: Option<Head>) -> Result<Option<(u64, Head)>, DiskError> {
        let expect = Expect::From(self.expect.seq());
        if self.trusts_length {
            let Some(head) = claimed else { return Ok(None) };
            let next = damaged + head.size() as u64;
            return Ok(self.frame_at(next, expect)?.map(|head| (next, head)));
        }
        let mut at = damaged + 8;
        while self.load(at, frame::HEADER)? {
            if let Some(head) = self.frame_at(at, expect)? {
                return Ok(Some((at, head)));
            }
            at += 8;
        }
        Ok(None)
    }

    fn frame_at(&mut self, at: u64, expect: Expect) -> Result<Option<Head>, DiskError> {
        let Some(head) = self.head_at(at)? else { return Ok(None) };
        if !expect.is_met_by(head.seq)
            || head.seq >= self.end
            || head.epoch < self.epoch
            || !self.load(at, head.size())?
        {
            return Ok(None);
        }
        let from = (at - self.start) as usize;
        Ok(frame::checked(self.seed, &head, &self.buf[from..from + head.size()]))
    }

    /// The frame that is due, if it is a group in whose header one bit is wrong.
    fn mended_at(&mut self, at: u64) -> Result<Option<Head>, DiskError> {
        self.load(at, BYTES_MAX)?;
        let (due, end, epoch) = (self.expect, self.end, self.epoch);
        let fits = |head: &Head| due.is_met_by(head.seq) && head.seq < end && head.epoch >= epoch;
        let from = (at - self.start) as usize;
        Ok(self.buf[..self.filled].get(from..).and_then(|bytes| frame::mended(self.seed, bytes, fits)))
    }

    fn head_at(&mut self, at: u64) -> Result<Option<Head>, DiskError> {
        if !self.load(at, frame::HEADER)? {
            return Ok(None);
        }
        Ok(Head::parse(&self.buf[(at - self.start) as usize..self.filled]))
    }

    /// Makes `[at, at + need)` of the file be in the buffer; false if the file ends before.
    fn load(&mut self, at: u64, need: usize) -> Result<bool, DiskError> {
        if at >= self.start && at + need as u64 <= self.start + self.filled as u64 {
            return Ok(true);
        }
        if self.buf.len() < need {
            self.buf = vec![0; need];
        }
        self.filled = self.disk.read(&self.file, at, &mut self.buf)?;
        self.start = at;
        Ok(self.filled >= need)
    }
}

impl Expect {
    fn is_met_by(self, seq: Seq) -> bool {
        match self {
            Self::Exactly(due) => seq == due,
            Self::From(least) => seq >= least,
        }
    }

    fn seq(self) -> Seq {
        match self {
            Self::Exactly(seq) | Self::From(seq) => seq,
        }
    }
}
