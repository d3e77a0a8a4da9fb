//! The index against a plain list of postings; and damaged, against the rule that it never gives a wrong answer.

use super::{Candidates, Damaged, Index, LookupError, Posting, Span, Tiers, build, merge};
use crate::testing::{DiskCall, MemDisk};
use crate::tests::Dice;
use crate::{Disk, DiskErrorKind, Lsn, SegmentId};

fn postings(dice: &mut Dice, count: u64, from: u64) -> Vec<Posting> {
    (0..count).map(|i| (key(dice.below(count / 2 + 1)), Lsn(from + i))).collect()
}

/// Spread like a hash, but with eight equal bytes in front here and there.
fn key(n: u64) -> [u8; 16] {
    let front = Dice(n / 2).below(u64::MAX).to_be_bytes();
    let mut key = [0; 16];
    key[..8].copy_from_slice(&front);
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

fn wanted(postings: &[Posting], key: &[u8; 16]) -> Vec<Lsn> {
    let mut lsns: Vec<_> = postings.iter().filter(|(other, _)| other == key).map(|(_, lsn)| *lsn).collect();
    lsns.sort_unstable();
    lsns
}

#[test]
fn every_key_is_found_and_no_other() {
    for count in [0, 1, 2, 3, 41, 42, 43, 5000] {
        let (mut disk, dice) = (MemDisk::new(), &mut Dice(count));
        let all = postings(dice, count, 1);
        let index = build(&mut disk, Span::of(SegmentId(3)), &mut all.clone()).unwrap();
        for n in 0..count + 50 {
            let mut found = Vec::new();
            let before = disk.calls(DiskCall::Read);
            index.lookup(&disk, &[key(n)], &mut found).unwrap();
            assert_eq!(found, of(0, wanted(&all, &key(n))), "{count} {n}");
            assert!(disk.calls(DiskCall::Read) - before <= 2, "a block or two");
        }
    }
}

#[test]
fn many_keys_share_what_is_read() {
    let (mut disk, dice) = (MemDisk::new(), &mut Dice(8));
    let all = postings(dice, 3_000, 1);
    let index = build(&mut disk, Span::of(SegmentId(3)), &mut all.clone()).unwrap();
    // In no order, some twice, some that are not there.
    let asked: Vec<u64> = (0..5_000).map(|_| dice.below(2_000)).collect();
    let keys: Vec<_> = asked.iter().map(|n| key(*n)).collect();
    let (mut found, before) = (Vec::new(), disk.calls(DiskCall::Read));
    index.lookup(&disk, &keys, &mut found).unwrap();
    found.sort_unstable();
    let want: Vec<_> = asked.iter().enumerate().flat_map(|(at, n)| of(at, wanted(&all, &key(*n)))).collect();
    assert_eq!(found, want);
    assert!(disk.calls(DiskCall::Read) - before <= index.blocks() as u64, "each block once");
}

#[test]
fn a_block_that_says_nothing_costs_its_own_keys_alone() {
    let (mut disk, dice) = (MemDisk::new(), &mut Dice(9));
    let all = postings(dice, 3_000, 1);
    let span = Span::of(SegmentId(3));
    tiers_with(&mut disk, &all, span);
    let keys: Vec<_> = (0..2_000).map(key).collect();
    let (tiers, _) = Tiers::open(&mut disk, &[SegmentId(3)]).unwrap();
    let whole = tiers.lookup(&disk, &keys).found.len();
    let mut flipped = disk.clone();
    flipped.flip(&span.file(), (64 + 20) * 8);
    let candidates = tiers.lookup(&flipped, &keys);
    assert_eq!((candidates.damaged, candidates.failed), (vec![Damaged { span }], None));
    let lost = whole - candidates.found.len();
    assert!((1..=42).contains(&lost), "{lost} entries are lost with the first block");
    disk.fail_next(DiskCall::Read, DiskErrorKind::Io);
    let candidates = tiers.lookup(&disk, &keys);
    assert!(candidates.failed.is_some() && candidates.damaged.is_empty(), "a disk that fails is no damage");
    assert!(!candidates.found.is_empty(), "what it tells else is told");
}

/// As a look-up names them.
fn of(at: usize, lsns: Vec<Lsn>) -> Vec<(usize, Lsn)> {
    lsns.into_iter().map(|lsn| (at, lsn)).collect()
}

#[test]
fn many_equal_keys_cross_blocks() {
    let mut disk = MemDisk::new();
    let mut all: Vec<Posting> = (1..=1000).map(|lsn| (key(lsn / 400), Lsn(lsn))).collect();
    let index = build(&mut disk, Span::of(SegmentId(1)), &mut all).unwrap();
    let mut found = Vec::new();
    index.lookup(&disk, &[key(1)], &mut found).unwrap();
    assert_eq!(found, of(0, (400..800).map(Lsn).collect()));
}

#[test]
fn a_flipped_bit_is_reported_and_never_a_wrong_answer() {
    let (mut disk, dice) = (MemDisk::new(), &mut Dice(1));
    let all = postings(dice, 400, 1);
    let span = Span::of(SegmentId(1));
    build(&mut disk, span, &mut all.clone()).unwrap();
    let len = disk.content(&span.file()).unwrap().len() as u64;
    for _ in 0..600 {
        let mut disk = disk.clone();
        disk.flip(&span.file(), dice.below(len * 8));
        let Ok(index) = Index::open(&disk, span) else { continue };
        let mut damaged = 0;
        for n in 0..200 {
            let mut found = Vec::new();
            match index.lookup(&disk, &[key(n)], &mut found) {
                Ok(()) => assert_eq!(found, of(0, wanted(&all, &key(n)))),
                Err(_) => damaged += 1,
            }
        }
        assert!(damaged > 0, "some block is damaged, so some key of it cannot be answered");
    }
}

#[test]
fn tiers_merge_and_follow_the_segments() {
    let (mut disk, dice) = (MemDisk::new(), &mut Dice(2));
    let (mut tiers, _) = Tiers::open(&mut disk, &[]).unwrap();
    let mut all = Vec::new();
    for segment in 1..=18 {
        let mut part = postings(dice, 300, segment * 1000);
        all.extend_from_slice(&part);
        let built = build(&mut disk, Span::of(SegmentId(segment)), &mut part).unwrap();
        tiers.add(&mut disk, built).unwrap();
        while let Some(spans) = tiers.plan_merge() {
            let merged = merge(&mut disk, &spans, &|_| false).unwrap();
            tiers.add(&mut disk, merged).unwrap();
        }
        for n in 0..160 {
            let mut want = wanted(&all, &key(n));
            want.reverse();
            let want = Candidates { found: of(0, want), ..Candidates::default() };
            assert_eq!(tiers.lookup(&disk, &[key(n)]), want);
        }
    }
    assert!(tiers.files().len() <= 4, "{}", tiers.files().len());
    let sealed: Vec<_> = (1..=19).map(SegmentId).collect();
    let (again, missing) = Tiers::open(&mut disk, &sealed).unwrap();
    assert_eq!((again.files().len(), missing), (tiers.files().len(), vec![SegmentId(19)]));
    tiers.drop_before(&mut disk, SegmentId(30)).unwrap();
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn a_broken_file_is_missing_and_rebuilt() {
    let (mut disk, dice) = (MemDisk::new(), &mut Dice(3));
    let all = postings(dice, 300, 1);
    let span = Span::of(SegmentId(1));
    tiers_with(&mut disk, &all, span);
    disk.flip(&span.file(), 70 * 8);
    let (mut tiers, missing) = Tiers::open(&mut disk, &[SegmentId(1)]).unwrap();
    assert!(missing.is_empty(), "blocks are checked when they are read");
    assert_eq!(tiers.files()[0].verify(&disk), Err(Damaged { span }.into()));
    let damaged: Vec<_> = (0..200).flat_map(|n| tiers.lookup(&disk, &[key(n)]).damaged).collect();
    assert!(!damaged.is_empty());
    tiers.close(damaged[0]);
    assert_eq!(tiers.lookup(&disk, &[key(1)]), Candidates::default());
    assert_eq!(tiers.missing(&[SegmentId(1)]), [SegmentId(1)]);
    disk.truncate(&span.file(), 100);
    assert_eq!(Tiers::open(&mut disk, &[SegmentId(1)]).unwrap().1, [SegmentId(1)]);
}

#[test]
fn files_of_an_earlier_format_are_removed() {
    let mut disk = MemDisk::new();
    let outdated = Span::of(SegmentId(1)).file().replace("idx2", "idx1");
    disk.write(&outdated, 0, b"SHEAFIX1").unwrap();
    assert_eq!(Tiers::open(&mut disk, &[SegmentId(1)]).unwrap().1, [SegmentId(1)]);
    assert!(disk.list().unwrap().is_empty());
}

fn tiers_with(disk: &mut MemDisk, all: &[Posting], span: Span) {
    build(disk, span, &mut all.to_vec()).unwrap();
}

/// A fuzzed file whose entries stood in no order, under good checksums, stopped the merge with a panic.
#[test]
fn a_filter_takes_keys_in_any_order_and_more_than_once() {
    let filter = super::filter::Filter::build(vec![9, 1, 9, 5, 1]);
    for n in [1_u64, 5, 9] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&n.to_be_bytes());
        assert!(filter.may_hold(&key));
    }
}

#[test]
fn an_index_says_how_much_memory_it_takes() {
    let mut disk = MemDisk::new();
    let mut all = postings(&mut Dice(3), 5_000, 1);
    let index = build(&mut disk, Span::of(SegmentId(1)), &mut all).unwrap();
    // Of five thousand keys half are equal: nine bits for each in the filter, and eight bytes for each block.
    assert!((2_000..5_000).contains(&index.bytes()), "{} bytes", index.bytes());
}

#[test]
fn a_merge_leaves_out_what_is_gone_and_what_came_twice() {
    let mut disk = MemDisk::new();
    let spans = [1, 2].map(|segment| Span::of(SegmentId(segment)));
    build(&mut disk, spans[0], &mut vec![(key(1), Lsn(10)), (key(2), Lsn(11)), (key(3), Lsn(12))]).unwrap();
    build(&mut disk, spans[1], &mut vec![(key(2), Lsn(11)), (key(4), Lsn(20))]).unwrap();
    let merged = merge(&mut disk, &spans, &|lsn| lsn == Lsn(12)).unwrap();
    let found = |n: u64| {
        let mut found = Vec::new();
        merged.lookup(&disk, &[key(n)], &mut found).unwrap();
        found.into_iter().map(|(_, lsn)| lsn.0).collect::<Vec<_>>()
    };
    assert_eq!([1, 2, 3, 4].map(found), [vec![10], vec![11], vec![], vec![20]]);
    assert_eq!(merged.keys(), 3);
}

#[test]
fn only_files_of_one_tier_are_merged() {
    let mut disk = MemDisk::new();
    let (mut tiers, _) = Tiers::open(&mut disk, &[]).unwrap();
    for (segment, count) in [(1, 70_000), (2, 10), (3, 10), (4, 10), (5, 10)] {
        let mut all: Vec<Posting> = (0..count).map(|n| (key(n * 2), Lsn(segment * 100_000 + n))).collect();
        let built = build(&mut disk, Span::of(SegmentId(segment)), &mut all).unwrap();
        tiers.add(&mut disk, built).unwrap();
        if segment == 4 {
            assert_eq!(tiers.plan_merge(), None, "four files, but not of one size");
        }
    }
    let small: Vec<_> = (2..=5).map(|segment| Span::of(SegmentId(segment))).collect();
    assert_eq!(tiers.plan_merge(), Some(small));
}

#[test]
fn a_file_that_vanished_is_damaged_when_it_is_asked_and_removed_when_it_leaves() {
    let mut disk = MemDisk::new();
    let (mut tiers, _) = Tiers::open(&mut disk, &[]).unwrap();
    let span = Span::of(SegmentId(1));
    let built = build(&mut disk, span, &mut vec![(key(1), Lsn(10))]).unwrap();
    tiers.add(&mut disk, built).unwrap();
    disk.remove(&span.file()).unwrap();
    assert_eq!(tiers.lookup(&disk, &[key(1)]).damaged, [Damaged { span }]);
    assert!(matches!(Index::open(&disk, span), Err(LookupError::Damaged(_))));
    tiers.drop_before(&mut disk, SegmentId(2)).unwrap();
    assert!(tiers.files().is_empty());
    disk.faults.calls_left = Some(2);
    let built = build(&mut disk, span, &mut vec![(key(1), Lsn(10))]);
    assert!(built.is_err(), "a disk that fails is no file that vanished");
}

#[test]
fn a_file_is_written_in_long_pieces() {
    let mut disk = MemDisk::new();
    let mut all = postings(&mut Dice(3), 40_000, 1);
    build(&mut disk, Span::of(SegmentId(1)), &mut all).unwrap();
    // 40,000 entries take 953 blocks of 1 KiB; 256 blocks are one piece, and the ends are written apart.
    let writes = disk.calls(DiskCall::Write);
    assert!(writes <= 8, "{writes} writes");
}

/// What the descriptor says of the places to look at is checked against what is there.
#[test]
fn a_filter_whose_descriptor_lies_is_none() {
    let good = super::filter::Filter::build((0..1000).map(|n| n * 7919).collect()).bytes().to_vec();
    let word = |at: usize| u32::from_le_bytes(good[at..at + 4].try_into().unwrap());
    let (length, mask, total) = (word(8), word(12), word(16));
    let lying = |words: [u32; 3]| {
        let mut bytes = good.clone();
        for (at, word) in [8, 12, 16].into_iter().zip(words) {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        super::filter::Filter::from_bytes(bytes).is_none()
    };
    assert!(!lying([length, mask, total]));
    assert!(lying([length, mask - 1, total]), "a mask of another length");
    assert!(lying([length, mask, 0]), "nothing to look at");
    assert!(lying([length, mask, total + 1]), "one place too many");
    assert!(lying([3, 2, 1]), "no power of two");
}
