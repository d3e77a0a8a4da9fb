//! A small ext4 of its own, on a file that is mounted through a loop device: ground that can lose its power, or be filled.
//!
//! It needs root, and removes what earlier runs left mounted when they were killed. It knows nothing of Sheaf.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::process::wait_until;

/// A mounted file system.
pub(crate) struct LoopFs {
    device: String,
    mount: PathBuf,
    is_mounted: bool,
}

/// How long a file system may stay busy after its last process was killed.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// EXT4_IOC_SHUTDOWN, with EXT4_GOING_FLAGS_NOLOGFLUSH: from now on nothing reaches the device, not even the journal's log.
const CUT: &str =
    "import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// The ballast's name.
const BALLAST: &str = "ballast";

/// Why this machine can have none; nothing if it can.
pub(crate) fn lacks() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a loop-mounted file system needs root".to_owned());
    }
    let missing = |tool: &&&str| !has_tool(tool);
    let missing: Vec<&str> =
        ["mkfs.ext4", "losetup", "mount", "umount", "python3"].iter().filter(missing).copied().collect();
    if !missing.is_empty() {
        return Some(format!("not installed: {}", missing.join(", ")));
    }
    let free = Command::new("losetup").arg("--find").output();
    let has_device = free.is_ok_and(|output| output.status.success());
    (!has_device).then(|| "there is no free loop device".to_owned())
}

/// Whether a program is found on the path.
pub(crate) fn has_tool(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).exists())
}

impl LoopFs {
    /// Makes and mounts one of `mib` MiB at `dir/NAME`.
    pub(crate) fn make(dir: &Path, name: &str, mib: u64) -> anyhow::Result<Self> {
        clean_leftovers(dir.parent().context("a round's directory has a parent")?)?;
        let (image, mount) = (dir.join(format!("{name}.img")), dir.join(name));
        File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir_all(&mount)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let mut made = Self { device: device.trim().to_owned(), mount, is_mounted: false };
        made.mount()?;
        Ok(made)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Cuts the power: every later access fails, and only what was synced is there after [`LoopFs::power_on`].
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        run(Command::new("python3").args(["-S", "-c", CUT]).arg(&self.mount)).map(drop)
    }

    /// Mounts it again, which replays ext4's own journal. Nobody may have a file of it open.
    pub(crate) fn power_on(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Takes it away, its image too.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        let image = self.mount.with_extension("img");
        drop(self);
        fs::remove_file(image).context("image")
    }

    /// Fills it to the last block.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        self.fill_but(0)
    }

    /// Fills it, but for so many bytes.
    pub(crate) fn fill_but(&self, room: u64) -> anyhow::Result<()> {
        let mut ballast = File::create(self.mount.join(BALLAST))?;
        for piece in [1 << 20, 64 << 10, 4 << 10] {
            let bytes = vec![b'x'; piece];
            while let Ok(()) = ballast.write_all(&bytes) {}
        }
        ballast.set_len(ballast.metadata()?.len().saturating_sub(room))?;
        // What is not written out yet is counted as it will be, or more: so that the room is there now.
        ballast.sync_all()?;
        Ok(())
    }

    /// Takes the ballast away.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        fs::remove_file(self.mount.join(BALLAST)).context("ballast")
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        run(Command::new("mount").args(["-t", "ext4", &self.device]).arg(&self.mount))?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        let mut said = None;
        let done = wait_until(BUSY_MAX, || {
            said = run(Command::new("umount").arg(&self.mount)).err();
            Ok(said.is_none())
        })?;
        ensure!(done, "{} stays busy: {said:?}", self.mount.display());
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let mut outcome = if self.is_mounted { self.unmount() } else { Ok(()) };
        if outcome.is_err() {
            // Better detached as soon as it is idle than never.
            outcome = run(Command::new("umount").arg("--lazy").arg(&self.mount)).map(drop);
        }
        let detached = run(Command::new("losetup").args(["--detach", &self.device]));
        for error in [outcome.err(), detached.err()].into_iter().flatten() {
            eprintln!("torture: {} is left mounted: {error:#}", self.mount.display());
        }
    }
}

/// Unmounts and detaches what a run that was killed left under `base`: rounds' directories end in their process's id.
fn clean_leftovers(base: &Path) -> anyhow::Result<()> {
    for line in fs::read_to_string("/proc/mounts")?.lines() {
        if let Some(mount) = line.split(' ').nth(1).filter(|mount| is_left_over(base, Path::new(mount))) {
            run(Command::new("umount").args(["--lazy", mount]))?;
        }
    }
    let devices = run(Command::new("losetup").args(["--list", "--noheadings", "--output", "NAME,BACK-FILE"]))?;
    for (device, image) in devices.lines().filter_map(|line| line.split_once(' ')) {
        if is_left_over(base, Path::new(image.trim())) {
            run(Command::new("losetup").args(["--detach", device]))?;
        }
    }
    Ok(())
}

fn is_left_over(base: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(base) else { return false };
    let round = inside.iter().next().and_then(|round| round.to_str());
    let pid = round.and_then(|round| round.rsplit('-').next()).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Runs a tool to its end; returns what it printed.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
