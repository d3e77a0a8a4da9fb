//! `sheaf doctor`: is the data directory whole, and what are the limits.

use anyhow::{Context, Result, ensure};

use crate::args::DoctorArgs;

/// Checks, or prints limits.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<u8> {
    if args.limits {
        for limit in sheaf_server::limits() {
            println!("{:<28} {:>12}  {}", limit.name, limit.value, limit.when_full);
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
    println!(
        "journal: {} records, {} bytes, {} segments, epoch {}",
        report.records, report.bytes, report.segments, report.epoch
    );
    for damage in &report.damaged {
        println!("damaged: {damage}");
    }
    if report.damaged.is_empty() {
        println!("every record is whole");
        return Ok(0);
    }
    println!("{} damaged places: these records are lost, all others are served", report.damaged.len());
    Ok(1)
}
