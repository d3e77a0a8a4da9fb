//! The job beside its sink: which one it is, and whether this command is it.
//!
//! Invariant: the record is durable before anything is submitted, so that the same command finds the same job again.
//!
//! Life of a record under commands with the same fingerprint:
//!
//! ```text
//!     (none) ──any──► open ──finished──► done ──plain──► done (resumes: everything is finished)
//!                      │ ▲                 └──fresh──► open, fresh: a new job with a new nonce
//!                      └─┘ plain; fresh, if the open job is fresh itself (else: a new one)
//! ```

use serde::{Deserialize, Serialize};
use sheaf_task::JobId;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::sink::{Claim, Sink, SinkError, SinkSpec};

/// What makes a command the same command. Each part is a description for people that differs when the part does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Where rows come from and how they are read.
    pub source: String,
    /// Where results go.
    pub sink: String,
    /// What is asked for.
    pub service: String,
    /// What changes when the answers change.
    pub revision: String,
    /// How a body is made of a row, where it is.
    pub template: String,
}

impl Fingerprint {
    /// The parts in which two differ.
    pub fn differences(&self, given: &Fingerprint) -> Vec<Difference> {
        let parts = [
            ("source", &self.source, &given.source),
            ("sink", &self.sink, &given.sink),
            ("service", &self.service, &given.service),
            ("revision", &self.revision, &given.revision),
            ("template", &self.template, &given.template),
        ];
        let differing = parts.into_iter().filter(|(_, stored, given)| stored != given);
        differing
            .map(|(part, stored, given)| Difference { part, stored: stored.clone(), given: given.clone() })
            .collect()
    }
}

/// One part in which two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub part: &'static str,
    /// As the job that writes there has it.
    pub stored: String,
    /// As this command has it.
    pub given: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {:?} there and {:?} here", self.part, self.stored, self.given)
    }
}

/// A job as it is stored beside its sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Its id.
    pub job: JobId,
    /// Empty, or what `--fresh` sets it apart by.
    pub nonce: Vec<u8>,
    /// The command that makes it.
    pub fingerprint: Fingerprint,
    /// Every row of the source had its outcome in the sink.
    pub done: bool,
}

/// Disk form of [`JobRecord`]. Version 1; a field more needs no other version, a field less or another meaning does.
#[derive(Serialize, Deserialize)]
struct RecordOnDisk {
    version: u32,
    job: String,
    nonce: String,
    fingerprint: Fingerprint,
    done: bool,
}

impl JobRecord {
    fn new(fingerprint: &Fingerprint, fresh: bool) -> Result<Self, JobError> {
        let nonce = if fresh { random()?.to_vec() } else { Vec::new() };
        Ok(Self { job: JobId(random()?), nonce, fingerprint: fingerprint.clone(), done: false })
    }

    fn to_json(&self) -> String {
        let disk = RecordOnDisk {
            version: 1,
            job: self.job.to_string(),
            nonce: self.nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
            fingerprint: self.fingerprint.clone(),
            done: self.done,
        };
        #[expect(clippy::expect_used, reason = "a record is strings and booleans")]
        serde_json::to_string_pretty(&disk).expect("a record is always JSON")
    }

    fn from_json(text: &str) -> Option<Self> {
        let disk: RecordOnDisk = serde_json::from_str(text).ok().filter(|disk: &RecordOnDisk| disk.version == 1)?;
        let nonce = match disk.nonce.as_str() {
            "" => Vec::new(),
            hex => JobId::parse(hex)?.0.to_vec(),
        };
        Some(Self { job: JobId::parse(&disk.job)?, nonce, fingerprint: disk.fingerprint, done: disk.done })
    }

    /// The job that writes to a sink, whether or not a process is at it; `None` where there is none.
    pub fn beside(sink: &SinkSpec) -> Result<Option<Self>, SinkError> {
        let Some(text) = crate::sink::peek(sink)? else { return Ok(None) };
        match Self::from_json(&text) {
            Some(record) => Ok(Some(record)),
            None => Err(SinkError::State { path: sink.path.clone() }),
        }
    }

    /// True for a job that `--fresh` began.
    pub fn is_fresh(&self) -> bool {
        !self.nonce.is_empty()
    }

    /// Says beside the sink whether the job is done, durably.
    pub fn set_done(&mut self, claim: &Claim, done: bool) -> Result<(), JobError> {
        if self.done == done {
            return Ok(());
        }
        self.done = done;
        Ok(claim.store(&self.to_json())?)
    }
}

/// Finds the job of this command beside its sink, or begins one there, and opens the sink for it. A job whose results
/// were removed as a whole begins again under another id: what finished is answered from the journal.
pub fn take_up(claim: &Claim, given: &Fingerprint, fresh: bool) -> Result<(JobRecord, Box<dyn Sink>), JobError> {
    let mut record = find(claim, given, fresh)?;
    let sink = match claim.open(record.job) {
        Err(SinkError::Gone { path }) => {
            tracing::warn!(path = %path.display(), "the results were removed: starting over");
            record = JobRecord { job: JobId(random()?), done: false, ..record };
            claim.store(&record.to_json())?;
            claim.open(record.job)?
        }
        opened => opened?,
    };
    Ok((record, sink))
}

fn find(claim: &Claim, given: &Fingerprint, fresh: bool) -> Result<JobRecord, JobError> {
    if let Some(text) = claim.load()? {
        let Some(stored) = JobRecord::from_json(&text) else {
            return Err(SinkError::State { path: claim.state_dir().join("job.json") }.into());
        };
        let differences = stored.fingerprint.differences(given);
        if !differences.is_empty() {
            let (path, advice) = (claim.path().to_owned(), claim.way_out());
            return Err(JobError::OtherJob { path, differences, advice });
        }
        if !fresh || (stored.is_fresh() && !stored.done) {
            return Ok(stored);
        }
    }
    let record = JobRecord::new(given, fresh)?;
    claim.store(&record.to_json())?;
    Ok(record)
}

fn random() -> Result<[u8; 16], JobError> {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(JobError::Random)?;
    Ok(bytes)
}

/// Why a command's job cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Another command writes to this sink.
    #[error(
        "{path} belongs to another job: {}. {advice}",
        differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    OtherJob {
        /// The sink.
        path: PathBuf,
        /// In what it is another.
        differences: Vec<Difference>,
        /// What can be done.
        advice: String,
    },
    /// The sink cannot be used.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The system gave no random bytes.
    #[error("cannot read /dev/urandom: {0}")]
    Random(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(revision: &str) -> Fingerprint {
        Fingerprint { source: "text /in".into(), service: "s".into(), revision: revision.into(), ..Default::default() }
    }

    #[test]
    fn the_same_command_finds_its_job_and_another_is_told_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let spec = SinkSpec::new(dir.path().join("o.jsonl"));
        assert_eq!(JobRecord::beside(&spec).unwrap(), None);
        let claim = Claim::take(&spec).unwrap();
        let (first, _) = take_up(&claim, &fingerprint("1"), false).unwrap();
        let (again, _) = take_up(&claim, &fingerprint("1"), false).unwrap();
        assert_eq!(first, again);
        assert_eq!(JobRecord::beside(&spec).unwrap(), Some(first));
        match take_up(&claim, &fingerprint("2"), true).err().unwrap() {
            JobError::OtherJob { differences, .. } => {
                assert_eq!(differences, [Difference { part: "revision", stored: "1".into(), given: "2".into() }]);
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn fresh_resumes_its_own_unfinished_job_and_begins_anew_after_a_finished_one() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(&SinkSpec::new(dir.path().join("o.jsonl"))).unwrap();
        let job = |fresh| take_up(&claim, &fingerprint("1"), fresh).unwrap().0;
        let plain = job(false);
        let mut fresh = job(true);
        assert!(plain.job != fresh.job && plain.nonce.is_empty() && fresh.nonce.len() == 16);
        assert_eq!(job(true), fresh);
        assert_eq!(job(false), fresh);
        fresh.set_done(&claim, true).unwrap();
        assert_eq!(job(false), fresh);
        let other = job(true);
        assert!(other.job != fresh.job && other.nonce != fresh.nonce);
    }

    #[test]
    fn removed_results_begin_again_under_another_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.csv");
        let claim = Claim::take(&SinkSpec::new(&path)).unwrap();
        let (first, mut sink) = take_up(&claim, &fingerprint("1"), false).unwrap();
        let row = crate::sink::SinkRow {
            row: sheaf_task::RowId([1; 16]),
            number: 1,
            id: None,
            outcome: sheaf_task::Outcome::Ok(bytes::Bytes::new()),
            key: None,
            attempts: 1,
            worker: "".into(),
            ms: 0,
            tokens: None,
        };
        sink.commit(&[row], None).unwrap();
        drop(sink);
        std::fs::remove_file(&path).unwrap();
        let (second, mut sink) = take_up(&claim, &fingerprint("1"), false).unwrap();
        assert_ne!(first.job, second.job);
        assert_eq!(sink.finished().unwrap(), []);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(&SinkSpec::new(dir.path().join("o.jsonl"))).unwrap();
        claim.store("{}").unwrap();
        let taken = take_up(&claim, &fingerprint("1"), false);
        assert!(matches!(taken, Err(JobError::Sink(SinkError::State { .. }))));
    }
}
