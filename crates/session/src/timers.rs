//! The round trip as measured, and the pause before a probe. It knows no lane's content.

use crate::{Lane, Micros, Timers};

/// A smoothed round trip from samples of which at most one is under way.
#[derive(Debug)]
pub(crate) struct RoundTrip {
    srtt: Micros,
    rttvar: Micros,
    /// The first number whose arrival ends the sample.
    sample: Option<(Lane, u64, Micros)>,
    measured: bool,
}

impl RoundTrip {
    pub(crate) fn new() -> RoundTrip {
        RoundTrip { srtt: SRTT_START, rttvar: Micros(SRTT_START.0 / 2), sample: None, measured: false }
    }

    pub(crate) fn start(&mut self, lane: Lane, seq: u64, now: Micros) {
        self.sample.get_or_insert((lane, seq, now));
    }

    /// A resent number says nothing about the round trip.
    pub(crate) fn abandon(&mut self) {
        self.sample = None;
    }

    pub(crate) fn on_got(&mut self, lane: Lane, got: u64, now: Micros) {
        let Some((_, _, at)) = self.sample.take_if(|(of, seq, _)| *of == lane && *seq <= got) else { return };
        let sample = now.since(at).0.min(SRTT_MAX.0);
        if self.measured {
            let error = sample.abs_diff(self.srtt.0);
            self.rttvar = Micros((3 * self.rttvar.0 + error) / 4);
            self.srtt = Micros((7 * self.srtt.0 + sample) / 8);
        } else {
            (self.srtt, self.rttvar, self.measured) = (Micros(sample), Micros(sample / 2), true);
        }
    }

    /// Within this span nothing is asked for or resent twice.
    pub(crate) fn span(&self) -> Micros {
        self.srtt.max(SPAN_MIN)
    }

    /// The pause before probe number `tries` (0, 1, 2 …) since the last progress.
    pub(crate) fn probe_after(&self, timers: &Timers, tries: u32) -> Micros {
        let slack = Micros(self.rttvar.0.saturating_mul(4)).max(timers.probe_min);
        let pause = self.srtt + slack + timers.ack_delay;
        Micros(pause.0.saturating_mul(1 << tries.min(16))).min(timers.probe_max)
    }
}

/// Before anything is measured.
const SRTT_START: Micros = Micros::from_ms(50);
/// A sample beyond this is no round trip: the carrier stood still.
const SRTT_MAX: Micros = Micros::from_secs(2);
/// So that a loopback's microseconds do not turn one gap into a flood of questions.
const SPAN_MIN: Micros = Micros::from_ms(5);
