//! Memory that a socket is read into: blocks, shared by several reads, and as large as what comes is.

use std::io;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::{READ_BLOCK_MAX, READ_BLOCK_MIN};

/// Reads like the largest one that a block is made for. A block for each would cost a page fault a read.
const READS_A_BLOCK: usize = 4;

/// The block under way of one connection.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    block: BytesMut,
    /// What the block was made for; the last of it may be unused.
    size: usize,
    /// The largest read into it.
    largest: usize,
}

impl Intake {
    /// The next bytes, as many as there are up to a bound; `None` at the end. `lacks`: those that a packet under way still
    /// needs. May be dropped at any await and called again: nothing is lost.
    pub(crate) async fn read<R: AsyncRead + Unpin>(
        &mut self,
        half: &mut R,
        lacks: usize,
    ) -> io::Result<Option<BytesMut>> {
        let most = self.room(lacks);
        let count = half.read_buf(&mut (&mut self.block).limit(most)).await?;
        self.largest = self.largest.max(count);
        Ok((count > 0).then(|| self.block.split()))
    }

    /// How much to read next. The second half of a block is for nothing but the rest of a packet that begins in the first: one
    /// that is cut where a block ends is copied when its rest comes.
    fn room(&mut self, lacks: usize) -> usize {
        let rest = self.block.capacity();
        if rest > self.size / 4 * 3 {
            return rest - self.size / 2;
        }
        if (1..=rest).contains(&lacks) {
            return lacks;
        }
        let wanted = (self.largest * READS_A_BLOCK).max(lacks * 2).next_power_of_two();
        self.renew(wanted.clamp(READ_BLOCK_MIN, READ_BLOCK_MAX));
        self.size / 2
    }

    /// A block of that size: the one there is, if it has it and nobody has any of its bytes any more.
    fn renew(&mut self, size: usize) {
        if size != self.size || !self.block.try_reclaim(size) {
            self.block = BytesMut::with_capacity(size);
        }
        (self.size, self.largest) = (size, 0);
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

    /// Cuts what comes into packets of known lengths, as a session does, and says how many do not lie in one piece.
    #[tokio::test]
    async fn no_packet_is_cut_where_a_block_ends() {
        let (mut near, mut far) = duplex(1 << 20);
        let lengths: Vec<usize> = (0..200).map(|at| 60_000 + at * 1_000).collect();
        let sent = lengths.clone();
        let sender = tokio::spawn(async move {
            for len in sent {
                near.write_all(&vec![7; len]).await.unwrap();
            }
        });
        let (mut intake, mut cut) = (Intake::default(), Vec::new());
        let mut partial = BytesMut::new();
        let mut lengths = lengths.into_iter().enumerate().peekable();
        while let Some((_, len)) = lengths.peek() {
            let lacks = if partial.is_empty() { 0 } else { len - partial.len() };
            let chunk = intake.read(&mut far, lacks).await.unwrap().unwrap();
            let is_behind = partial.is_empty() || partial.as_ptr_range().end == chunk.as_ptr();
            if !is_behind {
                cut.extend(lengths.peek().map(|(at, _)| *at));
            }
            partial.unsplit(chunk);
            while let Some((_, len)) = lengths.next_if(|(_, len)| *len <= partial.len()) {
                drop(partial.split_to(len));
            }
        }
        sender.await.unwrap();
        assert!(cut.iter().all(|at| *at < 4), "only while blocks grow: {cut:?}");
        assert_eq!(intake.size, READ_BLOCK_MAX);
    }
}
