//! [`Stats`] and what they carry.

use super::{Result, all, at_most, name, required};
use crate::put::{Put, Writer};
use crate::{DecodeError, STATS_SERVICES_MAX, ServiceTokens, Standing, Stats, Tokens, Totals, wire};

impl Put for Stats {
    fn put(&self, to: &mut Writer) {
        to.message(1, &self.totals);
        to.message(2, &self.standing);
        to.each(3, &self.tokens);
    }
}

impl TryFrom<wire::Stats> for Stats {
    type Error = DecodeError;

    fn try_from(w: wire::Stats) -> Result<Self> {
        Ok(Self {
            totals: required(w.totals, "stats.totals")?.try_into()?,
            standing: required(w.standing, "stats.standing")?.into(),
            tokens: all(w.tokens, STATS_SERVICES_MAX, "stats.tokens")?,
        })
    }
}

impl Put for ServiceTokens {
    fn put(&self, to: &mut Writer) {
        to.bytes(1, &self.service);
        to.uint(2, self.tokens.prompt);
        to.uint(3, self.tokens.completion);
    }
}

impl TryFrom<wire::ServiceTokens> for ServiceTokens {
    type Error = DecodeError;

    fn try_from(w: wire::ServiceTokens) -> Result<Self> {
        let wire::ServiceTokens { service, prompt, completion } = w;
        Ok(Self { service: name(service, "stats.tokens.service")?, tokens: Tokens { prompt, completion } })
    }
}

impl Put for Totals {
    fn put(&self, to: &mut Writer) {
        self.outcomes.iter().for_each(|count| to.number(1, *count));
        self.lengths.iter().for_each(|count| to.number(2, *count));
        to.uint(3, self.took_ms);
        to.uint(4, self.assigned);
        to.uint(5, self.redelivered);
        to.uint(6, self.recalled);
        to.uint(7, self.dropped);
        to.uint(8, self.lost);
        to.uint(9, self.refused);
        to.uint(10, self.suppressed);
    }
}

impl TryFrom<wire::Totals> for Totals {
    type Error = DecodeError;

    fn try_from(w: wire::Totals) -> Result<Self> {
        Ok(Self {
            outcomes: counts(&w.outcomes, "totals.outcomes")?,
            lengths: counts(&w.lengths, "totals.lengths")?,
            took_ms: w.took_ms,
            assigned: w.assigned,
            redelivered: w.redelivered,
            recalled: w.recalled,
            dropped: w.dropped,
            lost: w.lost,
            refused: w.refused,
            suppressed: w.suppressed,
        })
    }
}

/// A router of another version may tell fewer apart.
fn counts<const N: usize>(told: &[u64], field: &'static str) -> Result<[u64; N]> {
    at_most(told.len(), N, field)?;
    let mut counts = [0; N];
    counts[..told.len()].copy_from_slice(told);
    Ok(counts)
}

impl Put for Standing {
    fn put(&self, to: &mut Writer) {
        to.uint(1, self.ready);
        to.uint(2, self.running);
        to.uint(3, self.backoff);
        to.uint(4, self.suspect);
        to.uint(5, self.withheld);
        to.uint(6, self.jobs);
        to.uint(7, self.unsettled);
        self.idle_ms.iter().for_each(|ms| to.number(8, *ms));
    }
}

impl From<wire::Standing> for Standing {
    fn from(w: wire::Standing) -> Self {
        let wire::Standing { ready, running, backoff, suspect, withheld, jobs, unsettled, idle_ms } = w;
        Self { ready, running, backoff, suspect, withheld, jobs, unsettled, idle_ms }
    }
}
