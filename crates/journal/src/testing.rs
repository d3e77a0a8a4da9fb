//! A disk in memory that fails as disks do. For this crate's tests and for the simulator.
//!
//! ```text
//!   write ──▶ cache (what reads see) ──sync──▶ platter (what a power cut leaves)
//!                └── power cut: any subset of the unsynced sectors, the last of them torn, reaches the platter
//!   a failed sync calls the pages clean without writing them: reads still see them, no later sync will write them
//! ```
//!
//! Names: those of new files are durable with their first sync (before it a power cut may lose or keep the file); renames
//! and removals are durable at once, as the contract of [`Disk`] says.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::disk::{Disk, DiskError, DiskErrorKind, FileInfo};

/// The unit in which unsynced bytes survive a power cut, but for torn ones.
pub const SECTOR: u64 = 512;

/// A directory in memory.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    files: BTreeMap<String, File>,
    /// What goes wrong from now on.
    pub faults: DiskFaults,
    /// Calls so far, failed ones too: one number for each kind.
    calls: [Cell<u64>; 7],
}

/// Faults to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Files together may not grow beyond so many bytes: then writes that lengthen one find the disk full.
    pub capacity: Option<u64>,
    /// One call that fails.
    pub fail_call: Option<FailCall>,
    /// The first so many changing calls (write, reserve, sync, rename, remove) work; all later ones fail, as if the process had died
    /// there. The first call that fails may be half done if it is a write.
    pub calls_left: Option<u64>,
}

/// A call that fails, alone. A write is then half done, a sync has lost the pages, any other call has done nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailCall {
    /// Calls of which kind.
    pub call: DiskCall,
    /// Which of them: the first ever is 1.
    pub number: u64,
    /// How it fails.
    pub kind: DiskErrorKind,
}

/// What a disk can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCall {
    /// [`Disk::list`]
    List,
    /// [`Disk::read`]
    Read,
    /// [`Disk::write`]
    Write,
    /// [`Disk::reserve`]
    Reserve,
    /// [`Disk::sync`]
    Sync,
    /// [`Disk::rename`]
    Rename,
    /// [`Disk::remove`]
    Remove,
}

#[derive(Clone, Debug, Default)]
struct File {
    cache: Vec<u8>,
    platter: Vec<u8>,
    /// Ranges of the cache that the platter lacks and a sync will write.
    dirty: Vec<(u64, u64)>,
    /// The name survives a power cut.
    is_named: bool,
}

impl MemDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: of what was not synced any subset survives, sector by sector, chosen by `below(n)`, which returns
    /// a number less than n. Faults are cleared: the next process finds a working disk.
    pub fn crash(&mut self, below: &mut dyn FnMut(u64) -> u64) {
        self.faults = DiskFaults::default();
        self.files.retain(|_, file| file.is_named || below(2) == 0);
        for file in self.files.values_mut() {
            let mood = below(4);
            for (from, to) in std::mem::take(&mut file.dirty) {
                file.survive(from, to, mood, below);
            }
            file.cache.clone_from(&file.platter);
            file.is_named = true;
        }
    }

    /// Ends the process, but not the machine: the cache stays as it is. Faults are cleared.
    pub fn kill(&mut self) {
        self.faults = DiskFaults::default();
    }

    /// Flips one bit of a file, on the platter and in the cache, where they have it.
    pub fn flip(&mut self, name: &str, bit: u64) {
        let Some(file) = self.files.get_mut(name) else { return };
        for bytes in [&mut file.cache, &mut file.platter] {
            if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Cuts a file, if it is there, to `len` bytes, on the platter and in the cache.
    pub fn truncate(&mut self, name: &str, len: usize) {
        let Some(file) = self.files.get_mut(name) else { return };
        file.cache.truncate(len);
        file.platter.truncate(len);
    }

    /// The bytes of a file as reads see them.
    pub fn content(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|file| file.cache.as_slice())
    }

    /// How many calls of a kind there were, failed ones too.
    pub fn calls(&self, call: DiskCall) -> u64 {
        self.calls[call as usize].get()
    }

    /// Lets the next call of a kind fail, once. Later faults take its place.
    pub fn fail_next(&mut self, call: DiskCall, kind: DiskErrorKind) {
        self.faults.fail_call = Some(FailCall { call, number: self.calls(call) + 1, kind });
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.files.values().map(|file| file.cache.len() as u64).sum()
    }

    /// Counts a changing call; true if it is to fail.
    fn is_dead(&mut self) -> bool {
        match &mut self.faults.calls_left {
            None => false,
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Counts a call; the error that it ends with if it is the one that fails.
    fn failure(&self, call: DiskCall, name: &str) -> Option<DiskError> {
        let count = &self.calls[call as usize];
        count.set(count.get() + 1);
        let fail = self.faults.fail_call.filter(|fail| (fail.call, fail.number) == (call, count.get()))?;
        Some(DiskError::new(fail.kind, name))
    }

    /// As [`MemDisk::failure`], of a changing call that is either done or not.
    fn fail_whole(&mut self, call: DiskCall, name: &str) -> Result<(), DiskError> {
        let error = self.failure(call, name);
        if self.is_dead() {
            return Err(DiskError::new(DiskErrorKind::Io, name));
        }
        error.map_or(Ok(()), Err)
    }

    fn file(&mut self, name: &str) -> Result<&mut File, DiskError> {
        self.files.get_mut(name).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, name))
    }
}

impl File {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if self.cache.len() < to {
            self.cache.resize(to, 0);
        }
        self.cache[from..to].copy_from_slice(bytes);
        self.dirty.push((offset, to as u64));
    }

    fn store(&mut self, from: u64, to: u64) {
        let (from, to) = (from as usize, to as usize);
        if self.platter.len() < to {
            self.platter.resize(to, 0);
        }
        self.platter[from..to].copy_from_slice(&self.cache[from..to]);
    }

    /// Lets some sectors of an unsynced range reach the platter. Mood 0: nothing of the file, 1: all of it; else at random.
    fn survive(&mut self, from: u64, to: u64, mood: u64, below: &mut dyn FnMut(u64) -> u64) {
        let mut at = from;
        while at < to {
            let end = (at / SECTOR * SECTOR + SECTOR).min(to);
            match (mood, below(8)) {
                (0, _) => {}
                (1, _) | (_, 0..=3) => self.store(at, end),
                (_, 4) => self.store(at, at + below(end - at)),
                (_, _) => {}
            }
            at = end;
        }
    }
}

impl Disk for MemDisk {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        if let Some(error) = self.failure(DiskCall::List, "") {
            return Err(error);
        }
        let info = |(name, file): (&String, &File)| FileInfo { name: name.clone(), len: file.cache.len() as u64 };
        Ok(self.files.iter().map(info).collect())
    }

    fn read(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        if let Some(error) = self.failure(DiskCall::Read, name) {
            return Err(error);
        }
        let file = self.files.get(name).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, name))?;
        let rest = file.cache.get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let chosen = self.failure(DiskCall::Write, name);
        let failure = if self.is_dead() { Some(DiskError::new(DiskErrorKind::Io, name)) } else { chosen };
        let used = if self.faults.capacity.is_some() { self.used() } else { 0 };
        let file = self.files.entry(name.to_owned()).or_default();
        let grows = (offset + bytes.len() as u64).saturating_sub(file.cache.len() as u64);
        let room = self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        if let Some(error) = failure {
            file.write(offset, &bytes[..bytes.len() / 2]);
            return Err(error);
        }
        if grows > room {
            let fits = bytes.len() as u64 - (grows - room);
            file.write(offset, &bytes[..fits as usize]);
            return Err(DiskError::new(DiskErrorKind::Full, name));
        }
        file.write(offset, bytes);
        Ok(())
    }

    fn reserve(&mut self, name: &str, len: u64) -> Result<(), DiskError> {
        self.fail_whole(DiskCall::Reserve, name)?;
        let used = if self.faults.capacity.is_some() { self.used() } else { 0 };
        let file = self.files.entry(name.to_owned()).or_default();
        let (had, room) =
            (file.cache.len() as u64, self.faults.capacity.map_or(u64::MAX, |all| all.saturating_sub(used)));
        let grows = len.saturating_sub(had);
        if grows > room {
            return Err(DiskError::new(DiskErrorKind::Full, name));
        }
        if grows > 0 {
            file.cache.resize(len as usize, 0);
            file.dirty.push((had, len));
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let failure = self.failure(DiskCall::Sync, name);
        let is_dead = self.is_dead();
        let file = self.file(name)?;
        if is_dead {
            return Err(DiskError::new(DiskErrorKind::Io, name));
        }
        let dirty = std::mem::take(&mut file.dirty);
        if let Some(error) = failure {
            return Err(error);
        }
        for (from, to) in dirty {
            file.store(from, to);
        }
        file.is_named = true;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.fail_whole(DiskCall::Rename, from)?;
        let mut file = self.files.remove(from).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, from))?;
        file.is_named = true;
        self.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.fail_whole(DiskCall::Remove, name)?;
        self.files.remove(name).map(drop).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, name))
    }
}
