//! New inputs from old ones: bits, bytes, lengths, splices, cuts and words of a dictionary. It knows no format.
//!
//! Invariant: what comes out is never longer than [`INPUT_MAX`], and the same generator gives the same inputs.

use sheaf_session::Rng;

/// The longest input, in bytes; what would be longer is cut.
pub(crate) const INPUT_MAX: usize = 16 << 10;

/// Changes of one input at most.
const CHANGES_MAX: u64 = 6;

/// Numbers at which code that reads lengths goes wrong.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// What inputs are made of: those kept so far, and the words of the format.
pub(crate) struct Stock<'a> {
    pub(crate) pool: &'a [Vec<u8>],
    pub(crate) words: &'a [&'a [u8]],
}

/// A new input from one of the pool.
pub(crate) fn fresh(rng: &mut Rng, stock: &Stock<'_>) -> Vec<u8> {
    let mut bytes = pick(rng, stock.pool).cloned().unwrap_or_default();
    // One change often, six seldom: small steps explore, large ones jump.
    let changes = 1 + rng.below(CHANGES_MAX).min(rng.below(CHANGES_MAX));
    for _ in 0..changes {
        change(rng, &mut bytes, stock);
    }
    bytes.truncate(INPUT_MAX);
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, stock: &Stock<'_>) {
    let at = rng.below(bytes.len() as u64 + 1) as usize;
    match rng.below(14) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.next_u64() as u8;
            }
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(rng.below(9) as u8).wrapping_sub(4);
            }
        }
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..span(rng, at, bytes.len()))),
        6 => insert(bytes, at, &[rng.next_u64() as u8]),
        7 | 8 => {
            let word = number(rng);
            write(rng, bytes, at, &word);
        }
        9 => {
            let word = pick(rng, stock.words).copied().unwrap_or_default();
            write(rng, bytes, at, word);
        }
        10 | 11 => splice(rng, bytes, at, stock),
        12 => {
            let part = bytes[at..span(rng, at, bytes.len())].to_vec();
            let to = rng.below(bytes.len() as u64 + 1) as usize;
            insert(bytes, to, &part);
        }
        _ => {
            let fill = [0, 0xff, b'a', rng.next_u64() as u8][rng.below(4) as usize];
            let end = span(rng, at, bytes.len());
            bytes[at..end].fill(fill);
        }
    }
}

/// A part of another input, in place of what is here or before it.
fn splice(rng: &mut Rng, bytes: &mut Vec<u8>, at: usize, stock: &Stock<'_>) {
    let Some(other) = pick(rng, stock.pool) else { return };
    let from = rng.below(other.len() as u64 + 1) as usize;
    let part = &other[from..span(rng, from, other.len())];
    if rng.chance(0.3) {
        bytes.truncate(at);
        bytes.extend_from_slice(part);
    } else {
        write(rng, bytes, at, part);
    }
}

/// An edge number, or one beside it, as any width and order, or as a varint.
fn number(rng: &mut Rng) -> Vec<u8> {
    let edge = EDGES[rng.below(EDGES.len() as u64) as usize];
    let value = edge.wrapping_add(rng.below(3)).wrapping_sub(1);
    match rng.below(6) {
        0 => vec![value as u8],
        1 => (value as u16).to_le_bytes().to_vec(),
        2 => (value as u32).to_le_bytes().to_vec(),
        3 => value.to_le_bytes().to_vec(),
        4 => (value as u32).to_be_bytes().to_vec(),
        _ => varint(value),
    }
}

/// As protobuf writes it.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Over what is at `at`, or before it.
fn write(rng: &mut Rng, bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if rng.chance(0.5) {
        insert(bytes, at, part);
    } else {
        let end = bytes.len().min(at + part.len());
        bytes.splice(at..end, part.iter().copied());
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    let room = INPUT_MAX.saturating_sub(bytes.len());
    bytes.splice(at..at, part.iter().copied().take(room));
}

/// The end of a part that begins at `at`: mostly a short one.
fn span(rng: &mut Rng, at: usize, len: usize) -> usize {
    let most = if rng.chance(0.8) { 16 } else { 1024 };
    at + rng.below((len - at).min(most) as u64 + 1) as usize
}

fn pick<'a, T>(rng: &mut Rng, all: &'a [T]) -> Option<&'a T> {
    all.get(rng.below(all.len() as u64) as usize)
}

/// The smallest input found that `fails` as well: parts taken out, then bytes made zero. At most `tries` runs.
pub(crate) fn minimise(input: &[u8], mut tries: u32, fails: &mut dyn FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut part = best.len().next_power_of_two() / 2;
    while part > 0 && tries > 0 {
        let mut at = 0;
        while at < best.len() && tries > 0 {
            let mut less = best.clone();
            less.drain(at..(at + part).min(best.len()));
            tries -= 1;
            if fails(&less) {
                best = less;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    for at in 0..best.len() {
        let mut plain = best.clone();
        plain[at] = 0;
        if plain != best && tries > 0 {
            tries -= 1;
            if fails(&plain) {
                best = plain;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_bounded_and_the_same_for_the_same_seed() {
        let pool = [vec![7; INPUT_MAX], b"some bytes".to_vec()];
        let stock = Stock { pool: &pool, words: &[b"word"] };
        let make = |seed| (0..2_000).map(|_| fresh(&mut Rng::new(seed), &stock)).collect::<Vec<_>>();
        assert!(make(1).iter().all(|input| input.len() <= INPUT_MAX));
        assert_eq!(make(2), make(2));
    }

    #[test]
    fn a_failing_input_is_cut_down_to_what_fails() {
        let mut input = vec![3; 300];
        input[177] = 0xee;
        let mut runs = 0;
        let least = minimise(&input, 5_000, &mut |bytes| {
            runs += 1;
            bytes.contains(&0xee)
        });
        assert_eq!(least, [0xee]);
        assert!(runs <= 5_000);
    }
}
