//! How a program misbehaves on a row that says so: `poison:WORD …`.
//!
//! What is meant to escape writes its pid to the file `escaped` beside the ledger, so that its end can be seen.

use std::io::Write;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal};

/// Where the pids of those that escaped are written, in the ledger's directory.
pub(crate) const ESCAPED: &str = "escaped";

/// What `garbage` answers instead of its digest: no UTF-8.
pub(crate) const GARBAGE: [u8; 3] = [0xff, 0xfe, 0x00];

/// The word of a poisonous row.
pub(super) fn word(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.strip_prefix("poison:")?;
    text.split_whitespace().next()
}

/// Does it. Returns true where an answer in good form is to follow.
pub(super) fn misbehave(word: &str, ledger: &Path) -> anyhow::Result<bool> {
    let dir = ledger.parent().context("a ledger lies in a directory")?;
    match word {
        "abort" => std::process::abort(),
        "hang" => forever(),
        "endless" => write_forever(std::io::stdout()),
        "errors" => write_forever(std::io::stderr()),
        "garbage" => {
            std::io::stdout().write_all(&GARBAGE)?;
            Ok(false)
        }
        "escape" => escape(dir, &["setsid"]).map(|()| true),
        "hidden" => escape(dir, &["env", "-i", "setsid"]).map(|()| true),
        "escape-hang" => escape(dir, &["setsid"]).and_then(|()| forever()),
        "kill-parent" => kill(i32::try_from(parent_id())?).and_then(|()| forever()),
        "kill-worker" => kill(parent_of(parent_id())?).and_then(|()| forever()),
        _ => anyhow::bail!("there is no poison `{word}`"),
    }
}

fn forever() -> anyhow::Result<bool> {
    loop {
        std::thread::sleep(Duration::from_secs(3_600));
    }
}

fn write_forever(mut to: impl Write) -> anyhow::Result<bool> {
    let block = [b'x'; 64 << 10];
    // Whoever ended the pipe wants no more: a program that does not hear of it lives on.
    while to.write_all(&block).is_ok() {}
    forever()
}

/// A grandchild in a session of its own, whose parent is gone: the classic way out.
fn escape(dir: &Path, by: &[&str]) -> anyhow::Result<()> {
    let pids = dir.join(ESCAPED);
    let flee = format!("({} sh -c 'echo $$ >> {}; exec sleep 3600' &)", by.join(" "), pids.display());
    let mut command = Command::new("sh");
    command.args(["-c", &flee]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ensure!(command.status()?.success(), "nothing escaped");
    Ok(())
}

fn kill(pid: i32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(pid).context("no pid")?;
    rustix::process::kill_process(pid, Signal::KILL).context("kill -9")
}

fn parent_of(pid: u32) -> anyhow::Result<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // pid (name) state ppid …, and a name may hold anything.
    let after = stat.rsplit_once(')').context("stat")?.1;
    Ok(after.split_whitespace().nth(1).context("stat")?.parse()?)
}
