//! `sheaf up` and `sheaf worker`: processes that run until they are stopped.

use anyhow::{Context, Result, anyhow};
use sheaf_edge::{Admin, BindError, Bound, Edge, EdgeConfig, LightConfig, ListenConfig, Role};
use sheaf_net::InProcess;
use sheaf_server::{Access, Server, ServerConfig};
use sheaf_session::Micros;
use sheaf_task::KeySecret;
use sheaf_worker::Stop;
use tokio::sync::watch;

use crate::args::{UpArgs, WorkerArgs};
use crate::login::{access_of, insist_names_used, target_of};
use crate::program::{capacity_of, service_of, work_of};
use crate::signals::Signals;

/// Runs a router until a signal, `sheaf shutdown`, or a failed disk.
pub(crate) async fn up(args: UpArgs) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let config = config_of(&args).await?;
    // Every address is taken before anything is said or begun.
    let http = take(&args, ("--http", Role::Client), &args.http).await?;
    let operators = take(&args, ("--admin", Role::Admin), &args.admin).await?;
    insist_names_used(&args.access, config.access.tls.is_some() || is_tls(&http) || is_tls(&operators))?;
    let listener = Server::bind(&config).await.map_err(|error| elsewhere(&error, "--listen ADDR"))?;
    // Before the replay, which may take long: it says that the process lives and is not ready.
    let mut admin = operators.map(|at| open_admin(at, http.is_some()));
    let server = tokio::select! {
        server = Server::start_at(listener, config) => server?,
        () = signals.next() => leave(),
    };
    say_where(&args, &server);
    if let Some(admin) = &admin {
        admin.attach(server.target(), server.gauges())?;
    }
    let (stopper, router, secret) = (server.stopper(), server.door(), server.secret());
    let ended = server.ended();
    tokio::pin!(ended);
    let mut edge = match http {
        None => None,
        Some(http) => tokio::select! {
            edge = open_door(&args, http, router, secret) => Some(edge?),
            ended = &mut ended => {
                ended?;
                leave()
            }
            () = signals.next() => {
                stopper.stop();
                ended.await?;
                leave()
            }
        },
    };
    if let (Some(admin), Some(edge)) = (&admin, &edge) {
        admin.attach_door(edge.counts())?;
    }
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

/// Ends the process while it still reads what an earlier life left. Nobody waits for the end of that: what it changes is
/// mended by the next start, as after `kill -9`.
fn leave() -> ! {
    eprintln!("sheaf: stopped before it was ready");
    std::process::exit(0)
}

fn say_where(args: &UpArgs, server: &Server) {
    let Some(addr) = server.addr() else { return };
    eprintln!("sheaf: router {} listens on {addr}, journal in {}", server.id().short(), args.data.display());
    let at = if addr.ip().is_unspecified() { format!("HOST:{}", addr.port()) } else { addr.to_string() };
    let join = if server.is_tls() { format!("sheaf://{at} --ca FILE --token-file FILE") } else { at };
    eprintln!("sheaf: join it with: sheaf worker --join {join} -- PROGRAM {{}}");
}

async fn config_of(args: &UpArgs) -> Result<ServerConfig> {
    Ok(ServerConfig {
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
}

/// Takes the address of a listener over HTTP, where one is wanted.
async fn take(args: &UpArgs, (option, role): (&str, Role), listen: &Option<String>) -> Result<Option<Bound>> {
    let Some(listen) = listen.clone() else { return Ok(None) };
    let Access { tls, require_token } = access_of(&listen, &args.data, &args.access).await?;
    let config = ListenConfig { listen, tls, tokens: args.data.clone(), require_token, role };
    match Bound::take(config).await {
        Ok(bound) => Ok(Some(bound)),
        Err(error @ BindError::Listen { .. }) => Err(elsewhere(&error, &format!("{option}=ADDR"))),
        Err(error) => Err(anyhow!("{option}: {error}")),
    }
}

fn elsewhere(error: &impl std::fmt::Display, option: &str) -> anyhow::Error {
    anyhow!("{error}; choose another address with {option}")
}

fn is_tls(bound: &Option<Bound>) -> bool {
    bound.as_ref().is_some_and(Bound::is_tls)
}

fn scheme(bound: &Bound) -> &'static str {
    if bound.is_tls() { "https" } else { "http" }
}

/// Answers operators.
fn open_admin(at: Bound, expects_door: bool) -> Admin {
    let scheme = scheme(&at);
    let admin = Admin::open(at, expects_door);
    eprintln!("sheaf: operators look at {scheme}://{0}/metrics, {scheme}://{0}/api/v1/snapshot", admin.addr());
    admin
}

/// Opens the front door.
async fn open_door(args: &UpArgs, at: Bound, router: InProcess, secret: KeySecret) -> Result<Edge> {
    let scheme = scheme(&at);
    let config = EdgeConfig { data: args.data.join("edge"), router, secret, limits: limits_of(args) };
    let edge = Edge::open(at, config).await?;
    eprintln!("sheaf: OpenAI's API at {scheme}://{}/v1", edge.addr());
    Ok(edge)
}

fn limits_of(args: &UpArgs) -> sheaf_edge::Limits {
    let wait = u64::try_from(args.http_wait.as_micros()).unwrap_or(u64::MAX);
    let light = LightConfig { target: Micros(wait), ..LightConfig::default() };
    sheaf_edge::Limits {
        connections_max: args.http_connections,
        app_bytes_max: args.files_max,
        light,
        ..sheaf_edge::Limits::default()
    }
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
