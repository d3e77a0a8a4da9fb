//! `sheaf up` and `sheaf worker`: processes that run until they are stopped.

use anyhow::{Context, Result};
use sheaf_edge::{Admin, Edge, EdgeConfig};
use sheaf_server::{Server, ServerConfig};
use sheaf_worker::Stop;
use tokio::sync::watch;

use crate::args::{UpArgs, WorkerArgs};
use crate::login::{access_of, target_of};
use crate::program::{capacity_of, service_of, work_of};
use crate::signals::Signals;

/// Runs a router until a signal, `sheaf shutdown`, or a failed disk.
pub(crate) async fn up(args: UpArgs) -> Result<u8> {
    let mut signals = Signals::listen()?;
    // Before the replay, which may take long: it says that the process lives and is not ready.
    let mut admin = open_admin(&args).await?;
    let server = Server::start(ServerConfig {
        data: args.data.clone(),
        listen: Some(args.listen.clone()),
        access: access_of(&args.listen, &args.data, &args.access).await?,
        grace: args.grace,
        faults: args.chaos.chaos,
        limits: sheaf_server::Limits {
            retention_ms: u64::try_from(args.retention.as_millis()).unwrap_or(u64::MAX),
            journal_bytes_max: args.journal_max,
            segment_bytes: args.segment_size,
            ..sheaf_server::Limits::default()
        },
    })
    .await?;
    say_where(&args, &server);
    if let Some(admin) = &admin {
        admin.attach(server.target(), server.gauges())?;
    }
    let mut edge = open_door(&args, &server).await?;
    if let (Some(admin), Some(edge)) = (&admin, &edge) {
        admin.attach_door(edge.counts())?;
    }
    let stopper = server.stopper();
    let ended = server.ended();
    tokio::pin!(ended);
    let mut is_told = false;
    loop {
        tokio::select! {
            ended = &mut ended => {
                // Nobody is left to do what its clients wait for.
                if let Some(edge) = edge.take() {
                    edge.close(std::future::ready(())).await;
                }
                ended?;
                if !is_told {
                    eprintln!("sheaf: stopped by `sheaf shutdown`");
                }
                return Ok(0);
            }
            () = signals.next() => {
                eprintln!("sheaf: stopping");
                is_told = true;
                // What the door has taken is answered first, unless a second signal comes.
                if let Some(edge) = edge.take() {
                    edge.close(signals.next()).await;
                }
                if let Some(admin) = admin.take() {
                    admin.close().await;
                }
                stopper.stop();
            }
        }
    }
}

fn say_where(args: &UpArgs, server: &Server) {
    let Some(addr) = server.addr() else { return };
    eprintln!("sheaf: router {} listens on {addr}, journal in {}", server.id().short(), args.data.display());
    let at = if addr.ip().is_unspecified() { format!("HOST:{}", addr.port()) } else { addr.to_string() };
    let join = if server.is_tls() { format!("sheaf://{at} --ca FILE --token-file FILE") } else { at };
    eprintln!("sheaf: join it with: sheaf worker --join {join} -- PROGRAM {{}}");
}

/// Listens for operators, where that is wanted.
async fn open_admin(args: &UpArgs) -> Result<Option<Admin>> {
    let Some(listen) = &args.admin else { return Ok(None) };
    let admin = Admin::open(listen).await?;
    eprintln!("sheaf: operators look at http://{0}/metrics, http://{0}/api/v1/snapshot", admin.addr());
    Ok(Some(admin))
}

/// Opens the front door, where one is wanted.
async fn open_door(args: &UpArgs, server: &Server) -> Result<Option<Edge>> {
    let Some(listen) = args.http.clone() else { return Ok(None) };
    let access = access_of(&listen, &args.data, &args.access).await?;
    let scheme = if access.tls.is_some() { "https" } else { "http" };
    let config = EdgeConfig {
        listen,
        tls: access.tls,
        data: args.data.join("edge"),
        tokens: args.data.clone(),
        require_token: access.require_token,
        router: server.door(),
        secret: server.secret(),
        limits: sheaf_edge::Limits { app_bytes_max: args.files_max, ..sheaf_edge::Limits::default() },
    };
    let edge = Edge::open(config).await?;
    eprintln!("sheaf: OpenAI's API at {scheme}://{}/v1", edge.addr());
    Ok(Some(edge))
}

/// Runs a worker until a signal. The first lets it finish what it runs, the second does not.
pub(crate) async fn work(args: WorkerArgs) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let work = work_of(&args.program)?;
    let service = service_of(args.service.as_ref(), &args.program)?;
    let config = sheaf_worker::Config {
        name: args.name.clone().unwrap_or_else(|| format!("{}-{}", host_name(), std::process::id())),
        services: vec![service.clone()],
        capacity: capacity_of(&args.program),
        work,
        target: target_of(&args.join, &args.login).await?,
        data: Some(args.data.clone()),
        faults: args.chaos.chaos,
    };
    let capacity = config.capacity;
    eprintln!("sheaf: worker for `{service}`, batch {} depth {}, router {}", capacity.batch, capacity.depth, args.join);
    let (stop, stopped) = watch::channel(Stop::No);
    let running = sheaf_worker::run(config, stopped);
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => {
                let summary = ended.with_context(|| format!("with the router at {}", args.join))?;
                eprintln!("sheaf: {} attempts, {} results not yet acknowledged", summary.attempts, summary.unacknowledged);
                return Ok(0);
            }
            () = signals.next() => {
                let next = if *stop.borrow() == Stop::No { Stop::Drain } else { Stop::Force };
                eprintln!("sheaf: {}", if next == Stop::Drain { "finishing what runs (again to stop at once)" } else { "stopping" });
                stop.send_replace(next);
            }
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "worker".to_owned() } else { name.trim().to_owned() }
}
