//! The index against a plain list of postings; and damaged, against the rule that it never gives a wrong answer.

use super::{Candidates, Damaged, Index, Posting, Span, Tiers, build, merge};
use crate::testing::MemDisk;
use crate::tests::Dice;
use crate::{Disk, Lsn, SegmentId};

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
    for count in [0, 1, 2, 3, 169, 170, 171, 5000] {
        let (mut disk, dice) = (MemDisk::new(), &mut Dice(count));
        let all = postings(dice, count, 1);
        let index = build(&mut disk, Span::of(SegmentId(3)), &mut all.clone()).unwrap();
        for n in 0..count + 50 {
            let mut found = Vec::new();
            let before = disk.reads();
            index.lookup(&disk, &key(n), &mut found).unwrap();
            assert_eq!(found, wanted(&all, &key(n)), "{count} {n}");
            assert!(disk.reads() - before <= 2, "a block or two");
        }
    }
}

#[test]
fn many_equal_keys_cross_blocks() {
    let mut disk = MemDisk::new();
    let mut all: Vec<Posting> = (1..=1000).map(|lsn| (key(lsn / 400), Lsn(lsn))).collect();
    let index = build(&mut disk, Span::of(SegmentId(1)), &mut all).unwrap();
    let mut found = Vec::new();
    index.lookup(&disk, &key(1), &mut found).unwrap();
    assert_eq!(found, (400..800).map(Lsn).collect::<Vec<_>>());
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
            match index.lookup(&disk, &key(n), &mut found) {
                Ok(()) => assert_eq!(found, wanted(&all, &key(n))),
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
            assert_eq!(tiers.lookup(&disk, &key(n)).unwrap(), Candidates { lsns: want, damaged: vec![] });
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
    let damaged: Vec<_> = (0..200).flat_map(|n| tiers.lookup(&disk, &key(n)).unwrap().damaged).collect();
    assert!(!damaged.is_empty());
    tiers.close(damaged[0]);
    assert_eq!(tiers.lookup(&disk, &key(1)).unwrap(), Candidates::default());
    assert_eq!(tiers.missing(&[SegmentId(1)]), [SegmentId(1)]);
    disk.truncate(&span.file(), 100);
    assert_eq!(Tiers::open(&mut disk, &[SegmentId(1)]).unwrap().1, [SegmentId(1)]);
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
    assert!((2_000..4_500).contains(&index.bytes()), "{} bytes", index.bytes());
}
