//! Memory that a socket is read into: blocks, shared by several reads, and as large as what comes is.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::{READ_BLOCK_MAX, READ_BLOCK_MIN};

/// Reads like the largest one that a block is made for, two of them in its first half. A block for each would cost a page fault
/// a read.
const READS_A_BLOCK: usize = 4;

/// The block under way of one connection.
///
/// ```text
///   |<---------- size ----------->|
///   +--------------+--------------+
///   | whatever     | rest of what |   A packet that is cut where a block ends is copied when its rest comes: so the second
///   | comes        | began before |   half is for nothing else, and as long as what was missing of packets lately.
///   +--------------+--------------+
/// ```
#[derive(Debug, Default)]
pub(crate) struct Intake {
    block: BytesMut,
    /// What the block was made for; half of it or less may be unused in the end.
    size: usize,
    /// The largest read into it.
    largest: usize,
    /// The most that was missing of a packet, lately.
    missing: usize,
}

impl Intake {
    /// The next bytes, as many as there are up to a bound; `None` at the end. `missing`: those that the packet under way still
    /// needs. May be dropped at any await and called again: nothing is lost.
    pub(crate) async fn read<R: AsyncRead + Unpin>(
        &mut self,
        half: &mut R,
        missing: usize,
    ) -> io::Result<Option<BytesMut>> {
        let most = self.make_room(missing);
        let count = half.read_buf(&mut (&mut self.block).limit(most)).await?;
        self.largest = self.largest.max(count);
        Ok((count > 0).then(|| self.block.split()))
    }

    /// Says how much to read next; never nothing.
    fn make_room(&mut self, missing: usize) -> usize {
        self.missing = self.missing.max(missing);
        let rest = self.block.capacity();
        // Not into the last of the first half: a read costs the same however little it may bring.
        if rest > self.size / 8 * 5 {
            return rest - self.size / 2;
        }
        if (1..=rest).contains(&missing) {
            return missing;
        }
        let wanted = (self.largest * READS_A_BLOCK).max(self.missing * 2).next_power_of_two();
        self.renew(wanted.clamp(READ_BLOCK_MIN, READ_BLOCK_MAX));
        self.size / 2
    }

    /// A block of that size: the one there is, if it has it and nobody has any of its bytes any more.
    fn renew(&mut self, size: usize) {
        if size != self.size || !self.block.try_reclaim(size) {
            self.block = BytesMut::with_capacity(size);
        }
        (self.size, self.largest) = (size, 0);
        // A single long packet is forgotten, blocks later.
        self.missing /= 2;
    }
}

/// The next bytes, at most `most`, in memory of their own.
pub(crate) async fn read_little<R: AsyncRead + Unpin>(half: &mut R, most: usize) -> io::Result<Option<BytesMut>> {
    let mut bytes = BytesMut::with_capacity(most);
    let count = half.read_buf(&mut (&mut bytes).limit(most)).await?;
    Ok((count > 0).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn blocks_grow_and_shrink_with_what_comes() {
        let (mut near, mut far) = duplex(1 << 20);
        let mut intake = Intake::default();
        let mut sizes = Vec::new();
        for (chunk, times) in [(100, 50), (120_000, 20), (100, 4_000)] {
            for _ in 0..times {
                near.write_all(&vec![7; chunk]).await.unwrap();
                let mut read = 0;
                while read < chunk {
                    let bytes = intake.read(&mut far, 0).await.unwrap().unwrap();
                    assert!(bytes.iter().all(|byte| *byte == 7));
                    read += bytes.len();
                }
                assert_eq!(read, chunk);
            }
            assert!(intake.block.capacity() <= intake.size, "no more memory than that");
            sizes.push(intake.size);
        }
        assert_eq!(sizes, [READ_BLOCK_MIN, READ_BLOCK_MAX, READ_BLOCK_MIN]);
        drop(near);
        assert_eq!(intake.read(&mut far, 0).await.unwrap(), None, "the end");
    }

    /// Bytes of a packet's envelope, which its length is in.
    const ENVELOPE: usize = 8;

    /// Sends packets of these lengths through a pipe that holds so much, and reads them as a session does: which of them did
    /// not lie in one piece?
    async fn cut(lengths: &[usize], pipe: usize) -> Vec<usize> {
        let (mut near, mut far) = duplex(pipe);
        let sent = lengths.to_vec();
        let sender = tokio::spawn(async move {
            for len in sent {
                near.write_all(&vec![7; len]).await.unwrap();
            }
        });
        let (mut intake, mut cut, mut partial) = (Intake::default(), Vec::new(), BytesMut::new());
        let mut packets = lengths.iter().copied().enumerate().peekable();
        while let Some(&(at, len)) = packets.peek() {
            let missing = match partial.len() {
                0 => 0,
                has @ 1..ENVELOPE => ENVELOPE - has,
                has => len - has,
            };
            let chunk = intake.read(&mut far, missing).await.unwrap().unwrap();
            if !partial.is_empty() && partial.as_ptr_range().end != chunk.as_ptr() {
                cut.push(at);
            }
            partial.unsplit(chunk);
            while let Some((_, len)) = packets.next_if(|(_, len)| *len <= partial.len()) {
                drop(partial.split_to(len));
            }
        }
        sender.await.unwrap();
        cut.dedup();
        cut
    }

    #[tokio::test]
    async fn packets_are_cut_only_while_blocks_grow() {
        let long = [100_000; 300];
        let growing: Vec<usize> = (0..300).map(|at| 40_000 + at * 700).collect();
        let mixed: Vec<usize> = (0..3_000).map(|at| if at % 10 == 0 { 70_000 } else { 30 + at % 400 }).collect();
        for lengths in [&long[..], &growing, &mixed] {
            // What a socket gives; what a record of TLS holds; what a packet of a network does.
            for pipe in [1 << 20, 16 << 10, 1_448] {
                let cut = cut(lengths, pipe).await;
                assert!(cut.len() < 12, "of {} through {pipe}: {cut:?}", lengths.len());
            }
        }
    }

    #[tokio::test]
    async fn a_packet_longer_than_a_block_comes_through() {
        let lengths = [100, READ_BLOCK_MAX * 3, 100, READ_BLOCK_MAX / 2 + 1, 100];
        for pipe in [1 << 21, 1_448] {
            assert!(cut(&lengths, pipe).await.contains(&1), "else this test shows nothing");
        }
    }
}
