//! Redis streams: a group of consumers takes tasks, results are read in order by their one reader. Everything pipelined.
//!
//! With `appendfsync always` it syncs once for all commands of one turn of its loop; with `everysec` it confirms what a
//! power cut may take.

use anyhow::{Context, Result};
use redis::streams::{StreamId, StreamReadReply};
use redis::{Cmd, Connection, FromRedisValue, Pipeline, cmd, pipe};
use rustix::process::Signal;

use crate::peer::{Link, Package, Peer, Profile};
use crate::server::{Ground, Process, Server, free_port};

/// Confirmations that a producer may wait for.
const WINDOW: usize = 4_000;

#[derive(Clone, Copy)]
pub(crate) enum Fsync {
    Always,
    EverySecond,
}

pub(crate) struct Redis {
    pub(crate) fsync: Fsync,
}

impl Peer for Redis {
    fn profile(&self) -> Profile {
        let (name, synced) = match self.fsync {
            Fsync::Always => (crate::table::REFERENCE, true),
            Fsync::EverySecond => ("Redis streams, everysec", false),
        };
        let package = Package::Debian("redis-server");
        Profile { name, synced, batch: 1_000, workers: 1, programs: &["redis-server"], package }
    }

    fn start(&self, ground: Ground) -> Result<Server> {
        let (port, data) = (free_port()?, ground.subdirectory("data")?);
        let fsync = match self.fsync {
            Fsync::Always => "always",
            Fsync::EverySecond => "everysec",
        };
        let mut command = ground.command("redis-server", None)?;
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", fsync, "--dir"]).arg(&data);
        let process = Process::start(command, Signal::TERM, &ground.path("log"))?;
        Server::ready(vec![process], (ground, data), port, |server| {
            let group = "XGROUP CREATE tasks workers 0 MKSTREAM";
            let mut command = Cmd::new();
            group.split(' ').for_each(|word| {
                command.arg(word);
            });
            Ok(command.exec(&mut connection(server)?)?)
        })
    }

    fn connect(&self, server: &Server) -> Result<Box<dyn Link>> {
        Ok(Box::new(Streams { connection: connection(server)?, due: 0, last: "0".to_owned() }))
    }
}

fn connection(server: &Server) -> Result<Connection> {
    let client = redis::Client::open(("127.0.0.1", server.port))?;
    client.get_connection().context("redis")
}

struct Streams {
    connection: Connection,
    /// Answers that were not read yet.
    due: usize,
    /// The last result that was taken.
    last: String,
}

impl Streams {
    fn drain(&mut self, most: usize) -> Result<()> {
        while self.due > most {
            self.connection.recv_response()?;
            self.due -= 1;
        }
        Ok(())
    }

    fn read(&mut self, command: &Cmd) -> Result<Vec<StreamId>> {
        let reply: Option<StreamReadReply> = command.query(&mut self.connection)?;
        Ok(reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids).collect())
    }
}

fn add(pipeline: &mut Pipeline, stream: &str, body: &[u8]) {
    pipeline.cmd("XADD").arg(stream).arg("*").arg("b").arg(body);
}

fn body(id: &StreamId) -> Result<Vec<u8>> {
    let value = id.map.get("b").context("an entry without a body")?;
    Ok(Vec::<u8>::from_redis_value_ref(value)?)
}

impl Link for Streams {
    fn submit(&mut self, bodies: &[Vec<u8>]) -> Result<()> {
        let mut pipeline = pipe();
        for body in bodies {
            add(&mut pipeline, "tasks", body);
        }
        self.connection.send_packed_command(&pipeline.get_packed_pipeline())?;
        self.due += bodies.len();
        self.drain(WINDOW)
    }

    fn settle(&mut self) -> Result<()> {
        self.drain(0)
    }

    fn work(&mut self, most: usize) -> Result<usize> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg("workers").arg("one").arg("COUNT").arg(most).arg("BLOCK").arg(1_000);
        let tasks = self.read(command.arg("STREAMS").arg("tasks").arg(">"))?;
        if tasks.is_empty() {
            return Ok(0);
        }
        // In one pipeline, which the server executes and logs in order: the results stand before the tasks go.
        let mut pipeline = pipe();
        for task in &tasks {
            add(&mut pipeline, "results", &body(task)?);
        }
        let ids: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        pipeline.cmd("XACK").arg("tasks").arg("workers").arg(&ids);
        pipeline.cmd("XDEL").arg("tasks").arg(&ids);
        pipeline.exec(&mut self.connection)?;
        Ok(tasks.len())
    }

    fn collect(&mut self, most: usize) -> Result<Vec<Vec<u8>>> {
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg(most).arg("BLOCK").arg(1_000);
        let results = self.read(command.arg("STREAMS").arg("results").arg(&self.last))?;
        let Some(last) = results.last() else { return Ok(Vec::new()) };
        self.last.clone_from(&last.id);
        // Whole nodes go at once, as its documentation advises: a few results that were taken may stay.
        cmd("XTRIM").arg("results").arg("MINID").arg("~").arg(&self.last).exec(&mut self.connection)?;
        results.iter().map(body).collect()
    }
}
