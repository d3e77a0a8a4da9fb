//! PostgreSQL as a queue: rows are inserted many at a time, taken with `SKIP LOCKED`, and `NOTIFY` wakes who waits.
//!
//! `synchronous_commit` is on. A worker takes tasks, inserts results and commits: one transaction, one sync.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::{poll_fn, try_join};
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Statement};

use crate::peer::{Link, Package, Peer, Profile};
use crate::server::{Ground, Process, Server, free_port};

/// Inserts on their way at once.
const WINDOW: usize = 2;

/// The server refuses to run as root.
const USER: &str = "postgres";

/// A queue's vacuum follows the rows that were taken, not the share of a table that is always nearly empty.
const TABLES: &str = "
    CREATE TABLE tasks (id bigserial PRIMARY KEY, body bytea NOT NULL)
        WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
    CREATE TABLE results (id bigserial PRIMARY KEY, body bytea NOT NULL)
        WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);";

/// Beside memory as its documentation advises: checkpoints far apart, so that pages are not logged whole again and again.
const SETTINGS: [&str; 8] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "synchronous_commit=on",
    "shared_buffers=512MB",
    "wal_buffers=16MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=30min",
    "autovacuum_naptime=5s",
];

pub(crate) struct Postgres;

impl Peer for Postgres {
    fn profile(&self) -> Profile {
        Profile {
            name: "PostgreSQL, SKIP LOCKED",
            synced: true,
            batch: 2_000,
            workers: 2,
            programs: &["initdb", "postgres"],
            package: Package::Debian("postgresql"),
        }
    }

    fn start(&self, ground: Ground) -> Result<Server> {
        let (port, data, user) = (free_port()?, ground.subdirectory("data")?, ground.user(USER));
        if let Some(user) = user {
            run(Command::new("chown").arg(user).arg(&data))?;
        }
        let mut init = ground.command("initdb", user)?;
        run(init.args(["--username", USER, "--auth", "trust", "--no-sync", "--locale", "C", "-D"]).arg(&data))?;
        let mut command = ground.command("postgres", user)?;
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        // A fast shutdown: it ends its sessions and then itself.
        let process = Process::start(command, Signal::INT, &ground.path("log"))?;
        Server::ready(vec![process], (ground, data), port, |server| {
            let runtime = runtime()?;
            let (client, _bell) = runtime.block_on(connect(server))?;
            Ok(runtime.block_on(client.batch_execute(TABLES))?)
        })
    }

    fn connect(&self, server: &Server) -> Result<Box<dyn Link>> {
        let runtime = runtime()?;
        let table = runtime.block_on(async {
            let (client, bell) = connect(server).await?;
            Ok::<_, anyhow::Error>((Statements::prepare(&client).await?, Arc::new(client), bell))
        });
        let (statements, client, bell) = table?;
        Ok(Box::new(Table { runtime, client, statements, bell, listens: false, open: VecDeque::new() }))
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("no runtime")
}

/// A connection, and the bell that its notifications ring. It is driven by a task of the runtime, and ends with that.
async fn connect(server: &Server) -> Result<(Client, Arc<Notify>)> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.port).user(USER).dbname(USER);
    let (client, mut connection) = config.connect(NoTls).await?;
    let bell = Arc::new(Notify::new());
    let rings = Arc::clone(&bell);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                rings.notify_one();
            }
        }
    });
    Ok((client, bell))
}

struct Statements {
    put_tasks: Statement,
    put_results: Statement,
    take_tasks: Statement,
    take_results: Statement,
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Self> {
        let put = |table: &str| {
            format!(
                "WITH put AS (INSERT INTO {table} (body) SELECT unnest($1::bytea[])) SELECT pg_notify('{table}', '')"
            )
        };
        let take = |table: &str| {
            format!(
                "DELETE FROM {table} WHERE id = ANY (ARRAY(SELECT id FROM {table} ORDER BY id \
                 FOR UPDATE SKIP LOCKED LIMIT $1)) RETURNING body"
            )
        };
        Ok(Self {
            put_tasks: client.prepare(&put("tasks")).await?,
            put_results: client.prepare(&put("results")).await?,
            take_tasks: client.prepare(&take("tasks")).await?,
            take_results: client.prepare(&take("results")).await?,
        })
    }
}

struct Table {
    runtime: Runtime,
    client: Arc<Client>,
    statements: Statements,
    bell: Arc<Notify>,
    listens: bool,
    /// Inserts that are not confirmed.
    open: VecDeque<JoinHandle<Result<Vec<Row>, tokio_postgres::Error>>>,
}

impl Table {
    fn drain(&mut self, most: usize) -> Result<()> {
        while self.open.len() > most
            && let Some(insert) = self.open.pop_front()
        {
            self.runtime.block_on(insert).context("an insert panicked")??;
        }
        Ok(())
    }

    fn listen(&mut self, table: &str) -> Result<()> {
        if !std::mem::replace(&mut self.listens, true) {
            self.runtime.block_on(self.client.batch_execute(&format!("LISTEN {table}")))?;
        }
        Ok(())
    }
}

/// Until rows were notified, or for a second: rows that were locked by somebody who went are not notified again.
async fn wait(bell: &Notify) {
    tokio::select! {
        () = bell.notified() => {}
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
}

fn bodies(rows: &[Row]) -> Vec<Vec<u8>> {
    rows.iter().map(|row| row.get(0)).collect()
}

impl Link for Table {
    fn submit(&mut self, bodies: &[Vec<u8>]) -> Result<()> {
        let (client, statement, bodies) =
            (Arc::clone(&self.client), self.statements.put_tasks.clone(), bodies.to_vec());
        self.open.push_back(self.runtime.spawn(async move { client.query(&statement, &[&bodies]).await }));
        self.drain(WINDOW - 1)
    }

    fn settle(&mut self) -> Result<()> {
        self.drain(0)
    }

    fn work(&mut self, most: usize) -> Result<usize> {
        self.listen("tasks")?;
        let (client, statements, most) = (&self.client, &self.statements, most as i64);
        self.runtime.block_on(async {
            // Two statements a way: the second one need not hear of the first one's end.
            let limit: [&(dyn ToSql + Sync); 1] = [&most];
            let ((), taken) =
                try_join(client.batch_execute("BEGIN"), client.query(&statements.take_tasks, &limit)).await?;
            let bodies = bodies(&taken);
            if bodies.is_empty() {
                client.batch_execute("ROLLBACK").await?;
                wait(&self.bell).await;
                return Ok(0);
            }
            let results: [&(dyn ToSql + Sync); 1] = [&bodies];
            let put = client.query(&statements.put_results, &results);
            try_join(put, client.batch_execute("COMMIT")).await?;
            Ok(bodies.len())
        })
    }

    fn collect(&mut self, most: usize) -> Result<Vec<Vec<u8>>> {
        self.listen("results")?;
        self.runtime.block_on(async {
            let taken = bodies(&self.client.query(&self.statements.take_results, &[&(most as i64)]).await?);
            if taken.is_empty() {
                wait(&self.bell).await;
            }
            Ok(taken)
        })
    }
}
