//! Bytes of a frame: how records lie in a segment file.
//!
//! ```text
//!  0        4       7      8                16               24       28       32
//!  +--------+-------+------+----------------+----------------+--------+--------+---------------+-----+
//!  | crc    | len   | kind | seq            | lsn            | epoch  | back   | payload       | pad |
//!  | u32    | u24   | u8   | u64            | u64            | u32    | u32    | len bytes     | 0.. |
//!  +--------+-------+------+----------------+----------------+--------+--------+---------------+-----+
//!  <------->        all numbers little-endian; pad to a multiple of 8
//!  CRC32C of: the segment's id (u64), then everything after the crc, padding included
//!
//!  kind 0x00–0x3f  a caller's record; lsn is its number
//!       0x40–0x7f  (kind - 0x3f) of a caller's records; lsn is the number of the first, and the others follow;
//!                  payload = for each its kind u8, its length u16, its payload
//!       0x80–0xfe  a moved record of kind (kind & 0x7f); lsn is its original number;
//!                  payload = original epoch u32, zero u32, original payload
//!       0xff       a mark; lsn is the number that the next record will get; no payload
//!  seq             number of this frame: that of the frame before it, plus one
//!  back            durable-up-to: when this was written, all frames up to seq - back were durable
//! ```
//!
//! The segment's id is in the checksum but not in the frame: a recycled file's old frames do not check in its new life.
//! Version rule: a change of these bytes changes the suffix of segment names ([`crate::SegmentName`]).
//!
//! Small records share a frame, up to about 4 KiB: that is what one damaged byte costs, and 32 bytes are spent, checked
//! and walked over for twenty of them instead of for each. They stand in it as they would in frames of their own, and
//! nothing but this file and the readers of frames knows of it.

use crate::number::{Epoch, Lsn, Seq};

/// Length of the header.
pub(crate) const HEADER: usize = 32;
/// Bytes before the original payload in a moved record.
pub(crate) const MOVED_PREFIX: usize = 8;
/// The highest kind that a caller may use.
pub const KIND_MAX: u8 = 0x3f;
/// The most records that share a frame.
pub(crate) const GROUP_MAX: usize = 64;
/// The most bytes that such a frame has, but for its padding: what the map can walk over in one read.
const GROUP_BYTES_MAX: usize = 4096;
/// Bytes before each payload in a frame that is shared.
const MEMBER_PREFIX: usize = 3;
/// The most bytes that a record takes on disk beyond its payload: header and padding.
pub const FRAME_EXTRA_MAX: usize = HEADER + 7;
/// The longest payload of a record, in bytes.
pub const RECORD_MAX: usize = 4 << 20;

const GROUP: u8 = 0x40;
const MOVED: u8 = 0x80;
/// The number of a record's kind is below this, whatever is written.
pub(crate) const KINDS: usize = 256;
const MARK: u8 = 0xff;
const PAYLOAD_MAX: usize = RECORD_MAX + MOVED_PREFIX;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A caller's record where it was appended.
    Record(u8),
    /// So many of them, one number after the other.
    Group(u8),
    /// A caller's record that compaction appended again.
    Moved(u8),
    /// Nothing but its durable-up-to.
    Mark,
}

/// The header of a frame, without its checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) len: usize,
    pub(crate) kind: Kind,
    pub(crate) seq: Seq,
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) durable: Seq,
}

impl Head {
    /// Reads a header; `None` if it cannot be one. Says nothing about the checksum.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; HEADER] = bytes.first_chunk()?;
        let len = u32::from_le_bytes([b[4], b[5], b[6], 0]) as usize;
        let seq = u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]);
        let lsn = u64::from_le_bytes([b[16], b[17], b[18], b[19], b[20], b[21], b[22], b[23]]);
        let epoch = u32::from_le_bytes([b[24], b[25], b[26], b[27]]);
        let back = u32::from_le_bytes([b[28], b[29], b[30], b[31]]);
        let kind = Kind::from_byte(b[7]);
        let least = if matches!(kind, Kind::Moved(_)) { MOVED_PREFIX } else { 0 };
        if seq == 0 || len > PAYLOAD_MAX || len < least {
            return None;
        }
        let durable = Seq(seq.saturating_sub(u64::from(back)));
        Some(Self { len, kind, seq: Seq(seq), lsn: Lsn(lsn), epoch: Epoch(epoch), durable })
    }

    /// True if these bytes bear the number that the next frame or the next record must have: the sign of a frame that was
    /// torn. One of the two is enough, or a single flipped bit would hide it.
    pub(crate) fn is_begun(bytes: &[u8], seq: Seq, lsn: Lsn) -> bool {
        let Some(b) = bytes.first_chunk::<HEADER>() else { return false };
        b[8..16] == seq.0.to_le_bytes() || b[16..24] == lsn.0.to_le_bytes()
    }

    /// The number of the next record behind this frame; `before` was that of the next before it.
    pub(crate) fn next_lsn(&self, before: Lsn) -> Lsn {
        match self.kind {
            Kind::Record(_) => self.lsn.next(),
            Kind::Group(records) => Lsn(self.lsn.0.saturating_add(records.into())),
            Kind::Mark => self.lsn,
            Kind::Moved(_) => before,
        }
    }

    /// True if the record of this number was appended in this frame.
    pub(crate) fn holds(&self, lsn: Lsn) -> bool {
        let records = match self.kind {
            Kind::Record(_) => 1,
            Kind::Group(records) => records,
            Kind::Moved(_) | Kind::Mark => 0,
        };
        lsn.0.checked_sub(self.lsn.0).is_some_and(|ahead| ahead < records.into())
    }

    fn bytes(&self) -> [u8; HEADER] {
        let back = u32::try_from(self.seq.0 - self.durable.0.min(self.seq.0)).unwrap_or(u32::MAX);
        let mut bytes = [0; HEADER];
        bytes[4..8].copy_from_slice(&(self.len as u32).to_le_bytes());
        bytes[7] = self.kind.to_byte();
        bytes[8..16].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&back.to_le_bytes());
        bytes
    }

    /// Bytes of the whole frame, padding included.
    pub(crate) fn size(&self) -> usize {
        size(self.len)
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Self {
        match byte {
            MARK => Self::Mark,
            MOVED..MARK => Self::Moved(byte & !MOVED),
            GROUP..MOVED => Self::Group(byte - GROUP + 1),
            0..GROUP => Self::Record(byte),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Record(kind) => kind,
            Self::Group(records) => GROUP + records - 1,
            Self::Moved(kind) => kind | MOVED,
            Self::Mark => MARK,
        }
    }
}

/// Bytes of a frame with that much payload.
pub(crate) fn size(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(8)
}

/// What the checksums of a segment begin with.
pub(crate) fn seed(segment: u64) -> u32 {
    crc32c::crc32c(&segment.to_le_bytes())
}

/// True if `frame` (whole, with padding) is what was written into the segment with that seed.
pub(crate) fn is_intact(seed: u32, frame: &[u8]) -> bool {
    frame.first_chunk().is_some_and(|crc| u32::from_le_bytes(*crc) == crc32c::crc32c_append(seed, &frame[4..]))
}

/// Appends a frame; `fill` appends its payload, which must be as long as `head` says.
pub(crate) fn encode(out: &mut Vec<u8>, seed: u32, head: &Head, fill: impl FnOnce(&mut Vec<u8>)) {
    assert!(head.len <= PAYLOAD_MAX, "callers refuse longer records");
    let start = out.len();
    out.extend_from_slice(&head.bytes());
    fill(out);
    assert_eq!(out.len() - start, HEADER + head.len, "a frame's length is that of its payload");
    out.resize(start + head.size(), 0);
    let crc = crc32c::crc32c_append(seed, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Appends the payload of a moved record.
pub(crate) fn push_moved(out: &mut Vec<u8>, epoch: Epoch, payload: &[u8]) {
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// How many of these payloads, from the first on, go into one frame, and the bytes of its payload. One: by itself.
pub(crate) fn group<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> (usize, usize) {
    let (mut records, mut bytes) = (0, 0);
    for payload in payloads.take(GROUP_MAX) {
        let with = bytes + MEMBER_PREFIX + payload.len();
        if records > 0 && HEADER + with > GROUP_BYTES_MAX {
            break;
        }
        (records, bytes) = (records + 1, with);
    }
    (records, bytes)
}

/// Appends a record to the payload of a frame that it shares.
pub(crate) fn push_member(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let [low, high] = (payload.len() as u16).to_le_bytes();
    out.extend_from_slice(&[kind, low, high]);
    out.extend_from_slice(payload);
}

/// A record as its owner wrote it, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Original<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) kind: u8,
    pub(crate) payload: &'a [u8],
}

/// The records of a frame, in order; a mark has none.
#[derive(Clone, Debug)]
pub(crate) struct Originals<'a> {
    head: Head,
    /// The next one's number.
    lsn: Lsn,
    left: u8,
    rest: &'a [u8],
}

/// What a frame with this header and payload holds.
pub(crate) fn originals<'a>(head: &Head, payload: &'a [u8]) -> Originals<'a> {
    let left = match head.kind {
        Kind::Record(_) | Kind::Moved(_) => 1,
        Kind::Group(records) => records,
        Kind::Mark => 0,
    };
    Originals { head: *head, lsn: head.lsn, left, rest: payload }
}

impl<'a> Iterator for Originals<'a> {
    type Item = Original<'a>;

    fn next(&mut self) -> Option<Original<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (lsn, epoch) = (self.lsn, self.head.epoch);
        self.lsn = lsn.next();
        match self.head.kind {
            Kind::Record(kind) => Some(Original { lsn, epoch, kind, payload: self.rest }),
            Kind::Group(_) => {
                let ([kind, low, high], rest) = self.rest.split_first_chunk()?;
                let (payload, rest) = rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
                self.rest = rest;
                Some(Original { lsn, epoch, kind: *kind, payload })
            }
            Kind::Moved(kind) => {
                let (prefix, payload) = self.rest.split_first_chunk::<MOVED_PREFIX>()?;
                let epoch = Epoch(u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]));
                Some(Original { lsn, epoch, kind, payload })
            }
            Kind::Mark => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records_of(lengths: &[usize]) -> (Vec<Vec<u8>>, usize, usize) {
        let payloads: Vec<_> = lengths.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
        let (records, bytes) = group(payloads.iter().map(Vec::as_slice));
        (payloads, records, bytes)
    }

    #[test]
    fn records_that_share_a_frame_come_back_in_order() {
        let (payloads, records, len) = records_of(&[0, 5, 300, 1]);
        assert_eq!((records, len), (4, 306 + 4 * MEMBER_PREFIX));
        let kind = Kind::Group(4);
        let head = Head { len, kind, seq: Seq(9), lsn: Lsn(8), epoch: Epoch(2), durable: Seq(7) };
        let mut frame = Vec::new();
        encode(&mut frame, seed(1), &head, |out| {
            payloads.iter().for_each(|payload| push_member(out, 3, payload));
        });
        let parsed = Head::parse(&frame).unwrap();
        assert_eq!((parsed.kind, parsed.next_lsn(Lsn(0))), (kind, Lsn(12)));
        assert_eq!([7, 8, 11, 12].map(|lsn| parsed.holds(Lsn(lsn))), [false, true, true, false]);
        let found = originals(&parsed, &frame[HEADER..][..len]);
        let wanted =
            (8..).zip(&payloads).map(|(lsn, payload)| Original { lsn: Lsn(lsn), epoch: Epoch(2), kind: 3, payload });
        assert!(found.eq(wanted));
        assert_eq!(originals(&parsed, &frame[HEADER..][..len - 1]).count(), 3, "what is cut short is no record");
    }

    #[test]
    fn a_frame_is_shared_by_so_many_records_and_bytes_at_most() {
        let of = |lengths: &[usize]| records_of(lengths).1;
        assert_eq!(of(&[1; 100]), GROUP_MAX);
        assert_eq!(of(&[1; 3]), 3);
        assert_eq!(of(&[RECORD_MAX, 1]), 1, "a long one is alone");
        assert_eq!(of(&[1, RECORD_MAX]), 1, "and nothing waits for it");
        let (_, records, len) = records_of(&[1000; 100]);
        assert_eq!(records, 4);
        assert!(size(len) <= GROUP_BYTES_MAX);
        assert_eq!(Kind::from_byte(Kind::Group(GROUP_MAX as u8).to_byte()), Kind::Group(GROUP_MAX as u8));
        assert_eq!(Kind::from_byte(Kind::Group(2).to_byte()), Kind::Group(2));
    }

    #[test]
    fn every_bit_of_a_frame_is_covered() {
        let head = Head { len: 5, kind: Kind::Record(3), seq: Seq(9), lsn: Lsn(8), epoch: Epoch(2), durable: Seq(7) };
        let mut frame = Vec::new();
        encode(&mut frame, seed(1), &head, |out| out.extend_from_slice(b"hello"));
        assert_eq!(frame.len(), 40);
        assert!(is_intact(seed(1), &frame));
        assert!(!is_intact(seed(2), &frame), "not in another segment");
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_intact(seed(1), &flipped), "bit {bit}");
        }
        let parsed = Head::parse(&frame).unwrap();
        assert_eq!((parsed.len, parsed.kind, parsed.seq, parsed.lsn), (5, Kind::Record(3), Seq(9), Lsn(8)));
        assert_eq!((parsed.epoch, parsed.durable), (Epoch(2), Seq(7)));
    }
}
