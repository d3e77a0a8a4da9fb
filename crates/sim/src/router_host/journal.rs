//! The router's disk at work: what is emitted is appended, synced, indexed and compacted.

use sheaf_journal::{Class, Entry};
use sheaf_roles::router::{Event, Lsn};

use super::{LOOK_AGAIN, RouterHost, Running};
use crate::env::{Env, Happening};
use crate::plan::Who;

impl RouterHost {
    /// The sync that was under way is done.
    pub(crate) fn on_synced(&mut self, env: &mut Env) {
        let Some(run) = &mut self.run else { return };
        if run.is_frozen {
            // The disk is done; nobody looks.
            return env.agenda.enter_in(LOOK_AGAIN, Happening::Synced(self.life));
        }
        match run.journal.commit() {
            Ok(committed) => {
                env.tell(Who::Router, |story| story.records(run.syncing.iter().map(|(_, record)| record)));
                for (lsn, record) in run.syncing.drain(..) {
                    env.ledger.on_durable_record(lsn, &record);
                }
                self.step(env, Event::Durable(Lsn(committed.durable.0)));
                self.tend(env);
            }
            Err(error) => env.ledger.violate(format!("a commit failed on a good disk: {error}")),
        }
        self.after(env);
    }

    /// Indexes what is sealed and compacts a slice. Nothing is between journal and disk now.
    fn tend(&mut self, env: &mut Env) {
        let Some(run) = &mut self.run else { return };
        match run.archive.index(&mut run.journal) {
            Ok(None) => {}
            Ok(Some(event)) => self.step(env, event),
            Err(error) => return env.ledger.violate(format!("an index cannot be built on a good disk: {error}")),
        }
        let Some((_, Some(retention))) = self.plan.oddities.small_segments else { return };
        let (now, ages) = (env.now(), &mut self.ages);
        let Some(run) = &mut self.run else { return };
        ages.see(&run.journal, now);
        if let Some(event) = run.archive.begin(&run.journal, |segment| ages.is_ripe(segment, now, retention)) {
            env.ledger.on_floor(run.archive.floor());
            self.step(env, event);
        }
        let Some(run) = &mut self.run else { return };
        if let Err(what) = run.archive.compact(&mut run.journal, &run.router) {
            env.ledger.violate(what);
        }
    }
}

pub(super) fn append(run: &mut Running, env: &mut Env) {
    let payloads: Vec<(u8, Vec<u8>)> = run
        .syncing
        .iter()
        .map(|(_, record)| {
            let mut payload = Vec::new();
            record.encode_into(&mut payload);
            (record.kind(), payload)
        })
        .collect();
    let entries: Vec<Entry<&[u8]>> =
        payloads.iter().map(|(kind, payload)| Entry { kind: *kind, payload: payload.as_slice() }).collect();
    match run.journal.append(Class::Intake, &entries) {
        Ok(last) => {
            let expected = run.syncing.last().map(|(lsn, _)| lsn.0);
            if expected != Some(last.0) {
                env.ledger.violate(format!("the machine counts to {expected:?}, the journal to {}", last.0));
            }
        }
        Err(error) => env.ledger.violate(format!("an append failed on a good disk: {error}")),
    }
}
