//! `sheaf doctor`: is the data directory whole, and what are the limits.

use anyhow::{Context, Result, ensure};

use crate::args::DoctorArgs;
use crate::out;

/// Checks, or prints limits.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<u8> {
    if args.limits {
        for limit in sheaf_server::limits() {
            out::line(format_args!("{:<28} {:>12}  {}", limit.name, limit.value, limit.when_full))?;
        }
        return Ok(0);
    }
    // A check that makes what it checks would find everything in order.
    ensure!(
        args.data.join("identity").exists(),
        "{} is no data directory of a router (--data DIR)",
        args.data.display()
    );
    let report = sheaf_server::check(&args.data).with_context(|| format!("cannot check {}", args.data.display()))?;
    out::line(format_args!(
        "journal: {} records, {} bytes, {} segments, epoch {}",
        report.records, report.bytes, report.segments, report.epoch
    ))?;
    for damage in &report.damaged {
        out::line(format_args!("damaged: {damage}"))?;
    }
    if report.damaged.is_empty() {
        out::line("every record is whole")?;
        return Ok(0);
    }
    out::line(format_args!("{} damaged places: these records are lost, all others are served", report.damaged.len()))?;
    Ok(1)
}
