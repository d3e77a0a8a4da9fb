//! The keeper process itself: three threads around one table of living programs.
//!
//! *Requests* come in on the main thread, which spawns and kills; the *reaper* waits for children and reports how they
//! ended; the *sweeper* kills what programs left behind. Children are reaped, and signalled, under the table's lock
//! only, so no signal can reach a process that merely inherited a number. They are started outside of it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSliceMut, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitIdOptions, WaitOptions, WaitStatus};

use super::wire::{self, End, HEADER, Header, PIPES_MAX};
use super::{COOKIE, limit};

/// Between two looks at what ended programs left behind, and how long the last sweep goes on.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
const SWEEP_LAST: Duration = Duration::from_secs(1);

/// Looks for what a dead keeper left running, and the pause between two: a second in all. More: it is reported.
const ORPHAN_LOOKS_MAX: u32 = 200;
const ORPHAN_LOOK: Duration = Duration::from_millis(5);

/// The keeper's whole life. Its standard input is the socket that the worker asks through, its standard output what it
/// answers through; call this before anything else in `main`.
/// Or the short life of a stage between the keeper and a program with a memory limit: see `limit`.
pub fn main() -> ExitCode {
    if let Some(words) = limit::words_of_a_stage() {
        return limit::become_program(words);
    }
    match keep() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sheaf: the keeper of programs stops: {error}");
            ExitCode::FAILURE
        }
    }
}

fn keep() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let replies = PipeWriter::from(io::stdout().as_fd().try_clone_to_owned()?);
    // What a program without a row to read has for its input. Nothing of ours stays where a program looks.
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(fs::File::options().write(true).open("/dev/null")?)?;
    restrict()?;
    // The threads live as long as the process: the table is theirs for good.
    let keeper: &'static Keeper = Box::leak(Box::new(Keeper::new(replies)));
    thread::Builder::new().name("reaper".into()).spawn(|| keeper.reap_forever())?;
    thread::Builder::new().name("sweeper".into()).spawn(|| keeper.sweep_forever())?;
    let heard = keeper.serve(&socket);
    keeper.end_everything();
    match heard {
        // The worker is gone: its socket ends.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        heard => heard,
    }
}

/// What every program inherits.
fn restrict() -> io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    {
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    Ok(())
}

struct Keeper {
    replies: PipeWriter,
    /// Held while a program is started; always taken before the table.
    births: Mutex<()>,
    table: Mutex<Table>,
    /// Signalled when a program starts: the reaper has something to wait for.
    started: Condvar,
    /// Signalled when a program ends: the sweeper has something to look for.
    ended: Condvar,
}

#[derive(Default)]
struct Table {
    ids: HashMap<Pid, u64>,
    pids: HashMap<u64, Pid>,
    /// Children may be there that nobody waited for.
    children: bool,
    /// Nothing ended, and nothing was left behind, since the last sweep.
    swept: bool,
    /// While a program is started: unknown children that were reaped meanwhile. It may be one of them already.
    early: Option<Vec<(Pid, WaitStatus)>>,
}

impl Keeper {
    fn new(replies: PipeWriter) -> Self {
        let table = Table { swept: true, ..Table::default() };
        Self {
            replies,
            births: Mutex::new(()),
            table: Mutex::new(table),
            started: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests until the worker is gone.
    fn serve(&self, socket: &UnixStream) -> io::Result<()> {
        loop {
            let (header, pipes) = read_header(socket)?;
            match header {
                Header::Kill { id } => self.kill(id),
                Header::Spawn { id, stdin, len } => {
                    let mut payload = vec![0; len];
                    (&*socket).read_exact(&mut payload)?;
                    let (memory, argv) = wire::decode_spawn(&payload)?;
                    let spawned = limit::staged(memory, argv)
                        .and_then(|argv| command(id, &argv, stdin, pipes))
                        .and_then(|command| self.spawn(id, command));
                    if let Err(error) = spawned {
                        self.reply(id, End::Failed(error.raw_os_error().unwrap_or(0)));
                    }
                }
            }
        }
    }

    /// The table is free meanwhile: a program takes longer to start than another to be reaped.
    fn spawn(&self, id: u64, mut command: Command) -> io::Result<()> {
        let _birth = self.births.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock().early = Some(Vec::new());
        let spawned = command.spawn();
        let mut table = self.lock();
        let early = table.early.take().unwrap_or_default();
        // The `Child` is let go: the reaper waits for every child there is.
        let pid = Pid::from_child(&spawned?);
        if let Some((_, status)) = early.into_iter().find(|(ended, _)| *ended == pid) {
            drop(table);
            self.reply(id, end_of(status));
            return Ok(());
        }
        table.ids.insert(pid, id);
        table.pids.insert(id, pid);
        if !std::mem::replace(&mut table.children, true) {
            self.started.notify_one();
        }
        Ok(())
    }

    fn kill(&self, id: u64) {
        let table = self.lock();
        if let Some(pid) = table.pids.get(&id) {
            kill_group(*pid);
        }
    }

    fn reply(&self, id: u64, end: End) {
        match (&self.replies).write_all(&wire::encode_reply(id, end)) {
            Ok(()) => {}
            // The worker is gone. The main thread sees that too, by the end of the requests, and ends everything.
            Err(_gone) => {}
        }
    }

    fn reap_forever(&self) {
        loop {
            let mut table = self.lock();
            while !table.children {
                table = self.started.wait(table).unwrap_or_else(PoisonError::into_inner);
            }
            drop(table);
            // Waits without reaping; an error means that there are no children any more, or a stray signal.
            let waited =
                rustix::process::waitid(rustix::process::WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            if !matches!(waited, Err(rustix::io::Errno::INTR)) {
                self.reap();
            }
        }
    }

    /// Reaps one child that has ended, if there is one.
    fn reap(&self) {
        let mut table = self.lock();
        let report = match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => table.on_end(pid, status),
            Ok(None) => None,
            Err(_) => {
                table.children = false;
                None
            }
        };
        if std::mem::replace(&mut table.swept, false) {
            self.ended.notify_one();
        }
        drop(table);
        if let Some((id, end)) = report {
            self.reply(id, end);
        }
    }

    fn sweep_forever(&self) {
        loop {
            let mut table = self.lock();
            while table.swept {
                table = self.ended.wait(table).unwrap_or_else(PoisonError::into_inner);
            }
            table.swept = true;
            drop(table);
            thread::sleep(SWEEP_EVERY);
            self.sweep();
        }
    }

    /// Kills adopted processes of attempts that are over.
    fn sweep(&self) {
        // A child that is being started is not in the table yet.
        let _no_birth = self.births.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.lock();
        for pid in children() {
            if !table.is_wanted(pid) {
                // It was seen as our child under the lock that reaping needs: the number is still its own.
                let killed = rustix::process::kill_process(pid, Signal::KILL);
                debug_assert!(killed.is_ok() || killed == Err(rustix::io::Errno::SRCH));
                table.swept = false;
            }
        }
    }

    /// The worker is gone: nothing may outlive it.
    fn end_everything(&self) {
        let until = Instant::now() + SWEEP_LAST;
        let mut table = self.lock();
        for pid in std::mem::take(&mut table.pids).into_values() {
            kill_group(pid);
        }
        table.ids.clear();
        drop(table);
        while Instant::now() < until {
            self.sweep();
            if !self.lock().children {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Table {
    /// A child was reaped. What is left of its group goes with it: the group's number stays taken while it has members.
    /// (Of one that ended before its start was over, the sweeper gets what is left: its number may be another's by then.)
    fn on_end(&mut self, pid: Pid, status: WaitStatus) -> Option<(u64, End)> {
        let Some(id) = self.ids.remove(&pid) else {
            self.early.iter_mut().for_each(|early| early.push((pid, status)));
            return None;
        };
        self.pids.remove(&id);
        kill_group(pid);
        Some((id, end_of(status)))
    }

    /// True for a program, and for what belongs to one that runs.
    fn is_wanted(&self, pid: Pid) -> bool {
        if self.ids.contains_key(&pid) {
            return true;
        }
        if rustix::process::getpgid(Some(pid)).is_ok_and(|group| self.ids.contains_key(&group)) {
            return true;
        }
        cookie_of(pid, std::process::id()).is_some_and(|id| self.pids.contains_key(&id))
    }
}

fn end_of(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signaled(signal),
        (None, None) => End::Failed(0),
    }
}

fn kill_group(leader: Pid) {
    let killed = rustix::process::kill_process_group(leader, Signal::KILL);
    debug_assert!(killed != Err(rustix::io::Errno::INVAL));
}

fn command(id: u64, argv: &[OsString], stdin: bool, pipes: Vec<OwnedFd>) -> io::Result<Command> {
    let mut pipes = pipes.into_iter();
    let mut pipe = || pipes.next().ok_or(io::ErrorKind::InvalidData).map(Stdio::from);
    let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidData)?;
    let mut command = Command::new(program);
    command.args(args).env(COOKIE, format!("{}.{id}", std::process::id())).process_group(0);
    command.stdin(if stdin { pipe()? } else { Stdio::inherit() }).stdout(pipe()?).stderr(pipe()?);
    Ok(command)
}

/// Our children now, the adopted ones among them. Without `/proc` (not Linux) nothing is adopted either.
fn children() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = threads.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// What a keeper that died left running, known by its cookie. Called by the worker, which survives it. What is forked
/// during one look is found by the next: the last look finds nothing.
pub(super) fn end_orphans_of(keeper: u32) {
    for _ in 0..ORPHAN_LOOKS_MAX {
        if !end_orphans_seen(keeper) {
            return;
        }
        thread::sleep(ORPHAN_LOOK);
    }
    tracing::error!(keeper, "what a dead keeper left behind forks faster than it can be ended");
}

/// Says whether there was any.
fn end_orphans_seen(keeper: u32) -> bool {
    let orphans: Vec<Pid> = processes().filter(|pid| cookie_of(*pid, keeper).is_some()).collect();
    orphans.iter().for_each(|pid| end_orphan(*pid));
    !orphans.is_empty()
}

/// Ends what was left running by a keeper that died together with its worker: nobody was there to do it. Called when a
/// worker starts. Pids mean something within one namespace only: what runs in another is not touched.
pub(super) fn end_orphans_of_the_dead() {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let Ok(ours) = namespace("self") else { return };
    let is_near = |pid: &Pid| namespace(&pid.as_raw_pid().to_string()).is_ok_and(|theirs| theirs == ours);
    let is_orphan = |pid: &Pid| {
        cookie(*pid).is_some_and(|(keeper, _)| !fs::exists(format!("/proc/{keeper}")).unwrap_or(true)) && is_near(pid)
    };
    processes().filter(is_orphan).for_each(end_orphan);
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn end_orphan(pid: Pid) {
    match rustix::process::kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => tracing::error!(%error, pid = pid.as_raw_pid(), "cannot end what a dead keeper left behind"),
    }
}

/// The attempt of that keeper which a process was started for, by its environment.
fn cookie_of(pid: Pid, keeper: u32) -> Option<u64> {
    cookie(pid).filter(|(of, _)| *of == keeper).map(|(_, id)| id)
}

/// The keeper that a process was started by, and the attempt that it was started for.
fn cookie(pid: Pid) -> Option<(u32, u64)> {
    let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    let prefix = format!("{COOKIE}=");
    let value = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()))?;
    let (keeper, id) = std::str::from_utf8(value).ok()?.split_once('.')?;
    Some((keeper.parse().ok()?, id.parse().ok()?))
}

/// One header, with the pipes that came on it. Headers are written whole, so their pipes are on their first byte.
fn read_header(socket: &UnixStream) -> io::Result<(Header, Vec<OwnedFd>)> {
    let mut header = [0; HEADER];
    let mut pipes = Vec::with_capacity(PIPES_MAX);
    let mut have = 0;
    while have < HEADER {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = match recvmsg(socket, &mut [IoSliceMut::new(&mut header[have..])], &mut control, RECEIVE) {
            Ok(got) => got.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += got;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                pipes.extend(fds);
            }
        }
    }
    Ok((Header::decode(&header)?, pipes))
}

#[cfg(target_os = "linux")]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
/// Elsewhere the flag does not exist: a pipe can reach a program that is started at that moment, which only delays its end.
#[cfg(not(target_os = "linux"))]
const RECEIVE: RecvFlags = RecvFlags::empty();
