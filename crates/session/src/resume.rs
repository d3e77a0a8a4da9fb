//! The verdict of a sender over its log, given the peer's durable facts. One table; it changes nothing.

use crate::Verdict;
use crate::wire::FactsW;

/// What a sender knows of its own log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogFacts {
    pub epoch: u64,
    pub life: u64,
    pub base: u64,
    /// The highest number that may ever have left.
    pub high: u64,
    /// Something was acknowledged and deleted, in whatever epoch.
    pub forgot: bool,
}

/// Judges; `chain_at` gives the log's hash at a number in base − 1 ..= high.
pub(crate) fn judge(
    mine: LogFacts,
    peer: Option<&FactsW>,
    check_chain: bool,
    chain_at: impl Fn(u64) -> Option<u64>,
) -> Verdict {
    let Some(peer) = peer else {
        return if mine.forgot { Verdict::Gone } else { Verdict::Fresh };
    };
    if (peer.epoch, peer.life) != (mine.epoch, mine.life) {
        return Verdict::OtherEpoch;
    }
    if peer.floor.max(peer.got) > mine.high {
        return Verdict::SenderBehind;
    }
    if peer.floor < mine.base - 1 {
        return Verdict::Behind;
    }
    if check_chain && chain_at(peer.floor) != Some(peer.chain) {
        return Verdict::Fork;
    }
    Verdict::Resume
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(floor: u64, chain: u64, epoch: u64) -> Verdict {
        let mine = LogFacts { epoch: 3, life: 9, base: 5, high: 8, forgot: true };
        let peer = FactsW { lane: 1, epoch, life: 9, floor, got: floor, chain, limit: 100 };
        judge(mine, Some(&peer), true, |seq| Some(seq * 10))
    }

    #[test]
    fn every_line_of_the_table() {
        assert_eq!(check(4, 40, 3), Verdict::Resume);
        assert_eq!(check(8, 80, 3), Verdict::Resume);
        assert_eq!(check(3, 30, 3), Verdict::Behind);
        assert_eq!(check(9, 90, 3), Verdict::SenderBehind);
        assert_eq!(check(6, 61, 3), Verdict::Fork);
        assert_eq!(check(6, 60, 4), Verdict::OtherEpoch);
        let fresh = LogFacts { epoch: 1, life: 9, base: 1, high: 3, forgot: false };
        assert_eq!(judge(fresh, None, true, |_| None), Verdict::Fresh);
        assert_eq!(judge(LogFacts { forgot: true, ..fresh }, None, true, |_| None), Verdict::Gone);
    }
}
