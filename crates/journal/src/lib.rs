//! Records on a disk: framing, group commit, recovery, compaction, and the index of finished keys. Pure but for its disk.
