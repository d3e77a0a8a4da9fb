//! The key of a task: 128 bits of keyed BLAKE3 over everything that decides its answer.
//!
//! Only the router holds the secret, so nobody else can test guesses of a body against keys.

use crate::Key;

/// The router's secret, 32 random bytes in its data directory.
#[derive(Clone)]
pub struct KeySecret(pub [u8; 32]);

impl std::fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySecret(…)")
    }
}

/// Hashes the rows of one job: the parts that all its rows share are absorbed once.
///
/// Hashed, in this order, each as `len u64le | bytes`: app, service, revision, nonce, sample (u32le), body.
/// The body comes last so that the rest is a prefix; it is hashed byte for byte.
#[derive(Clone)]
pub struct KeyHasher {
    prefix: blake3::Hasher,
}

impl KeyHasher {
    /// Absorbs what the rows of a job share. `nonce` is empty unless the job runs `--fresh`.
    pub fn new(secret: &KeySecret, app: &str, service: &str, revision: &str, nonce: &[u8]) -> Self {
        let mut prefix = blake3::Hasher::new_keyed(&secret.0);
        for part in [app.as_bytes(), service.as_bytes(), revision.as_bytes(), nonce] {
            absorb(&mut prefix, part);
        }
        Self { prefix }
    }

    /// The key of the `sample`-th row of this job that has this body.
    pub fn key(&self, body: &[u8], sample: u32) -> Key {
        let mut hasher = self.prefix.clone();
        absorb(&mut hasher, &sample.to_le_bytes());
        absorb(&mut hasher, body);
        let mut key = [0u8; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Key(key)
    }
}

fn absorb(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(app: &str, service: &str, revision: &str, nonce: &[u8], body: &[u8], sample: u32) -> Key {
        KeyHasher::new(&KeySecret([1; 32]), app, service, revision, nonce).key(body, sample)
    }

    #[test]
    fn every_part_counts() {
        let base = key("a", "s", "r", b"", b"body", 0);
        let others = [
            key("b", "s", "r", b"", b"body", 0),
            key("a", "t", "r", b"", b"body", 0),
            key("a", "s", "q", b"", b"body", 0),
            key("a", "s", "r", b"n", b"body", 0),
            key("a", "s", "r", b"", b"bodY", 0),
            key("a", "s", "r", b"", b"body", 1),
            KeyHasher::new(&KeySecret([2; 32]), "a", "s", "r", b"").key(b"body", 0),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_eq!(base, key("a", "s", "r", b"", b"body", 0));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(key("ab", "c", "", b"", b"", 0), key("a", "bc", "", b"", b"", 0));
    }
}
