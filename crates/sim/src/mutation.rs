//! Rules that can be switched off, by name. Each must be noticed by a checker within ten thousand seeds.
//!
//! Persisting before sending, whose absence the rest of a cluster makes good, is planted where it shows: in the session's
//! own world of two peers (`cargo test -p sheaf-session --features mutations`).

/// A rule that is not followed in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The router commits messages before their records are durable.
    AckBeforeDurable,
    /// A result is taken for the present attempt whatever its fence says.
    NoFence,
    /// The router's outbox is released one record early.
    EarlyRelease,
    /// The router changes its state without the record.
    WriteAheadSkipped,
    /// A row that is already known is taken for one more row.
    NoDedupOnResubmit,
    /// A session acknowledges on delivery.
    AckBeforeCommit,
    /// The journal confirms without having synced.
    AckBeforeSync,
    /// The sink commits rows without the cursor.
    CursorNotInSink,
    /// A worker executes an assignment again when it comes again.
    RunTwice,
    /// A session sends more than its peer has granted.
    NoCreditCheck,
    /// A session resumes with a peer that has other messages under the same numbers.
    NoChainCheck,
    /// A row that joins an open task is acknowledged before either is durable.
    JoinNotGated,
    /// A client leaves a cancelled job with the first row that is refused there.
    LeaveWhenCancelled,
}

impl Planted {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Planted); 13] = [
        ("ack-before-durable", Planted::AckBeforeDurable),
        ("no-fence", Planted::NoFence),
        ("early-release", Planted::EarlyRelease),
        ("write-ahead-skipped", Planted::WriteAheadSkipped),
        ("no-dedup-on-resubmit", Planted::NoDedupOnResubmit),
        ("ack-before-commit", Planted::AckBeforeCommit),
        ("ack-before-sync", Planted::AckBeforeSync),
        ("cursor-not-in-sink", Planted::CursorNotInSink),
        ("run-twice", Planted::RunTwice),
        ("no-credit-check", Planted::NoCreditCheck),
        ("no-chain-check", Planted::NoChainCheck),
        ("join-not-gated", Planted::JoinNotGated),
        ("leave-when-cancelled", Planted::LeaveWhenCancelled),
    ];

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Planted> {
        Self::ALL.iter().find(|(other, _)| *other == name).map(|(_, planted)| *planted)
    }
}

#[cfg(feature = "mutations")]
impl Planted {
    /// As the router machine knows it.
    pub(crate) fn router(self) -> Option<sheaf_roles::router::Mutation> {
        use sheaf_roles::router::Mutation;
        match self {
            Planted::AckBeforeDurable => Some(Mutation::AckBeforeDurable),
            Planted::NoFence => Some(Mutation::NoFence),
            Planted::EarlyRelease => Some(Mutation::EarlyRelease),
            Planted::WriteAheadSkipped => Some(Mutation::WriteAheadSkipped),
            Planted::NoDedupOnResubmit => Some(Mutation::NoDedupOnResubmit),
            Planted::JoinNotGated => Some(Mutation::JoinNotGated),
            Planted::AckBeforeCommit
            | Planted::AckBeforeSync
            | Planted::CursorNotInSink
            | Planted::RunTwice
            | Planted::NoCreditCheck
            | Planted::NoChainCheck
            | Planted::LeaveWhenCancelled => None,
        }
    }

    /// As sessions know it.
    pub(crate) fn session(self) -> Option<sheaf_session::Mutation> {
        use sheaf_session::Mutation;
        match self {
            Planted::AckBeforeCommit => Some(Mutation::AckBeforeCommit),
            Planted::NoCreditCheck => Some(Mutation::NoCreditCheck),
            Planted::NoChainCheck => Some(Mutation::NoChainCheck),
            Planted::AckBeforeDurable
            | Planted::NoFence
            | Planted::EarlyRelease
            | Planted::WriteAheadSkipped
            | Planted::NoDedupOnResubmit
            | Planted::AckBeforeSync
            | Planted::CursorNotInSink
            | Planted::RunTwice
            | Planted::JoinNotGated
            | Planted::LeaveWhenCancelled => None,
        }
    }

    /// As the journal knows it.
    pub(crate) fn journal(self) -> Option<sheaf_journal::Mutation> {
        (self == Planted::AckBeforeSync).then_some(sheaf_journal::Mutation::AckBeforeSync)
    }
}
