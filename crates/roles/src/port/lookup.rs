//! What the index knows of the keys in a message, noted in it before it goes to the machine.
//!
//! It deliberately knows no index: whoever has one says what it finds.

use sheaf_task::{Key, Question, RowId};

use crate::router::record::{owners_of, prior_of};
use crate::router::{Generation, Inbound, JobNo, Lsn, Record};

/// Keys that are looked up together: what is found of them, answers of up to 1 MiB among it, is in memory at the same time.
pub(super) const LOOK_UP_KEYS_MAX: usize = 64;

/// Notes in a message what the index knows of its keys: of a `Submit`, of the job `no`, under `generation` of the index;
/// of a question about a task. Other messages stay as they are. `find` gives the records that the index names for each
/// key, in LSN order; damaged ones are left out. It is asked for at most `LOOK_UP_KEYS_MAX` keys at once, for what it
/// finds has the answers themselves.
pub fn look_up(
    inbound: &mut Inbound,
    no: Option<JobNo>,
    generation: Generation,
    mut find: impl FnMut(&[Key]) -> Vec<Vec<(Lsn, Record)>>,
) {
    match inbound {
        Inbound::Submit { job: _, cursor: _, rows, generation: seen } => {
            *seen = generation;
            for rows in rows.chunks_mut(LOOK_UP_KEYS_MAX) {
                let keys: Vec<Key> = rows.iter().map(|row| row.key).collect();
                for (row, found) in rows.iter_mut().zip(find(&keys)) {
                    row.prior = prior_of(row.key, no, row.row, &found);
                }
            }
        }
        Inbound::Ask { question: Question::Task(key), prior, owners, .. } => {
            let found = find(&[*key]).into_iter().next().unwrap_or_default();
            *prior = prior_of(*key, None, RowId::default(), &found);
            *owners = owners_of(*key, &found);
        }
        Inbound::Ask { .. }
        | Inbound::OpenJob { .. }
        | Inbound::Scanned { .. }
        | Inbound::Register(_)
        | Inbound::Results(_)
        | Inbound::Recalled(_)
        | Inbound::Leave
        | Inbound::Watch { .. }
        | Inbound::Piece(_) => {}
    }
}
