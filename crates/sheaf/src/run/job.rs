//! From the words of `sheaf run` to the job that they describe.

use std::path::Path;

use anyhow::{Context, Result, bail};
use sheaf_client::JobConfig;
use sheaf_client::sink::SinkSpec;
use sheaf_client::source::SourceSpec;
use sheaf_task::{JobOptions, Order};

use crate::args::{OrderArg, ProgramArgs, RunArgs};
use crate::backend::prompt_of;
use crate::program::{mode_name, words_of};

/// The job, as far as it can be told without a router.
pub(super) fn job_of(args: &RunArgs) -> Result<JobConfig> {
    let (service, revision) = service_of(args)?;
    let prompt = prompt_of(&args.prompt, &args.program.backend)?;
    let source = SourceSpec {
        path: args.input.clone(),
        format: None,
        query: args.query.clone(),
        column: args.column.clone(),
        id: args.id.clone(),
        all_fields: prompt.is_some(),
    };
    let sink = SinkSpec { path: args.out.clone(), table: args.table.clone(), ordered: args.ordered };
    Ok(JobConfig {
        name: args.name.clone().unwrap_or_else(|| file_name(&args.out)),
        source,
        sink,
        service,
        revision,
        prompt,
        fresh: args.fresh,
        share: args.share,
        limit: args.limit,
        max_failures: args.max_failures,
        options: options_of(args),
    })
}

/// With a router elsewhere the service must be named, by itself or by the program that other workers offer.
fn service_of(args: &RunArgs) -> Result<(String, String)> {
    let ProgramArgs { argv, stdin, serve, .. } = &args.program;
    if args.join.is_some() && argv.is_empty() && (*stdin || *serve) {
        bail!("--stdin and --serve tell how a program runs: with --join, say so to `sheaf worker`");
    }
    let words = words_of(&args.program);
    let is_named = args.service.is_some() || args.program.backend.model.is_some() || !words.is_empty();
    if args.join.is_some() && !is_named {
        bail!("say which service the rows are for: --service NAME, as the workers announce it");
    }
    let service = crate::program::service_of(args.service.as_ref(), &args.program)?;
    let revision = match &args.revision {
        Some(revision) => revision.clone(),
        None if words.is_empty() => String::new(),
        None => {
            sheaf_client::default_revision(&words, mode_name(&args.program), "").context("cannot tell the revision")?
        }
    };
    Ok((service, revision))
}

fn options_of(args: &RunArgs) -> JobOptions {
    JobOptions {
        timeout_ms: args.timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        retries: args.retries,
        order: match args.order {
            OrderArg::Fifo => Order::Fifo,
            OrderArg::Shortest => Order::Shortest,
            OrderArg::Auto => Order::Auto,
        },
        weight: args.weight,
        rate_millihertz: args.rate.unwrap_or(0),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
