//! How fast the disk is just now. Other work on the machine moves this tenfold, and every figure of a durable queue with it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::table::percentile;

const APPENDS: usize = 200;
const BYTES: [u8; 256] = [b'x'; 256];

/// Microseconds of a small append and its `fdatasync`: the median.
pub(crate) fn sync_us(dir: &Path) -> Result<f64> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut file: File = tempfile::tempfile_in(dir).context("cannot write a file")?;
    let mut took = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let since = Instant::now();
        file.write_all(&BYTES)?;
        file.sync_data()?;
        took.push(since.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    Ok(percentile(&took, 0.5))
}
