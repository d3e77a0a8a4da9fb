//! Names of calls: random for those that are work of their own, derived for those that a client names.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use sheaf_task::RowId;

use crate::calls::Digest;

/// Sixty-four random bits.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Makes names.
pub(crate) struct Names {
    secret: [u8; 32],
    count: AtomicU64,
    /// Samples are counted from here, so that no two calls of one life of the door have the same.
    sample: u32,
}

impl Names {
    pub(crate) fn new() -> io::Result<Self> {
        let mut secret = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut secret)?;
        Ok(Self { secret, count: AtomicU64::new(0), sample: random()? as u32 })
    }

    /// A name that no other call has.
    pub(crate) fn own(&self) -> (RowId, u32) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.secret, &count.to_le_bytes());
        (RowId(first(hash.as_bytes())), self.sample.wrapping_add(count as u32))
    }

    /// A number that nobody can guess, for jitter.
    pub(crate) fn number(&self) -> u64 {
        let (RowId(bytes), _) = self.own();
        u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }
}

/// Digest of what a call asks for.
pub(crate) fn digest(service: &str, revision: &str, timeout_ms: u64, body: &[u8]) -> Digest {
    let parts = [service.as_bytes(), revision.as_bytes(), &timeout_ms.to_le_bytes(), body];
    Digest(first(hash("sheaf edge 1: what a call asks for", &parts).as_bytes()))
}

/// The name of a call by what its client calls it (`given`), or by its body alone.
pub(crate) fn derived(app: &str, given: Option<&str>, Digest(digest): Digest) -> (RowId, u32) {
    let parts = [app.as_bytes(), given.unwrap_or_default().as_bytes(), &[u8::from(given.is_some())], &digest];
    let hash = hash("sheaf edge 1: name of a call", &parts);
    let [.., a, b, c, d] = hash.as_bytes();
    (RowId(first(hash.as_bytes())), u32::from_le_bytes([*a, *b, *c, *d]))
}

fn hash(context: &str, parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

fn first(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_differ_and_derived_ones_agree() {
        let names = Names::new().unwrap();
        let (row, sample) = names.own();
        let (next, next_sample) = names.own();
        assert!(row != next && sample != next_sample);

        let body = digest("s", "r", 0, b"body");
        assert_eq!(derived("app", Some("k"), body), derived("app", Some("k"), body));
        let others = [
            derived("other", Some("k"), body),
            derived("app", Some("l"), body),
            derived("app", None, body),
            derived("app", Some("k"), digest("s", "r", 0, b"bodY")),
            derived("app", Some("k"), digest("s", "r", 1, b"body")),
            derived("app", Some("k"), digest("s", "q", 0, b"body")),
        ];
        assert!(others.iter().all(|other| *other != derived("app", Some("k"), body)));
    }
}
