//! Bytes of segment files, read apart from the journal: which records they hold under good checksums, and what makes
//! checksums good. The layout is drawn in `crates/journal/src/frame.rs`, and in `group.rs` that of records which share a
//! frame.

use std::collections::BTreeSet;

/// Number, kind, payload.
pub(crate) type Records = BTreeSet<(u64, u8, Vec<u8>)>;

const HEADER: usize = 32;
const GROUP: u8 = 0x40;
const MOVED: u8 = 0x80;
const MARK: u8 = 0xff;
/// What is before the payload of a moved record.
const MOVED_PREFIX: usize = 8;
/// What is before each payload in a group: checksum, kind, length.
const MEMBER_PREFIX: usize = 7;
/// The longest frame of a group.
const GROUP_BYTES_MAX: usize = 4096;
/// Bits of a header in which its length and kind are.
const FORM_BITS: std::ops::Range<usize> = 32..64;

/// The id in the name of a segment file.
pub(crate) fn segment_of(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".seg2").or_else(|| name.strip_suffix(".seg1"))?;
    let (id, _) = stem.split_once('-')?;
    u64::from_str_radix(id, 16).ok()
}

/// Makes the checksum of the frame right that would begin here, and those of the records that share it.
pub(crate) fn seal(segment: u64, bytes: &mut [u8]) {
    let seed = seed(segment);
    let Some(head) = Head::of(bytes) else { return };
    let Some(frame) = bytes.get_mut(..head.size()) else { return };
    if head.is_group() {
        seal_members(seed, &head, &mut frame[HEADER..HEADER + head.len]);
    }
    let crc = head.sum(seed, frame);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

/// As far as their lengths lead.
fn seal_members(seed: u32, head: &Head, mut rest: &mut [u8]) {
    for lsn in head.lsns() {
        let Some(prefix) = rest.first_chunk::<MEMBER_PREFIX>() else { return };
        let end = MEMBER_PREFIX + usize::from(u16::from_le_bytes([prefix[5], prefix[6]]));
        let Some((member, behind)) = rest.split_at_mut_checked(end) else { return };
        let crc = crc32c::crc32c_append(seed ^ lsn as u32, &member[4..]);
        member[..4].copy_from_slice(&crc.to_le_bytes());
        rest = behind;
    }
}

/// The records of the frame that begins here: none if there is no such frame. One wrong bit of a group's header, or any in
/// its padding, are forgiven, since the format says so.
pub(crate) fn records(segment: u64, bytes: &[u8]) -> Records {
    let seed = seed(segment);
    sound(seed, bytes).or_else(|| mended(seed, bytes)).unwrap_or_default()
}

fn seed(segment: u64) -> u32 {
    crc32c::crc32c(&segment.to_le_bytes())
}

fn sound(seed: u32, bytes: &[u8]) -> Option<Records> {
    let head = Head::of(bytes)?;
    let frame = bytes.get(..head.size())?;
    (head.crc == head.sum(seed, frame)).then(|| head.records(seed, frame))
}

fn mended(seed: u32, bytes: &[u8]) -> Option<Records> {
    let written = bytes.first_chunk::<HEADER>()?;
    let len = u32::from_le_bytes([written[4], written[5], written[6], 0]);
    // No single bit makes a group of most bytes: this is for speed alone.
    if (len >> GROUP_BYTES_MAX.ilog2()).count_ones() > 1 {
        return None;
    }
    let head = Head::of(bytes).filter(Head::is_group);
    let by_header = (if head.is_some() { 0..HEADER * 8 } else { FORM_BITS }).find_map(|bit| {
        let mut header = *written;
        header[bit / 8] ^= 1 << (bit % 8);
        let head = Head::of(&header).filter(Head::is_group)?;
        let rest = bytes.get(HEADER..head.size())?;
        sound(seed, &[&header, rest].concat())
    });
    by_header.or_else(|| {
        let head = head?;
        let mut frame = bytes.get(..head.size())?.to_vec();
        frame[HEADER + head.len..].fill(0);
        sound(seed, &frame)
    })
}

/// What a header says.
struct Head {
    crc: u32,
    len: usize,
    kind: u8,
    lsn: u64,
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER>()?;
        let number = |at: usize| head[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let lsn = u64::from_le_bytes(*head[16..].first_chunk()?);
        let head = Self { crc: number(0)?, len: (number(4)? & 0xff_ffff) as usize, kind: head[7], lsn };
        let fits = (usize::from(head.records_max()) * MEMBER_PREFIX..=GROUP_BYTES_MAX - HEADER).contains(&head.len);
        (fits || !head.is_group()).then_some(head)
    }

    fn is_group(&self) -> bool {
        (GROUP..MOVED).contains(&self.kind)
    }

    fn size(&self) -> usize {
        (HEADER + self.len).next_multiple_of(8)
    }

    fn records_max(&self) -> u8 {
        match self.kind {
            0..GROUP | MOVED..MARK => 1,
            GROUP..MOVED => self.kind - GROUP + 1,
            MARK => 0,
        }
    }

    /// The numbers of a group's records.
    fn lsns(&self) -> impl Iterator<Item = u64> + use<> {
        let first = self.lsn;
        (0..self.records_max()).map(move |ahead| first.saturating_add(ahead.into()))
    }

    /// The checksum that its frame must have: of a group's, its records are no part.
    fn sum(&self, seed: u32, frame: &[u8]) -> u32 {
        if self.is_group() {
            let header = crc32c::crc32c_append(seed, &frame[4..HEADER]);
            return crc32c::crc32c_append(header, &frame[HEADER + self.len..]);
        }
        crc32c::crc32c_append(seed, &frame[4..])
    }

    fn records(&self, seed: u32, frame: &[u8]) -> Records {
        let payload = &frame[HEADER..HEADER + self.len];
        match self.kind {
            0..GROUP => [(self.lsn, self.kind, payload.to_vec())].into(),
            GROUP..MOVED => self.members(seed, payload),
            MOVED..MARK => {
                payload.get(MOVED_PREFIX..).map(|own| (self.lsn, self.kind - MOVED, own.to_vec())).into_iter().collect()
            }
            MARK => Records::new(),
        }
    }

    fn members(&self, seed: u32, mut rest: &[u8]) -> Records {
        let mut records = Records::new();
        for lsn in self.lsns() {
            let Some(prefix) = rest.first_chunk::<MEMBER_PREFIX>() else { break };
            let len = u16::from_le_bytes([prefix[5], prefix[6]]);
            // A wrong bit of a length is forgiven too.
            let lengths = std::iter::once(len).chain((0..u16::BITS).map(|bit| len ^ 1 << bit));
            let found = lengths.filter_map(|len| member(seed, lsn, len, rest)).next();
            let end = MEMBER_PREFIX + found.as_ref().map_or(usize::from(len), |record| record.2.len());
            records.extend(found);
            let Some(behind) = rest.get(end..) else { break };
            rest = behind;
        }
        records
    }
}

/// The record of a group, if it is so long.
fn member(seed: u32, lsn: u64, len: u16, bytes: &[u8]) -> Option<(u64, u8, Vec<u8>)> {
    let (prefix, behind) = bytes.split_first_chunk::<MEMBER_PREFIX>()?;
    let [c0, c1, c2, c3, kind, ..] = *prefix;
    let payload = behind.get(..len.into())?;
    let [low, high] = len.to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(seed ^ lsn as u32, &[kind, low, high]), payload);
    (sum == u32::from_le_bytes([c0, c1, c2, c3])).then(|| (lsn, kind, payload.to_vec()))
}
