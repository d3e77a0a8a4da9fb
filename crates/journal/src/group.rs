//! Records that share a frame: bytes of its payload, where each record has a checksum of its own.
//!
//! ```text
//!  for each record:
//!  0        4       5       7
//!  +--------+-------+-------+---------------+
//!  | crc    | kind  | len   | payload       |    CRC32C of: what the frame's begins with, xor the record's number;
//!  | u32    | u8    | u16   | len bytes     |    then everything after this crc
//!  +--------+-------+-------+---------------+
//! ```
//!
//! A record is found by the lengths of those before it. So that a wrong bit in one of those costs no other record, it is
//! looked for: of the sixteen lengths that differ in one bit, one makes the checksum right.

use crate::frame::{GROUP_MAX, HEADER};
use crate::number::Lsn;

/// The most bytes of such a frame: what the map can walk over in one read.
pub(crate) const BYTES_MAX: usize = 4096;
/// Bytes before each payload.
pub(crate) const MEMBER_PREFIX: usize = 7;

const _: () =
    assert!(BYTES_MAX <= u16::MAX as usize && BYTES_MAX.is_multiple_of(8), "lengths fit, and so does the padding");

/// How many of these payloads, from the first on, go into one frame, and the bytes of its payload if they are more than one.
pub(crate) fn fit<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> (usize, usize) {
    let (mut records, mut bytes) = (0, 0);
    for payload in payloads.take(GROUP_MAX) {
        let with = bytes + MEMBER_PREFIX + payload.len();
        if records > 0 && HEADER + with > BYTES_MAX {
            break;
        }
        (records, bytes) = (records + 1, with);
    }
    (records, bytes)
}

/// Appends a record to the payload of a frame that it shares.
pub(crate) fn push(out: &mut Vec<u8>, seed: u32, lsn: Lsn, kind: u8, payload: &[u8]) {
    let start = out.len();
    let [low, high] = (payload.len() as u16).to_le_bytes();
    out.extend_from_slice(&[0, 0, 0, 0, kind, low, high]);
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c_append(seed ^ lsn.0 as u32, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// What is at a place of a group where a record must begin.
pub(crate) struct Member<'a> {
    /// Kind and payload; `None`: damaged.
    pub(crate) record: Option<(u8, &'a [u8])>,
    /// Its length had a wrong bit.
    pub(crate) is_mended: bool,
    /// What is behind it, as far as can be told.
    pub(crate) rest: &'a [u8],
}

/// The record of this number, at the front of `bytes`.
pub(crate) fn member(seed: u32, lsn: Lsn, bytes: &[u8]) -> Member<'_> {
    let lost = |rest| Member { record: None, is_mended: false, rest };
    let Some(([c0, c1, c2, c3, kind, low, high], behind)) = bytes.split_first_chunk::<MEMBER_PREFIX>() else {
        return lost(&[]);
    };
    let (crc, len) = (u32::from_le_bytes([*c0, *c1, *c2, *c3]), u16::from_le_bytes([*low, *high]));
    let of_length = |len: u16| {
        let (payload, rest) = behind.split_at_checked(len.into())?;
        let [low, high] = len.to_le_bytes();
        let sum = crc32c::crc32c_append(crc32c::crc32c_append(seed ^ lsn.0 as u32, &[*kind, low, high]), payload);
        (sum == crc).then_some((payload, rest))
    };
    let as_written = behind.split_at_checked(len.into());
    if let Some((payload, rest)) = as_written
        && crc32c::crc32c_append(seed ^ lsn.0 as u32, &bytes[4..MEMBER_PREFIX + payload.len()]) == crc
    {
        return Member { record: Some((*kind, payload)), is_mended: false, rest };
    }
    match (0..u16::BITS).find_map(|bit| of_length(len ^ 1 << bit)) {
        Some((payload, rest)) => Member { record: Some((*kind, payload)), is_mended: true, rest },
        None => lost(as_written.map_or(&[], |(_, rest)| rest)),
    }
}

/// The record at the front of a group that was found whole.
pub(crate) fn known(bytes: &[u8]) -> Member<'_> {
    let record = bytes.split_first_chunk::<MEMBER_PREFIX>().and_then(|([.., kind, low, high], behind)| {
        let (payload, rest) = behind.split_at_checked(u16::from_le_bytes([*low, *high]).into())?;
        Some(((*kind, payload), rest))
    });
    let (record, rest) = record.map_or((None, &[][..]), |(record, rest)| (Some(record), rest));
    Member { record, is_mended: false, rest }
}
