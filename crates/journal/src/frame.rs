//! Bytes of a frame: how records lie in a segment file.
//!
//! ```text
//!  0        4       7      8                16               24       28       32
//!  +--------+-------+------+----------------+----------------+--------+--------+---------------+-----+
//!  | crc    | len   | kind | seq            | lsn            | epoch  | back   | payload       | pad |
//!  | u32    | u24   | u8   | u64            | u64            | u32    | u32    | len bytes     | 0.. |
//!  +--------+-------+------+----------------+----------------+--------+--------+---------------+-----+
//!  <------->        all numbers little-endian; pad to a multiple of 8
//!  CRC32C of: the segment's id (u64), then everything after the crc, padding included; of a group without its payload
//!
//!  kind 0x00–0x3f  a caller's record; lsn is its number
//!       0x40–0x7f  a group: (kind - 0x3f) of a caller's records; lsn is the number of the first, and the others follow.
//!                  Not in segments of the first version, where kinds above 0x3f were allowed and never written
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
//! Small records share a frame, a group, so that a header is not spent on each. Each keeps a checksum of its own
//! ([`crate::group`]), and damage costs no more records than it hits: one flipped bit costs one at most, for a header (with
//! the padding) in which one bit is wrong is known by its checksum, and mended.

use crate::group::{self, BYTES_MAX, MEMBER_PREFIX};
use crate::number::{Epoch, Lsn, Seq};

/// Length of the header.
pub(crate) const HEADER: usize = 32;
/// Bytes before the original payload in a moved record.
pub(crate) const MOVED_PREFIX: usize = 8;
/// The highest kind that a caller may use.
pub const KIND_MAX: u8 = GROUP - 1;
/// The most records that share a frame.
pub(crate) const GROUP_MAX: usize = (MOVED - GROUP) as usize;
/// The most bytes that a record takes on disk beyond its payload: header and padding.
pub const FRAME_EXTRA_MAX: usize = HEADER + 7;
/// The longest payload of a record, in bytes.
pub const RECORD_MAX: usize = 4 << 20;

const GROUP: u8 = 0x40;
const MOVED: u8 = 0x80;
/// The number of a record's kind is below this, whatever is written.
pub(crate) const KINDS: usize = u8::MAX as usize + 1;
const MARK: u8 = 0xff;
const PAYLOAD_MAX: usize = RECORD_MAX + MOVED_PREFIX;

const _: () = assert!(GROUP_MAX <= u64::BITS as usize, "a bit for each record of a group");

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
    /// The records of a group that are damaged, a bit for each, the first the lowest.
    pub(crate) damaged: u64,
    /// A bit was wrong somewhere, and is known.
    pub(crate) is_mended: bool,
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
        let lengths = match kind {
            Kind::Moved(_) => MOVED_PREFIX..=PAYLOAD_MAX,
            Kind::Group(records) => usize::from(records) * MEMBER_PREFIX..=BYTES_MAX - HEADER,
            Kind::Record(_) | Kind::Mark => 0..=PAYLOAD_MAX,
        };
        if seq == 0 || !lengths.contains(&len) {
            return None;
        }
        let durable = Seq(seq.saturating_sub(u64::from(back)));
        Some(Self { len, durable, ..Self::new(kind, Seq(seq), Lsn(lsn), Epoch(epoch)) })
    }

    /// That of a frame without a payload, written when nothing was known to be durable.
    pub(crate) fn new(kind: Kind, seq: Seq, lsn: Lsn, epoch: Epoch) -> Self {
        Self { len: 0, kind, seq, lsn, epoch, durable: Seq(0), damaged: 0, is_mended: false }
    }

    /// True if these bytes bear the number that the next frame or the next record must have: the sign of a frame that was
    /// torn. One of the two is enough, or a single flipped bit would hide it.
    pub(crate) fn is_begun(bytes: &[u8], seq: Seq, lsn: Lsn) -> bool {
        let Some(b) = bytes.first_chunk::<HEADER>() else { return false };
        b[8..16] == seq.0.to_le_bytes() || b[16..24] == lsn.0.to_le_bytes()
    }

    /// How many records were appended in this frame: none of a mark, or of a moved one.
    pub(crate) fn appended(&self) -> u8 {
        match self.kind {
            Kind::Record(_) => 1,
            Kind::Group(records) => records,
            Kind::Moved(_) | Kind::Mark => 0,
        }
    }

    /// The number of the next record behind this frame; `before` was that of the next before it.
    pub(crate) fn next_lsn(&self, before: Lsn) -> Lsn {
        match self.kind {
            Kind::Moved(_) => before,
            Kind::Record(_) | Kind::Group(_) | Kind::Mark => Lsn(self.lsn.0.saturating_add(self.appended().into())),
        }
    }

    /// True if the record of this number was appended in this frame.
    pub(crate) fn holds(&self, lsn: Lsn) -> bool {
        lsn.0.checked_sub(self.lsn.0).is_some_and(|ahead| ahead < self.appended().into())
    }

    /// True if it is as it was written, to the last bit.
    pub(crate) fn is_whole(&self) -> bool {
        self.damaged == 0 && !self.is_mended
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

/// The checksum that a frame must have: of all that is behind it, but for what checks itself.
fn sum(seed: u32, head: &Head, header: &[u8], payload: &[u8], padding: &[u8]) -> u32 {
    let payload = match head.kind {
        Kind::Group(_) => &[],
        Kind::Record(_) | Kind::Moved(_) | Kind::Mark => payload,
    };
    [&header[4..], payload, padding].into_iter().fold(seed, crc32c::crc32c_append)
}

fn is_intact(seed: u32, head: &Head, frame: &[u8]) -> bool {
    let (header, behind) = frame.split_at(HEADER);
    let (payload, padding) = behind.split_at(head.len);
    header[..4] == sum(seed, head, header, payload, padding).to_le_bytes()
}

/// The header of `frame` (whole, with padding), if this is what was written into the segment with that seed; of a group, it
/// says which records are damaged.
pub(crate) fn checked(seed: u32, head: &Head, frame: &[u8]) -> Option<Head> {
    if !is_intact(seed, head, frame) {
        return None;
    }
    Some(if let Kind::Group(_) = head.kind { members_checked(seed, head, &frame[HEADER..][..head.len]) } else { *head })
}

fn members_checked(seed: u32, head: &Head, payload: &[u8]) -> Head {
    let (mut head, mut rest) = (*head, payload);
    for ahead in 0..head.appended() {
        let found = group::member(seed, head.lsn.ahead(ahead), rest);
        head.damaged |= u64::from(found.record.is_none()) << ahead;
        head.is_mended |= found.is_mended;
        rest = found.rest;
    }
    // A wrong count under a good checksum: it is not what was written.
    head.is_mended |= !rest.is_empty();
    head
}

/// The header of a group in whose header or padding one bit is wrong. `bytes` begin where the frame does, and may end behind
/// it; `fits` says whether a header can be the one that is looked for.
pub(crate) fn mended(seed: u32, bytes: &[u8], fits: impl Fn(&Head) -> bool) -> Option<Head> {
    let written = *bytes.first_chunk::<HEADER>()?;
    let by_header = (0..HEADER * 8).find_map(|bit| {
        let mut header = written;
        header[bit / 8] ^= 1 << (bit % 8);
        with_header(seed, &header, bytes, &fits)
    });
    by_header.or_else(|| {
        // Nothing but zeros is written there.
        let head = Head::parse(&written)?;
        let mut frame = bytes.get(..head.size())?.to_vec();
        frame[HEADER + head.len..].fill(0);
        with_header(seed, &written, &frame, &fits)
    })
}

/// False for bytes that do not begin with the header of a group that has the record of this number, one wrong bit or none.
pub(crate) fn may_begin_group(bytes: &[u8], lsn: Lsn) -> bool {
    const MOST: u64 = GROUP_MAX as u64;
    let Some(first) = bytes.get(16..24).and_then(<[u8]>::first_chunk) else { return false };
    let first = u64::from_le_bytes(*first);
    // Its first record is at most 63 before it: without their last six bits, the numbers are those of one or the other.
    [lsn.0, lsn.0.saturating_sub(MOST - 1)].iter().any(|near| ((near ^ first) / MOST).count_ones() <= 1)
}

/// The header, if with it `bytes` begin with a group that can be the one that is looked for.
fn with_header(seed: u32, header: &[u8; HEADER], bytes: &[u8], fits: &impl Fn(&Head) -> bool) -> Option<Head> {
    let head = Head::parse(header).filter(|head| matches!(head.kind, Kind::Group(_)) && fits(head))?;
    let frame = [header, bytes.get(HEADER..head.size())?].concat();
    let head = checked(seed, &head, &frame)?;
    Some(Head { is_mended: true, ..head })
}

/// Appends a frame; `fill` appends its payload, which must be as long as `head` says.
pub(crate) fn encode(out: &mut Vec<u8>, seed: u32, head: &Head, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&head.bytes());
    fill(out);
    assert_eq!(out.len() - start, HEADER + head.len, "a frame's length is that of its payload");
    out.resize(start + head.size(), 0);
    let (header, behind) = out[start..].split_at_mut(HEADER);
    let (payload, padding) = behind.split_at(head.len);
    put_crc(seed, head, header, payload, padding);
}

/// Appends a frame without its payload, which goes to the place that is returned.
pub(crate) fn encode_around(out: &mut Vec<u8>, seed: u32, head: &Head, payload: &[u8]) -> usize {
    assert_eq!(payload.len(), head.len, "a frame's length is that of its payload");
    let start = out.len();
    out.extend_from_slice(&head.bytes());
    out.resize(start + head.size() - head.len, 0);
    let (header, padding) = out[start..].split_at_mut(HEADER);
    put_crc(seed, head, header, payload, padding);
    start + HEADER
}

fn put_crc(seed: u32, head: &Head, header: &mut [u8], payload: &[u8], padding: &[u8]) {
    assert!(head.len <= PAYLOAD_MAX, "callers refuse longer records");
    let crc = sum(seed, head, header, payload, padding);
    header[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Appends the payload of a moved record.
pub(crate) fn push_moved(out: &mut Vec<u8>, epoch: Epoch, payload: &[u8]) {
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
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

/// The records of a frame, in order; those that are damaged are left out, and a mark has none.
#[derive(Clone, Debug)]
pub(crate) struct Originals<'a> {
    seed: u32,
    head: Head,
    /// Those shown or left out.
    done: u8,
    rest: &'a [u8],
}

/// What a frame holds that was checked, and has this header and payload.
pub(crate) fn originals<'a>(seed: u32, head: &Head, payload: &'a [u8]) -> Originals<'a> {
    Originals { seed, head: *head, done: 0, rest: payload }
}

impl<'a> Originals<'a> {
    fn next_member(&mut self) -> Option<Original<'a>> {
        let Head { epoch, .. } = self.head;
        while self.done < self.head.appended() {
            let lsn = self.head.lsn.ahead(self.done);
            self.done += 1;
            let found =
                if self.head.is_whole() { group::known(self.rest) } else { group::member(self.seed, lsn, self.rest) };
            self.rest = found.rest;
            if let Some((kind, payload)) = found.record {
                return Some(Original { lsn, epoch, kind, payload });
            }
        }
        None
    }
}

impl<'a> Iterator for Originals<'a> {
    type Item = Original<'a>;

    fn next(&mut self) -> Option<Original<'a>> {
        let Head { kind, lsn, epoch, .. } = self.head;
        if let Kind::Group(_) = kind {
            return self.next_member();
        }
        let is_first = std::mem::replace(&mut self.done, 1) == 0;
        match kind {
            Kind::Record(kind) if is_first => Some(Original { lsn, epoch, kind, payload: self.rest }),
            Kind::Moved(kind) if is_first => {
                let (prefix, payload) = self.rest.split_first_chunk::<MOVED_PREFIX>()?;
                let epoch = Epoch(u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]));
                Some(Original { lsn, epoch, kind, payload })
            }
            Kind::Record(_) | Kind::Moved(_) | Kind::Group(_) | Kind::Mark => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u32 = 77;

    /// A group of records of these lengths.
    fn group_of(lengths: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let payloads: Vec<_> = lengths.iter().enumerate().map(|(i, len)| vec![i as u8; *len]).collect();
        let (records, len) = group::fit(payloads.iter().map(Vec::as_slice));
        assert_eq!(records, lengths.len());
        let head = Head { len, durable: Seq(7), ..Head::new(Kind::Group(records as u8), Seq(9), Lsn(8), Epoch(2)) };
        let mut frame = Vec::new();
        encode(&mut frame, SEED, &head, |out| {
            (8..).zip(&payloads).for_each(|(lsn, payload)| group::push(out, SEED, Lsn(lsn), 3, payload));
        });
        (frame, payloads)
    }

    /// The header and the records of a frame, as a reader of the journal finds them; `None`: nothing of it.
    fn found(frame: &[u8]) -> Option<(Head, Vec<Original<'_>>)> {
        let sound = Head::parse(frame).and_then(|head| checked(SEED, &head, frame.get(..head.size())?));
        let head = sound.or_else(|| mended(SEED, frame, |head| head.seq == Seq(9)))?;
        Some((head, originals(SEED, &head, &frame[HEADER..HEADER + head.len]).collect()))
    }

    #[test]
    fn records_that_share_a_frame_come_back_in_order() {
        let (frame, payloads) = group_of(&[0, 5, 300, 1]);
        let (head, records) = found(&frame).unwrap();
        assert_eq!((head.kind, head.next_lsn(Lsn(0)), head.is_whole()), (Kind::Group(4), Lsn(12), true));
        assert_eq!([7, 8, 11, 12].map(|lsn| head.holds(Lsn(lsn))), [false, true, true, false]);
        let wanted = (8..).zip(&payloads);
        let wanted = wanted.map(|(lsn, payload)| Original { lsn: Lsn(lsn), epoch: Epoch(2), kind: 3, payload });
        assert!(records.into_iter().eq(wanted));
    }

    /// D4 of the reliability goals, of frames that are shared: a flipped bit is noticed, costs one record at most, and shows no
    /// wrong byte.
    #[test]
    fn a_flipped_bit_of_a_group_costs_one_record_at_most() {
        let (frame, payloads) = group_of(&[0, 5, 30, 1, 20, 0]);
        assert_eq!(frame.len() % 8, 0);
        let mut costs = [0; 2];
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Whatever is behind it.
            flipped.extend_from_slice(&[0xff; 64]);
            let (head, records) = found(&flipped).unwrap_or_else(|| panic!("bit {bit}"));
            assert!(!head.is_whole(), "bit {bit} is noticed");
            assert_eq!((head.seq, head.lsn, head.epoch, head.durable), (Seq(9), Lsn(8), Epoch(2), Seq(7)), "bit {bit}");
            for record in &records {
                assert_eq!(record.payload, payloads[(record.lsn.0 - 8) as usize], "bit {bit}");
                assert_eq!(head.damaged >> (record.lsn.0 - 8) & 1, 0, "bit {bit}");
            }
            assert_eq!(records.len() as u32 + head.damaged.count_ones(), 6);
            costs[6 - records.len()] += 1;
        }
        assert!(costs.iter().all(|cost| *cost > 100), "both were seen: {costs:?}");
    }

    #[test]
    fn no_group_is_passed_over_for_one_bit_of_its_number() {
        for first in [1, 60, 64, 1000, u64::from(u32::MAX) - 3] {
            let header = Head::new(Kind::Group(64), Seq(9), Lsn(first), Epoch(2)).bytes();
            for bit in 0..HEADER * 8 {
                let mut flipped = header;
                flipped[bit / 8] ^= 1 << (bit % 8);
                let seen = (first..first + 64).filter(|lsn| may_begin_group(&flipped, Lsn(*lsn))).count();
                assert_eq!(seen, 64, "bit {bit} of the group at {first}");
            }
            assert!(!may_begin_group(&header, Lsn(first + 100_000)), "but others are");
        }
    }

    #[test]
    fn damage_to_more_than_a_bit_costs_what_it_hits_and_what_cannot_be_found_behind_it() {
        let (frame, _) = group_of(&[50; 10]);
        let lost = |range: std::ops::Range<usize>| {
            let mut damaged = frame.clone();
            damaged[range].fill(0xee);
            found(&damaged).map(|(head, records)| (head.damaged, records.len()))
        };
        let member = |at: usize| HEADER + at * (MEMBER_PREFIX + 50);
        assert_eq!(lost(member(3) + 20..member(3) + 40), Some((0b1000, 9)), "a payload");
        assert_eq!(lost(member(3) + 20..member(4) + 4), Some((0b11000, 8)), "a payload and a checksum");
        assert_eq!(lost(member(3)..member(4)), Some((0b11_1111_1000, 3)), "a length, by which the others are found");
        assert_eq!(lost(0..HEADER), None, "the header");
    }

    #[test]
    fn a_frame_is_shared_by_so_many_records_and_bytes_at_most() {
        let of = |lengths: &[usize]| {
            let payloads: Vec<_> = lengths.iter().map(|len| vec![0; *len]).collect();
            group::fit(payloads.iter().map(Vec::as_slice))
        };
        assert_eq!(of(&[1; 100]).0, GROUP_MAX);
        assert_eq!(of(&[1; 3]).0, 3);
        assert_eq!(of(&[RECORD_MAX, 1]).0, 1, "a long one is alone");
        assert_eq!(of(&[1, RECORD_MAX]).0, 1, "and nothing waits for it");
        assert_eq!(of(&[1000; 100]).0, 4);
        let full = (BYTES_MAX - HEADER) / 2 - MEMBER_PREFIX;
        assert_eq!(of(&[full; 3]), (2, BYTES_MAX - HEADER));
        assert_eq!(of(&[full, full + 1]).0, 1);
        for records in [2, GROUP_MAX as u8] {
            assert_eq!(Kind::from_byte(Kind::Group(records).to_byte()), Kind::Group(records));
        }
    }

    #[test]
    fn every_bit_of_a_frame_is_covered() {
        let head = Head { len: 5, durable: Seq(7), ..Head::new(Kind::Record(3), Seq(9), Lsn(8), Epoch(2)) };
        let mut frame = Vec::new();
        encode(&mut frame, seed(1), &head, |out| out.extend_from_slice(b"hello"));
        assert_eq!(frame.len(), 40);
        assert!(checked(seed(1), &head, &frame).is_some());
        assert!(checked(seed(2), &head, &frame).is_none(), "not in another segment");
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_intact(seed(1), &head, &flipped), "bit {bit}");
        }
        let parsed = Head::parse(&frame).unwrap();
        assert_eq!((parsed.len, parsed.kind, parsed.seq, parsed.lsn), (5, Kind::Record(3), Seq(9), Lsn(8)));
        assert_eq!((parsed.epoch, parsed.durable), (Epoch(2), Seq(7)));
    }
}
