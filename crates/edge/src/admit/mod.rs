//! Admission: who is let in, before anything is done for him.
//!
//! | light | when | what happens |
//! |---|---|---|
//! | green | a service has room | calls are let in |
//! | yellow | its calls wait too long, or memory is short | calls are refused, with `Retry-After` |
//! | red | memory is very short, or all connections are taken | no connection is accepted |
//!
//! Each service has a light of its own. Which service a call is for stands in its body: where every service there is is at
//! work and yellow, a call is refused before its body is read. One that is full costs the others nothing.

mod light;
mod pressure;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use sheaf_net::Clock;
use sheaf_session::Micros;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::counts::Counts;
use crate::outcome::retry_after;
use crate::reply::Reply;

use light::Light;
pub use light::LightConfig;
pub(crate) use pressure::{Pressure, read as read_pressure};

/// Services whose lights are remembered; the one that was asked for longest ago gives way.
const LIGHTS_MAX: usize = 256;

/// Memory for bodies that are being read is counted in these.
const UNIT: usize = 1 << 10;

/// The gate of a door.
pub(crate) struct Gate {
    config: LightConfig,
    clock: Clock,
    // Every call looks at its service's light, and none for longer than that takes.
    lights: Mutex<BTreeMap<String, Light>>,
    pressure: AtomicU8,
    /// Services that workers offer, as far as it is known here.
    services: AtomicUsize,
    /// Room for bodies that are being read.
    bodies: Arc<Semaphore>,
    counts: Arc<Counts>,
}

/// A call that was let in; its place is free again when this is dropped.
pub(crate) struct Permit {
    gate: Arc<Gate>,
    service: String,
    begun: Micros,
    executed_ms: Option<u64>,
}

impl Permit {
    /// It was answered, after it was executed for so long.
    pub(crate) fn answered(mut self, executed_ms: u64) {
        self.executed_ms = Some(executed_ms);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.gate.clock.now();
        let answer = self.executed_ms.map(|ms| (now.since(self.begun), ms));
        if let Some(light) = self.gate.lights().get_mut(&self.service) {
            light.on_ended(now, answer);
        }
    }
}

impl Gate {
    pub(crate) fn new(config: LightConfig, body_bytes_max: usize, counts: Arc<Counts>) -> Self {
        let bodies = Arc::new(Semaphore::new((body_bytes_max / UNIT).min(Semaphore::MAX_PERMITS)));
        let (lights, pressure) = (Mutex::new(BTreeMap::new()), AtomicU8::new(Pressure::None as u8));
        Self { config, clock: Clock::start(), lights, pressure, services: AtomicUsize::new(0), bodies, counts }
    }

    fn lights(&self) -> MutexGuard<'_, BTreeMap<String, Light>> {
        self.lights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Ordering::Relaxed);
    }

    /// Workers offer so many services.
    pub(crate) fn set_services(&self, services: usize) {
        self.services.store(services, Ordering::Relaxed);
    }

    /// Nobody is to be let in through the door itself.
    pub(crate) fn is_red(&self) -> bool {
        self.pressure.load(Ordering::Relaxed) >= Pressure::Full as u8
    }

    /// Room for a body of so many bytes, before it is read; `None`: the call is refused.
    pub(crate) fn admit_body(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let is_yellow = self.is_yellow();
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX);
        let room = (!is_yellow).then(|| Arc::clone(&self.bodies).try_acquire_many_owned(units).ok()).flatten();
        if is_yellow {
            self.note_yellow();
        }
        if room.is_none() {
            self.counts.refused();
        }
        room
    }

    /// Whatever call comes is refused.
    pub(crate) fn is_yellow(&self) -> bool {
        self.pressure.load(Ordering::Relaxed) >= Pressure::Some as u8 || self.is_full()
    }

    /// A call was refused because of that.
    pub(crate) fn refuse(&self) {
        self.note_yellow();
        self.counts.refused();
    }

    /// Every service is at work, and none has room. A service that nobody calls has room for the first who does.
    fn is_full(&self) -> bool {
        let services = self.services.load(Ordering::Relaxed).max(1);
        let lights = self.lights();
        let busy = lights.values().filter(|light| light.under_way() > 0);
        let full = busy.clone().filter(|light| !light.is_green()).count();
        full >= services && full == busy.count()
    }

    /// Which service was wanted is not known; each that is at work learns that it may have been.
    fn note_yellow(&self) {
        self.lights().values_mut().filter(|light| light.under_way() > 0).for_each(Light::note_full);
    }

    /// Lets a call for this service in, which `capacity` workers' executions serve; `None`: it is refused.
    pub(crate) fn admit(self: &Arc<Self>, service: &str, capacity: u32) -> Option<Permit> {
        let now = self.clock.now();
        let mut lights = self.lights();
        if !lights.contains_key(service) {
            if lights.len() >= LIGHTS_MAX {
                let idle = lights.iter().filter(|(_, light)| light.under_way() == 0);
                let oldest = idle.min_by_key(|(_, light)| light.last_used()).map(|(name, _)| name.clone());
                oldest.and_then(|oldest| lights.remove(&oldest));
            }
            lights.insert(service.to_owned(), Light::new(now, self.config));
        }
        let light = lights.get_mut(service)?;
        light.set_capacity(capacity);
        if !light.admit(now) {
            self.counts.refused();
            return None;
        }
        self.counts.admitted();
        Some(Permit { gate: Arc::clone(self), service: service.to_owned(), begun: now, executed_ms: None })
    }
}

/// What a call is refused with: nothing in it is made for the occasion but when to come again.
pub(crate) fn busy_reply(jitter: u64) -> Reply {
    let body = Full::new(Bytes::from_static(BUSY)).map_err(|never| match never {}).boxed();
    let mut reply = Reply::new(body);
    *reply.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(RETRY_AFTER, retry_after(jitter));
    reply
}

const BUSY: &[u8] = br#"{"error":{"message":"more calls wait than are answered in time; try again later","type":"rate_limit_error","param":null,"code":"busy"}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(calls_min: u32) -> Arc<Gate> {
        let config = LightConfig { calls_min, ..LightConfig::default() };
        Arc::new(Gate::new(config, 64 << 10, Arc::new(Counts::default())))
    }

    #[test]
    fn a_service_that_is_full_leaves_the_others_their_room() {
        let gate = gate(1);
        gate.set_services(2);
        let a = gate.admit("a", 0).unwrap();
        assert!(gate.admit_body(100).is_some(), "b is idle");
        let _b = gate.admit("b", 0).unwrap();
        assert!(gate.admit_body(100).is_none(), "both are full");
        drop(a);
        assert!(gate.admit_body(100).is_some());
    }

    #[test]
    fn bodies_are_refused_only_while_every_service_at_work_is_yellow() {
        let gate = gate(1);
        let first = gate.admit("a", 0).unwrap();
        assert!(gate.admit("a", 0).is_none());
        assert!(gate.admit_body(100).is_none(), "one service is at work, and it is full");
        drop(first);
        assert!(gate.admit_body(100).is_some());
        let (_full, two) = (gate.admit("a", 0).unwrap(), gate.admit("b", 2).unwrap());
        assert!(gate.admit_body(100).is_some(), "b has room");
        drop(two);
    }

    #[test]
    fn a_light_learns_of_what_was_refused_before_it_was_asked() {
        let gate = gate(1);
        let permit = gate.admit("a", 0).unwrap();
        assert!(gate.admit_body(100).is_none());
        assert!(gate.lights().values().all(Light::was_full));
        drop(permit);
    }

    #[test]
    fn room_for_bodies_is_bounded_and_comes_back() {
        let gate = gate(1);
        let all = gate.admit_body(63 << 10).unwrap();
        assert!(gate.admit_body(1).is_none());
        drop(all);
        assert!(gate.admit_body(1).is_some());
        assert!(gate.admit_body(64 << 10).is_none(), "more than there is at all");
    }

    #[test]
    fn without_memory_nothing_is_let_in() {
        let gate = gate(1);
        gate.set_pressure(Pressure::Some);
        assert!(gate.admit_body(1).is_none() && !gate.is_red());
        gate.set_pressure(Pressure::Full);
        assert!(gate.is_red());
        gate.set_pressure(Pressure::None);
        assert!(gate.admit_body(1).is_some());
    }

    #[test]
    fn lights_are_bounded() {
        let gate = gate(1);
        let held = gate.admit("held", 1).unwrap();
        for n in 0..2 * LIGHTS_MAX {
            drop(gate.admit(&n.to_string(), 1));
        }
        assert!(gate.lights().len() <= LIGHTS_MAX && gate.lights().contains_key("held"));
        drop(held);
    }
}
