//! Rules that can be switched off, by name. Each must be noticed by a checker within some thousand seeds.

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
    /// A join is acknowledged before what it joined is durable.
    JoinNotGated,
    /// A worker is lost at its first second of silence.
    NoGrace,
    /// A restarted router hands everything out at once.
    NoWithhold,
    /// A sender ignores its credit.
    NoCreditCheck,
    /// Chains are not compared at resume.
    NoChainCheck,
    /// A session acknowledges on delivery.
    AckBeforeCommit,
    /// A message of depth DISK leaves before it is persisted.
    SendBeforePersist,
    /// The journal confirms without having synced.
    AckBeforeSync,
    /// The client commits a delivery before its sink has it.
    CommitBeforeSink,
    /// The sink commits rows without the cursor.
    CursorNotInSink,
    /// A worker executes an assignment again when it comes again.
    RunTwice,
}

impl Planted {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Planted); 16] = [
        ("ack-before-durable", Planted::AckBeforeDurable),
        ("no-fence", Planted::NoFence),
        ("early-release", Planted::EarlyRelease),
        ("write-ahead-skipped", Planted::WriteAheadSkipped),
        ("no-dedup-on-resubmit", Planted::NoDedupOnResubmit),
        ("join-not-gated", Planted::JoinNotGated),
        ("no-grace", Planted::NoGrace),
        ("no-withhold", Planted::NoWithhold),
        ("no-credit-check", Planted::NoCreditCheck),
        ("no-chain-check", Planted::NoChainCheck),
        ("ack-before-commit", Planted::AckBeforeCommit),
        ("send-before-persist", Planted::SendBeforePersist),
        ("ack-before-sync", Planted::AckBeforeSync),
        ("commit-before-sink", Planted::CommitBeforeSink),
        ("cursor-not-in-sink", Planted::CursorNotInSink),
        ("run-twice", Planted::RunTwice),
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
            Planted::NoGrace => Some(Mutation::NoGrace),
            Planted::NoWithhold => Some(Mutation::NoWithhold),
            Planted::NoCreditCheck
            | Planted::NoChainCheck
            | Planted::AckBeforeCommit
            | Planted::SendBeforePersist
            | Planted::AckBeforeSync
            | Planted::CommitBeforeSink
            | Planted::CursorNotInSink
            | Planted::RunTwice => None,
        }
    }

    /// As sessions know it.
    pub(crate) fn session(self) -> Option<sheaf_session::Mutation> {
        use sheaf_session::Mutation;
        match self {
            Planted::NoCreditCheck => Some(Mutation::NoCreditCheck),
            Planted::NoChainCheck => Some(Mutation::NoChainCheck),
            Planted::AckBeforeCommit => Some(Mutation::AckBeforeCommit),
            Planted::SendBeforePersist => Some(Mutation::SendBeforePersist),
            Planted::AckBeforeDurable
            | Planted::NoFence
            | Planted::EarlyRelease
            | Planted::WriteAheadSkipped
            | Planted::NoDedupOnResubmit
            | Planted::JoinNotGated
            | Planted::NoGrace
            | Planted::NoWithhold
            | Planted::AckBeforeSync
            | Planted::CommitBeforeSink
            | Planted::CursorNotInSink
            | Planted::RunTwice => None,
        }
    }

    /// As the journal knows it.
    pub(crate) fn journal(self) -> Option<sheaf_journal::Mutation> {
        (self == Planted::AckBeforeSync).then_some(sheaf_journal::Mutation::AckBeforeSync)
    }
}
