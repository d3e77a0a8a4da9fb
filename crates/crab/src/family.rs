//! The processes below this one, and their end.
//!
//! A program that forks and stays leaves orphans. Those in its process group die with the group. Those that went into a
//! session of their own are found here: crab *adopts* orphans (it is a subreaper), so they become its children, and it kills
//! and reaps them. A kernel without `/proc/…/children` hides them; then they stay, as they would with any other server.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, waitpid,
};

/// How long killed processes may take to vanish before one stops looking.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a sweep may take: what it leaves, the next one takes.
const SWEEP: Duration = Duration::from_millis(100);
const GLANCE: Duration = Duration::from_millis(1);

/// From now on the orphans among our descendants are our children.
pub(crate) fn adopt_orphans() {
    // A kernel that refuses leaves them to init, as ever.
    let _ = set_child_subreaper(Some(getpid()));
}

/// Reaps orphans that have ended, and with `kill` ends the others first. A running program is the child of the thread that
/// runs it; an orphan is given to the main thread, which never starts one: so its children are the orphans.
pub(crate) fn sweep(kill: bool) {
    let main_thread = getpid().to_string();
    let deadline = Instant::now() + SWEEP;
    loop {
        let orphans = children_of(&main_thread);
        for pid in &orphans {
            if kill {
                end(*pid);
            }
            reap(*pid);
        }
        if !kill || orphans.is_empty() || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(GLANCE);
    }
}

/// Kills everything below this process, and returns when it is gone.
pub(crate) fn end_all() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let children = children();
        if children.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in children {
            end(pid);
            reap(pid);
        }
        std::thread::sleep(GLANCE);
    }
}

/// Kills the process, and the group that it leads if it leads one.
fn end(pid: Pid) {
    // Either may be gone already, which is what is wanted.
    let _ = (kill_process_group(pid, Signal::KILL), kill_process(pid, Signal::KILL));
}

fn reap(pid: Pid) {
    // One that has not ended yet is reaped by the next sweep, one that is no child any more was reaped by its thread.
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
}

/// The children of all our threads.
fn children() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let names = threads.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.flat_map(|thread| children_of(&thread)).collect()
}

fn children_of(thread: &str) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap_or_default();
    text.split(' ').filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
}
