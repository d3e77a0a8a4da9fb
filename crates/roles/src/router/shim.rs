//! Stand-ins for the session crate's types until it has them.
#![allow(missing_docs)]

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);
impl Micros {
    pub const ZERO: Micros = Micros(0);
    pub fn from_ms(ms: u64) -> Self {
        Micros(ms.saturating_mul(1_000))
    }
    pub fn from_secs(secs: u64) -> Self {
        Micros(secs.saturating_mul(1_000_000))
    }
    pub fn since(self, earlier: Micros) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}
impl std::ops::Add for Micros {
    type Output = Micros;
    fn add(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }
}
#[derive(Clone, Debug)]
pub struct Rng(u64);
impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n.max(1)
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Urgent,
    Bulk,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub lane: Lane,
    pub epoch: u64,
    pub seq: u64,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub place: Place,
    pub r#gen: u64,
    pub chain: u64,
}
impl Receipt {
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut out = [0; 64];
        for (at, n) in
            [self.place.lane as u64, self.place.epoch, self.place.seq, self.r#gen, self.chain].iter().enumerate()
        {
            out[at * 8..at * 8 + 8].copy_from_slice(&n.to_le_bytes());
        }
        out
    }
    pub fn from_bytes(bytes: &[u8; 64]) -> Option<Self> {
        let n = |at: usize| bytes[at * 8..at * 8 + 8].iter().rev().fold(0u64, |n, b| (n << 8) | u64::from(*b));
        let lane = if n(0) == 0 { Lane::Urgent } else { Lane::Bulk };
        Some(Self { place: Place { lane, epoch: n(1), seq: n(2) }, r#gen: n(3), chain: n(4) })
    }
}
