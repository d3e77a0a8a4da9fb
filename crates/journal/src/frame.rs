//! Bytes of a frame: how one record lies in a segment file.
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
//!  kind 0x00–0x7f  a caller's record; lsn is its number
//!       0x80–0xfe  a moved record of kind (kind & 0x7f); lsn is its original number;
//!                  payload = original epoch u32, zero u32, original payload
//!       0xff       a mark; lsn is the number that the next record will get; no payload
//!  seq             number of this frame: that of the frame before it, plus one
//!  back            durable-up-to: when this was written, all frames up to seq - back were durable
//! ```
//!
//! The segment's id is in the checksum but not in the frame: a recycled file's old frames do not check in its new life.
//! Version rule: a change of these bytes changes the suffix of segment names ([`crate::SegmentName`]).

use crate::number::{Epoch, Lsn, Seq};

/// Length of the header.
pub(crate) const HEADER: usize = 32;
/// Bytes before the original payload in a moved record.
pub(crate) const MOVED_PREFIX: usize = 8;
/// The highest kind that a caller may use.
pub const KIND_MAX: u8 = 0x7e;
/// The most bytes that a record takes on disk beyond its payload: header and padding.
pub const FRAME_EXTRA_MAX: usize = HEADER + 7;
/// The longest payload of a record, in bytes.
pub const RECORD_MAX: usize = 4 << 20;

const MOVED: u8 = 0x80;
/// The number of a record's kind is below this, in whatever frame it stands.
pub(crate) const KINDS: usize = MOVED as usize;
const MARK: u8 = 0xff;
const PAYLOAD_MAX: usize = RECORD_MAX + MOVED_PREFIX;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A caller's record where it was appended.
    Record(u8),
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
            Kind::Mark => self.lsn,
            Kind::Moved(_) => before,
        }
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
            0..MOVED => Self::Record(byte),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Record(kind) => kind,
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

/// Appends a frame; `head.len` must be the length of both parts of the payload together.
pub(crate) fn encode(out: &mut Vec<u8>, seed: u32, head: &Head, prefix: &[u8], payload: &[u8]) {
    assert_eq!(head.len, prefix.len() + payload.len(), "a frame's length is that of its payload");
    assert!(head.len <= PAYLOAD_MAX, "callers refuse longer records");
    let start = out.len();
    let back = u32::try_from(head.seq.0 - head.durable.0.min(head.seq.0)).unwrap_or(u32::MAX);
    let mut bytes = [0; HEADER];
    bytes[4..8].copy_from_slice(&(head.len as u32).to_le_bytes());
    bytes[7] = head.kind.to_byte();
    bytes[8..16].copy_from_slice(&head.seq.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&head.lsn.0.to_le_bytes());
    bytes[24..28].copy_from_slice(&head.epoch.0.to_le_bytes());
    bytes[28..32].copy_from_slice(&back.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(prefix);
    out.extend_from_slice(payload);
    out.resize(start + head.size(), 0);
    let crc = crc32c::crc32c_append(seed, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// What comes before the original payload in a moved record.
pub(crate) fn moved_prefix(epoch: Epoch) -> [u8; MOVED_PREFIX] {
    let mut bytes = [0; MOVED_PREFIX];
    bytes[..4].copy_from_slice(&epoch.0.to_le_bytes());
    bytes
}

/// A record as its owner wrote it: what a frame's payload says, wherever it was moved. `None` for a mark.
pub(crate) fn original<'a>(head: &Head, payload: &'a [u8]) -> Option<(Epoch, u8, &'a [u8])> {
    match head.kind {
        Kind::Record(kind) => Some((head.epoch, kind, payload)),
        Kind::Moved(kind) => {
            let (prefix, rest) = payload.split_first_chunk::<MOVED_PREFIX>()?;
            Some((Epoch(u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]])), kind, rest))
        }
        Kind::Mark => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_frame_is_covered() {
        let head = Head { len: 5, kind: Kind::Record(3), seq: Seq(9), lsn: Lsn(8), epoch: Epoch(2), durable: Seq(7) };
        let mut frame = Vec::new();
        encode(&mut frame, seed(1), &head, &[], b"hello");
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
