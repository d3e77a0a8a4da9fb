//! Workers and services: who can do what, what each holds, and who has room.
//!
//! Invariants: a worker stands in the list of each of its services that [`Worker::room`] says, and in no other;
//! `outstanding` is the length of `held`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytestring::ByteString;
use sheaf_session::{Micros, Place};
use sheaf_task::{Capacity, Fence, WorkerId};

use super::event::{Lsn, PeerId};
use super::queue::Service;
use super::slab::List;

/// A worker, by order of first registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkerNo(pub(super) u32);

impl WorkerNo {
    /// No worker.
    pub(super) const NONE: WorkerNo = WorkerNo(u32::MAX);
}

/// A service, by order of first mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceNo(pub(super) u32);

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) incarnation: u64,
    pub(super) name: ByteString,
    pub(super) services: Vec<ServiceNo>,
    /// Its `Registered` record; `None`: it left.
    pub(super) registered: Option<Lsn>,
    pub(super) link: Link,
    /// As announced, clamped.
    pub(super) capacity: Capacity,
    /// What it holds, in order of assignment.
    pub(super) held: List,
    pub(super) held_bytes: u64,
    /// It holds a suspect: gets no second one.
    pub(super) suspect: bool,
    pub(super) recall: Recall,
    /// Garbage answers since its last ok.
    pub(super) garbage: u32,
    /// Given nothing until then.
    pub(super) quarantine: Option<Micros>,
    /// In which list of each of its services it stands, and where in it; `None`: it has no room.
    stands: Option<Room>,
    places: Vec<u32>,
    /// It is in the queue of those that something waits behind, in each of its services.
    is_behind: bool,
}

/// What a worker that has room would do with one more task.
///
/// ```text
///      0 ──────── batch ──────── batch + depth − refill ──────── batch + depth   outstanding
///        Start            Ahead                            (none)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Start it at once.
    Start,
    /// Keep it behind those that it executes. Said once half of the depth is free, or [`REFILL_MAX`] of it: what waits is as
    /// well off here, and one message then fills what many would.
    Ahead,
}

impl Room {
    pub(super) const ALL: [Room; 2] = [Room::Start, Room::Ahead];
}

/// So much free depth is worth a message, however deep it is: what a worker with short tasks has on its way is what keeps
/// it busy.
const REFILL_MAX: u32 = 64;

/// Whether something is being called back from a worker.
///
/// `Idle ─► Asked ─► Idle` when it gave something back, `─► Futile` when it gave nothing: all had started. Then it is
/// not asked again before its next result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    Idle,
    Asked,
    Futile,
}

/// How a worker can be reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// Its session.
    pub(super) peer: Option<PeerId>,
    /// It has introduced itself since the router started.
    pub(super) resumed: bool,
    /// When it was last heard, on the clock of leases.
    pub(super) heard: Micros,
    /// It was silent past the grace.
    pub(super) lost: bool,
    /// What it held when it was lost: judged when it is heard again.
    pub(super) lost_with: Vec<Fence>,
    /// The session has a connection.
    pub(super) up: bool,
}

impl Worker {
    /// Attempts that it holds.
    pub(super) fn outstanding(&self) -> u32 {
        self.held.len
    }

    /// Attempts that it may hold.
    pub(super) fn allowed(&self) -> u32 {
        if self.capacity.batch == 0 { 0 } else { self.capacity.batch + self.capacity.depth }
    }

    /// Of what it holds: waiting behind what it executes.
    pub(super) fn waiting(&self) -> u32 {
        self.outstanding().saturating_sub(self.capacity.batch)
    }

    pub(super) fn can_work(&self) -> bool {
        self.link.up && !self.link.lost && self.link.peer.is_some() && self.quarantine.is_none()
    }

    /// It holds fewer bytes than it wants at most.
    pub(super) fn has_bytes(&self) -> bool {
        self.capacity.bytes == 0 || self.held.len == 0 || self.held_bytes < self.capacity.bytes
    }

    /// What it would do with one more task; `None`: it is given nothing now.
    pub(super) fn room(&self) -> Option<Room> {
        if !self.can_work() || !self.has_bytes() {
            None
        } else if self.outstanding() < self.capacity.batch {
            Some(Room::Start)
        } else {
            let refill = self.capacity.depth.div_ceil(2).clamp(1, REFILL_MAX);
            (self.outstanding() + refill <= self.allowed()).then_some(Room::Ahead)
        }
    }

    /// Tasks that it may be given for this.
    pub(super) fn free(&self, room: Room) -> u32 {
        let most = match room {
            Room::Start => self.capacity.batch,
            Room::Ahead => self.allowed(),
        };
        most.saturating_sub(self.outstanding())
    }
}

/// Every worker and every service.
#[derive(Debug, Default)]
pub(super) struct Workers {
    all: Vec<Worker>,
    by_id: BTreeMap<WorkerId, WorkerNo>,
    services: Vec<Service>,
    by_name: BTreeMap<String, ServiceNo>,
    /// Workers on record: they have not left.
    pub(super) registered: u32,
}

impl Workers {
    pub(super) fn find(&self, id: WorkerId) -> Option<WorkerNo> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn worker(&self, no: WorkerNo) -> &Worker {
        &self.all[no.0 as usize]
    }

    pub(super) fn worker_mut(&mut self, no: WorkerNo) -> &mut Worker {
        &mut self.all[no.0 as usize]
    }

    /// Every worker that ever registered, also those that left.
    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerNo, &Worker)> {
        self.all.iter().enumerate().map(|(at, worker)| (WorkerNo(at as u32), worker))
    }

    pub(super) fn by_id(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.by_id.iter().map(|(id, no)| (*id, self.worker(*no)))
    }

    pub(super) fn count(&self) -> u32 {
        self.all.len() as u32
    }

    pub(super) fn service(&self, no: ServiceNo) -> &Service {
        &self.services[no.0 as usize]
    }

    pub(super) fn service_mut(&mut self, no: ServiceNo) -> &mut Service {
        &mut self.services[no.0 as usize]
    }

    pub(super) fn service_count(&self) -> u32 {
        self.services.len() as u32
    }

    pub(super) fn service_of(&self, name: &str) -> Option<ServiceNo> {
        self.by_name.get(name).copied()
    }

    /// The service of this name, known from now on.
    pub(super) fn name_service(&mut self, name: &str) -> ServiceNo {
        if let Some(no) = self.service_of(name) {
            return no;
        }
        let no = ServiceNo(self.services.len() as u32);
        self.by_name.insert(name.to_owned(), no);
        self.services.push(Service::new(name));
        no
    }

    /// Takes up a `Registered` record. What the worker holds and how it is reached stay as they are.
    pub(super) fn register(&mut self, lsn: Lsn, record: &super::record::Registered) -> WorkerNo {
        let services = record.services.iter().map(|name| self.name_service(name)).collect::<Vec<_>>();
        let no = match self.find(record.worker) {
            Some(no) => no,
            None => self.add(record.worker),
        };
        self.leave_room(no);
        self.set_behind(no, false);
        for service in std::mem::take(&mut self.worker_mut(no).services) {
            self.service_mut(service).workers -= 1;
        }
        for service in &services {
            self.service_mut(*service).workers += 1;
        }
        self.registered += u32::from(self.worker(no).registered.is_none());
        let worker = self.worker_mut(no);
        worker.incarnation = record.incarnation;
        worker.name = record.name.as_str().into();
        worker.services = services;
        worker.registered = Some(lsn);
        self.room_changed(no);
        no
    }

    fn add(&mut self, id: WorkerId) -> WorkerNo {
        let no = WorkerNo(self.all.len() as u32);
        self.by_id.insert(id, no);
        self.all.push(Worker {
            id,
            incarnation: 0,
            name: ByteString::new(),
            services: Vec::new(),
            registered: None,
            link: Link::default(),
            capacity: Capacity { batch: 0, depth: 0, bytes: 0 },
            held: List::default(),
            held_bytes: 0,
            suspect: false,
            recall: Recall::Idle,
            garbage: 0,
            quarantine: None,
            stands: None,
            places: Vec::new(),
            is_behind: false,
        });
        no
    }

    /// Takes up a `Left` record.
    pub(super) fn leave(&mut self, no: WorkerNo) {
        self.leave_room(no);
        self.set_behind(no, false);
        for service in std::mem::take(&mut self.worker_mut(no).services) {
            self.service_mut(service).workers -= 1;
        }
        self.registered -= u32::from(self.worker_mut(no).registered.take().is_some());
    }

    /// Puts a worker into the lists where it now belongs.
    pub(super) fn room_changed(&mut self, no: WorkerNo) {
        let worker = self.worker(no);
        let room = worker.room();
        if room != worker.stands {
            self.leave_room(no);
            if let Some(room) = room {
                self.enter_room(no, room);
            }
        }
        self.waiting_changed(no);
    }

    fn enter_room(&mut self, no: WorkerNo, room: Room) {
        self.worker_mut(no).stands = Some(room);
        for at in 0..self.worker(no).services.len() {
            let service = self.worker(no).services[at];
            let list = &mut self.services[service.0 as usize].room[room as usize];
            list.push(no);
            let place = list.len() as u32 - 1;
            self.worker_mut(no).places.push(place);
        }
    }

    fn leave_room(&mut self, no: WorkerNo) {
        let Some(room) = self.worker_mut(no).stands.take() else { return };
        for at in 0..self.worker(no).services.len() {
            let (service, place) = (self.worker(no).services[at], self.worker(no).places[at]);
            let list = &mut self.services[service.0 as usize].room[room as usize];
            list.swap_remove(place as usize);
            let Some(moved) = list.get(place as usize).copied() else { continue };
            let moved = self.worker_mut(moved);
            if let Some(its) = moved.services.iter().position(|one| *one == service) {
                moved.places[its] = place;
            }
        }
        self.worker_mut(no).places.clear();
    }

    /// Keeps the queues of workers that something waits behind.
    fn waiting_changed(&mut self, no: WorkerNo) {
        let worker = self.worker(no);
        let waits = worker.waiting() > 0 && worker.link.up && !worker.link.lost && worker.recall == Recall::Idle;
        if waits != worker.is_behind {
            self.set_behind(no, waits);
        }
    }

    fn set_behind(&mut self, no: WorkerNo, waits: bool) {
        self.worker_mut(no).is_behind = waits;
        for at in 0..self.worker(no).services.len() {
            let service = self.worker(no).services[at];
            let behind = &mut self.services[service.0 as usize].behind;
            if waits {
                behind.insert(no);
            } else {
                behind.remove(&no);
            }
        }
    }
}

/// What a peer is and what it has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) up: bool,
    /// Its name, where receipts of it are on record.
    pub(super) session: Option<sheaf_session::SessionId>,
    /// The highest gate of anything sent to it: later messages wait as long, so that they do not overtake.
    pub(super) gate: Lsn,
    pub(super) tag: u64,
    pub(super) unacked: VecDeque<(super::event::Tag, Sent)>,
    pub(super) worker: Option<WorkerNo>,
    pub(super) jobs: Vec<super::record::JobNo>,
    /// Messages that are being looked up again: later ones come before them.
    pub(super) relooked: BTreeSet<Place>,
}

/// What a bulk message carried.
#[derive(Debug)]
pub(super) enum Sent {
    /// Results of a job up to this number.
    Deliver(super::record::JobNo, u64),
    /// These attempts.
    Assign(Vec<(super::slab::Ix, u32)>),
}
