//! What happens inside the namespace. Each peer dials an address of its own (127.0.0.8 and on, handed to the router's by
//! nft), so that packets between one peer and the router are told apart, and by conntrack the two directions, too.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::check::Allowed;
use crate::cluster::{Cluster, PATIENCE, Role, Setup, door};
use crate::family::Round;
use crate::job::Job;
use crate::process::wait_until;
use crate::report::Tally;
use crate::rows::Rows;
use crate::seed::Rng;
use crate::sink::Kind;

/// Cuts of a round.
const CUTS: u64 = 4;

/// After a cut of less than this, work goes on within two seconds (on a machine that does other things, four): whoever
/// connects does so anew after three of silence.
const SHORT: Duration = Duration::from_secs(10);
const RESUME_SHORT: Duration = Duration::from_secs(2);

/// What is allowed beyond that on a machine that does other things too. What it took is printed.
const BUSY: u32 = 2;

/// After a half-open connection: three seconds of silence until it is found, and as after a cut.
const RESUME_HALF_OPEN: Duration = Duration::from_secs(10);

const BATCH: u32 = 4;

/// How packets are lost.
#[derive(Clone, Copy, Debug)]
enum Way {
    Both,
    ToRouter,
    FromRouter,
    /// In so many of a hundred cases.
    Lossy(u64),
    /// Connections that exist are dead for good, without a word; new ones are not.
    HalfOpen,
}

/// `torture inside SHEAF DIR SEED`: one round of cuts. Prints its sums.
pub(crate) fn inside(words: &[String]) -> anyhow::Result<()> {
    let [sheaf, dir, seed] = words else { bail!("torture inside SHEAF DIR SEED") };
    let dir = PathBuf::from(dir);
    std::fs::create_dir_all(&dir)?;
    let mut round = Round {
        rng: Rng::new(seed.parse()?),
        dir,
        sheaf: PathBuf::from(sheaf),
        torture: std::env::current_exe()?,
        until: Instant::now() + PATIENCE,
        faults_left: u64::MAX,
        tally: Tally::default(),
    };
    cuts(&mut round)?;
    let Tally { faults, rows, again, failed, .. } = round.tally;
    println!("sums {faults} {rows} {again} {failed}");
    Ok(())
}

fn cuts(round: &mut Round) -> anyhow::Result<()> {
    nft("add table ip doors")?;
    nft("add chain ip doors out { type nat hook output priority -100; }")?;
    nft("add rule ip doors out ip daddr 127.0.0.8/29 dnat to 127.0.0.1")?;
    nft("add table ip cut")?;
    nft("add chain ip cut in { type filter hook input priority 0; }")?;
    // With the long grace no cut excuses anything; with the short one, the long cuts do.
    let grace = Duration::from_secs(if round.rng.chance(60) { 60 } else { 3 });
    let setup = Setup { grace, batch: BATCH, pause_ms: 40, doors: true, ..round.setup() };
    let mut cluster = Cluster::new(setup, &mut round.rng)?;
    cluster.start_all()?;
    let rows = Rows::make(&mut round.rng, "cut", 2_000, 40);
    let mut job = Job::begin(&mut cluster, "cut", rows, Kind::Jsonl)?;
    cluster.start(Role::Client)?;
    ensure!(job.wait_executed(&cluster, 20, PATIENCE)?, "nothing was executed at first");
    let mut excused = 0;
    for number in 0..CUTS {
        if !cluster.is_up(Role::Client)? {
            break;
        }
        excused += cut(number, &mut round.rng, &mut cluster, &mut job, grace)?;
        round.tally.faults += 1;
    }
    job.finish(&mut cluster, Role::Client, PATIENCE)?;
    job.judge(&cluster, Allowed { again: excused, deaths: 0 }, &mut round.tally)
}

/// Cuts somebody off for a while: each round has one cut of each kind, and one of any. Returns the executions that this
/// excuses.
fn cut(number: u64, rng: &mut Rng, cluster: &mut Cluster, job: &mut Job, grace: Duration) -> anyhow::Result<u64> {
    let all = [Role::Client, Role::Worker(0), Role::Worker(1)];
    let parts: [&[Role]; 5] = [&all[..1], &all[1..2], &all, &all, &all];
    let who = *rng.pick(&parts);
    let ways: &[Way] = match number {
        0 => &[Way::Both],
        1 => &[Way::HalfOpen],
        2 => &[Way::ToRouter, Way::FromRouter],
        _ => &[Way::Both, Way::ToRouter, Way::FromRouter, Way::Lossy(10), Way::Lossy(30), Way::HalfOpen],
    };
    let way = *rng.pick(ways);
    let long = rng.chance(50);
    let time = Duration::from_millis(if long { rng.between(4_000, 9_000) } else { rng.between(300, 1_500) });
    let before = job.executed(cluster)?;
    close(way, who, cluster)?;
    if !matches!(way, Way::HalfOpen) {
        std::thread::sleep(time);
        nft("flush chain ip cut in")?;
    }
    let resumed = resumed(way, time, who.len() == all.len(), cluster, job)?;
    println!("  cut {way:?} of {who:?} for {} ms, after row {before}: {resumed}", time.as_millis());
    // Lossy and half-open ones may be silent for longer than a short grace, too.
    let excuses = grace < SHORT && (long || matches!(way, Way::Lossy(_) | Way::HalfOpen));
    let workers = who.iter().filter(|role| matches!(role, Role::Worker(_))).count() as u64;
    Ok(if excuses { workers * u64::from(2 * BATCH) } else { 0 })
}

/// Waits until work goes on, where everybody was cut off from it, and judges how long that took.
fn resumed(way: Way, cut: Duration, all: bool, cluster: &mut Cluster, job: &mut Job) -> anyhow::Result<String> {
    job.look(cluster)?;
    if !all || matches!(way, Way::Lossy(_)) {
        return Ok("others went on".to_owned());
    }
    // What the workers hold is done by themselves: later executions were handed out after the cut.
    let held = job.executed(cluster)? + u64::from(4 * BATCH) + 1;
    let healed = Instant::now();
    let limit = match way {
        Way::HalfOpen => RESUME_HALF_OPEN,
        Way::Both | Way::ToRouter | Way::FromRouter | Way::Lossy(_) => RESUME_SHORT * BUSY,
    };
    let mut over = false;
    let goes_on = wait_until(limit, || {
        over = !cluster.is_up(Role::Client)?;
        Ok(over || job.executed(cluster)? >= held)
    })?;
    ensure!(goes_on, "after a cut {way:?} of {} ms nothing went on for {} s", cut.as_millis(), limit.as_secs());
    Ok(if over {
        "the job is done".to_owned()
    } else {
        format!("work goes on after {} ms", healed.elapsed().as_millis())
    })
}

fn close(way: Way, who: &[Role], cluster: &Cluster) -> anyhow::Result<()> {
    if let Way::HalfOpen = way {
        return kill_connections(who, cluster);
    }
    let doors: Vec<&str> = who.iter().map(|role| door(*role)).collect();
    let direction = match way {
        Way::ToRouter => "ct direction original ",
        Way::FromRouter => "ct direction reply ",
        Way::Both | Way::Lossy(_) | Way::HalfOpen => "",
    };
    let chance = match way {
        Way::Lossy(percent) => format!("numgen random mod 100 < {percent} "),
        Way::Both | Way::ToRouter | Way::FromRouter | Way::HalfOpen => String::new(),
    };
    nft(&format!("add rule ip cut in ct original ip daddr {{ {} }} {direction}{chance}drop", doors.join(", ")))
}

/// The own ports of a peer's connections to the router.
fn connections(role: Role, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let port: u16 = cluster.addr().rsplit_once(':').context("an address has a port")?.1.parse()?;
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let mut ports = Vec::new();
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, "01", ..] = words[..] else { continue };
        if remote == format!("{}:{port:04X}", hex(door(role))) {
            let (_, local) = local.split_once(':').context("/proc/net/tcp")?;
            ports.push(u16::from_str_radix(local, 16)?.to_string());
        }
    }
    Ok(ports)
}

/// Nothing passes any more on the connections that these peers have now. Both ends believe in them.
fn kill_connections(who: &[Role], cluster: &Cluster) -> anyhow::Result<()> {
    let mut ports = Vec::new();
    // After the cut before, they may be about to connect.
    for role in who {
        let found = wait_until(SHORT, || Ok(!connections(*role, cluster)?.is_empty()))?;
        ensure!(found, "no connection of {role:?} was found");
        ports.extend(connections(*role, cluster)?);
    }
    let ports = ports.join(", ");
    nft(&format!("add rule ip cut in tcp sport {{ {ports} }} drop"))?;
    nft(&format!("add rule ip cut in tcp dport {{ {ports} }} drop"))
}

/// As the kernel shows an address: little-endian.
fn hex(address: &str) -> String {
    address.split('.').rev().filter_map(|part| part.parse::<u8>().ok()).map(|part| format!("{part:02X}")).collect()
}

fn nft(words: &str) -> anyhow::Result<()> {
    let output = Command::new("nft").arg(words).output().context("nft does not start")?;
    ensure!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
