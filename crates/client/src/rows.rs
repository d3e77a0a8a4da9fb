//! The names of rows. A row is its source id where it has one, its body, and the ordinal of that body among equal ones;
//! its name is the digest of the three. It knows no job and no sink.
//!
//! Rows without an id take ordinals as they come: of three equal rows one deleted leaves two. A row with an id keeps its
//! ordinal (its sample) for life, whatever is inserted, deleted or moved around it: ordinals above 0 are kept in a file
//! of the job's state, and ordinal 0 is recognised by the name that it gives.
//!
//! Invariant: two scans of the same source with the same kept rows give the same names; within one scan no two rows have
//! the same name.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use sheaf_task::RowId;

use crate::source::{Malformed, SourceId, SourceRow};

/// A row with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedRow {
    pub(crate) name: RowId,
    /// The ordinal of its body among equal ones.
    pub(crate) sample: u32,
    pub(crate) number: u64,
    pub(crate) id: Option<SourceId>,
    pub(crate) body: Result<Bytes, Malformed>,
}

/// Gives rows their names.
#[derive(Debug)]
pub(crate) struct Namer {
    bodies: Counts,
    /// Occurrences of equal (id, body): ids need not be unique.
    named: Counts,
    held: HeldSamples,
    /// Ordinals of bodies that rows with ids have for life, as `mark`s.
    reserved: HashSet<u64>,
}

/// What a row's name is made of, but for its ordinal.
struct Content {
    id: Option<Vec<u8>>,
    digest: [u8; 32],
}

impl Content {
    fn of(row: &SourceRow) -> Self {
        let digest = match &row.body {
            Ok(body) => *blake3::hash(body).as_bytes(),
            // Bytes that could not be a row must never be taken for one that could.
            Err(malformed) => *blake3::hash(&[b"malformed", malformed.digest.as_slice()].concat()).as_bytes(),
        };
        Self { id: row.id.as_ref().map(SourceId::identity), digest }
    }

    fn name(&self, ordinal: u32) -> RowId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.digest);
        hasher.update(&ordinal.to_le_bytes());
        if let Some(id) = &self.id {
            hasher.update(id);
        }
        RowId(first_bytes(&hasher.finalize()))
    }

    /// Names the `occurrence`-th row with this id and body.
    fn stem(&self, id: &[u8], occurrence: u32) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"stem");
        hasher.update(&self.digest);
        hasher.update(&occurrence.to_le_bytes());
        hasher.update(id);
        first_bytes(&hasher.finalize())
    }

    fn mark(&self, ordinal: u32) -> u64 {
        short(&self.digest).wrapping_add(u64::from(ordinal).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Namer {
    /// With the ordinals kept in `state_dir`.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let held = HeldSamples::open(&state_dir.join("samples"))?;
        Ok(Self { bodies: Counts::default(), named: Counts::default(), held, reserved: HashSet::new() })
    }

    /// Begins another scan.
    pub(crate) fn rewind(&mut self) {
        self.bodies = Counts::default();
        self.named = Counts::default();
    }

    /// The name under which a row may be in the sink, given what is there; `None` for a row that cannot be. The
    /// ordinal of one that is, or may be, is its own from now on.
    pub(crate) fn recall(&mut self, row: &SourceRow, is_there: impl Fn(RowId) -> bool) -> Option<RowId> {
        let content = Content::of(row);
        let Some(id) = &content.id else { return Some(content.name(self.bodies.next(short(&content.digest)))) };
        let ordinal = self.own_ordinal(&content, id, is_there).1?;
        self.reserved.insert(content.mark(ordinal));
        Some(content.name(ordinal))
    }

    /// The name of a row, given what is in the sink.
    pub(crate) fn name(&mut self, row: SourceRow, is_there: impl Fn(RowId) -> bool) -> io::Result<NamedRow> {
        let content = Content::of(&row);
        let sample = match &content.id {
            None => self.bodies.next(short(&content.digest)),
            Some(id) => {
                let (stem, own) = self.own_ordinal(&content, id, is_there);
                match own {
                    Some(ordinal) => ordinal,
                    None => self.free_ordinal(&content, stem)?,
                }
            }
        };
        Ok(NamedRow { name: content.name(sample), sample, number: row.number, id: row.id, body: row.body })
    }

    fn own_ordinal(
        &mut self,
        content: &Content,
        id: &[u8],
        is_there: impl Fn(RowId) -> bool,
    ) -> ([u8; 16], Option<u32>) {
        let first = content.stem(id, 0);
        let occurrence = self.named.next(short(&first));
        let stem = if occurrence == 0 { first } else { content.stem(id, occurrence) };
        let held = self.held.samples.get(&stem).copied();
        // Only the first of equal (id, body) may have ordinal 0.
        (stem, held.or_else(|| (occurrence == 0 && is_there(content.name(0))).then_some(0)))
    }

    /// The lowest ordinal that no row has for life, which the row then has for life.
    fn free_ordinal(&mut self, content: &Content, stem: [u8; 16]) -> io::Result<u32> {
        loop {
            let ordinal = self.bodies.next(short(&content.digest));
            if self.reserved.contains(&content.mark(ordinal)) {
                continue;
            }
            if ordinal > 0 {
                self.held.hold(stem, ordinal)?;
                self.reserved.insert(content.mark(ordinal));
            }
            return Ok(ordinal);
        }
    }
}

fn first_bytes(hash: &blake3::Hash) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes
}

fn short(digest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

/// Counts equal things by a short digest: most are there once, so that costs as little as it can. Two different things
/// with the same short digest (one chance in 10⁵ among ten million rows) only skip an ordinal.
#[derive(Debug, Default)]
struct Counts {
    once: HashSet<u64>,
    more: HashMap<u64, u32>,
}

impl Counts {
    /// How often `thing` was counted before.
    fn next(&mut self, thing: u64) -> u32 {
        if self.once.insert(thing) {
            return 0;
        }
        let count = self.more.entry(thing).or_insert(0);
        *count += 1;
        *count
    }
}

/// Ordinals above 0 of rows with ids, in a file of records `stem 16 | ordinal u32le | crc32c u32le of both`. It is not
/// synced: what a power cut takes costs a row of equal ones its ordinal, and never its answer.
#[derive(Debug)]
struct HeldSamples {
    samples: HashMap<[u8; 16], u32>,
    file: File,
}

const RECORD: usize = 24;

impl HeldSamples {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut samples = HashMap::new();
        let mut whole = 0;
        for record in bytes.chunks_exact(RECORD) {
            if crc32c::crc32c(&record[..20]).to_le_bytes() != record[20..] {
                break;
            }
            let (mut stem, mut ordinal) = ([0; 16], [0; 4]);
            stem.copy_from_slice(&record[..16]);
            ordinal.copy_from_slice(&record[16..20]);
            samples.insert(stem, u32::from_le_bytes(ordinal));
            whole += RECORD as u64;
        }
        file.set_len(whole)?;
        Ok(Self { samples, file })
    }

    fn hold(&mut self, stem: [u8; 16], ordinal: u32) -> io::Result<()> {
        let mut record = [stem.as_slice(), &ordinal.to_le_bytes()].concat();
        record.extend_from_slice(&crc32c::crc32c(&record).to_le_bytes());
        self.file.write_all(&record)?;
        self.samples.insert(stem, ordinal);
        Ok(())
    }
}
