//! beanstalkd with `-f0`: it syncs each command that changes a job before it answers. Commands are pipelined; it has none
//! that takes or puts several jobs, and nothing makes it sync several at once.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::peer::{Link, Package, Peer, Profile};
use crate::server::{Ground, Process, Server, free_port};

/// Commands that may wait for their answers.
const WINDOW: usize = 1_000;

/// A worker may keep a job for so many seconds.
const TIME_TO_RUN: u32 = 600;

pub(crate) struct Beanstalkd;

impl Peer for Beanstalkd {
    fn profile(&self) -> Profile {
        Profile {
            name: "beanstalkd -f0",
            synced: true,
            batch: 100,
            workers: 1,
            programs: &["beanstalkd"],
            package: Package::Debian("beanstalkd"),
        }
    }

    fn start(&self, ground: Ground) -> Result<Server> {
        let (port, data) = (free_port()?, ground.subdirectory("data")?);
        let mut command = ground.command("beanstalkd", None)?;
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-f0", "-b"]).arg(&data);
        let process = Process::start(command, Signal::TERM, &ground.path("log"))?;
        Server::ready(vec![process], (ground, data), port, |server| Connection::new(server).map(drop))
    }

    fn connect(&self, server: &Server) -> Result<Box<dyn Link>> {
        Ok(Box::new(Connection::new(server)?))
    }
}

struct Connection {
    read: BufReader<TcpStream>,
    write: TcpStream,
    /// First words of the answers that are due.
    due: VecDeque<&'static str>,
    watched: Option<&'static str>,
}

struct Job {
    id: String,
    body: Vec<u8>,
}

impl Connection {
    fn new(server: &Server) -> Result<Self> {
        let write = TcpStream::connect(("127.0.0.1", server.port)).context("beanstalkd")?;
        write.set_nodelay(true)?;
        Ok(Self { read: BufReader::new(write.try_clone()?), write, due: VecDeque::new(), watched: None })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.read.read_line(&mut line)? > 0, "beanstalkd closed the connection");
        Ok(line.trim_end().to_owned())
    }

    /// Reads answers until at most so many are due.
    fn drain(&mut self, most: usize) -> Result<()> {
        while self.due.len() > most
            && let Some(expected) = self.due.pop_front()
        {
            let line = self.line()?;
            ensure!(line.starts_with(expected), "beanstalkd said {line:?}, not {expected}");
        }
        Ok(())
    }

    fn put(&mut self, out: &mut Vec<u8>, body: &[u8]) {
        out.extend_from_slice(format!("put 0 0 {TIME_TO_RUN} {}\r\n", body.len()).as_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
        self.due.push_back("INSERTED");
    }

    fn delete(&mut self, out: &mut Vec<u8>, job: &Job) {
        out.extend_from_slice(format!("delete {}\r\n", job.id).as_bytes());
        self.due.push_back("DELETED");
    }

    /// Tasks are in the tube `tasks`, results in `default`, where a worker puts them.
    fn watch(&mut self, tube: &'static str) -> Result<()> {
        if self.watched.replace(tube).is_none() && tube != "default" {
            self.write.write_all(format!("watch {tube}\r\nignore default\r\n").as_bytes())?;
            self.due.extend(["WATCHING", "WATCHING"]);
            self.drain(0)?;
        }
        Ok(())
    }

    /// The first command waits for a job, the others take what is there.
    fn reserve(&mut self, most: usize) -> Result<Vec<Job>> {
        let commands = "reserve-with-timeout 1\r\n".to_owned() + &"reserve-with-timeout 0\r\n".repeat(most - 1);
        self.write.write_all(commands.as_bytes())?;
        let mut jobs = Vec::with_capacity(most);
        for _ in 0..most {
            let line = self.line()?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["TIMED_OUT"] => {}
                ["RESERVED", id, len] => {
                    let mut body = vec![0; len.parse::<usize>()? + "\r\n".len()];
                    self.read.read_exact(&mut body)?;
                    body.truncate(body.len() - "\r\n".len());
                    jobs.push(Job { id: id.to_owned(), body });
                }
                _ => bail!("beanstalkd said {line:?}"),
            }
        }
        Ok(jobs)
    }
}

impl Link for Connection {
    fn submit(&mut self, bodies: &[Vec<u8>]) -> Result<()> {
        let mut out = Vec::new();
        if self.watched.replace("tasks").is_none() {
            out.extend_from_slice(b"use tasks\r\n");
            self.due.push_back("USING");
        }
        for body in bodies {
            self.put(&mut out, body);
        }
        self.write.write_all(&out)?;
        self.drain(WINDOW)
    }

    fn settle(&mut self) -> Result<()> {
        self.drain(0)
    }

    fn work(&mut self, most: usize) -> Result<usize> {
        self.watch("tasks")?;
        let jobs = self.reserve(most)?;
        // The results are confirmed before the jobs go: the server executes commands in order.
        let mut out = Vec::new();
        for job in &jobs {
            self.put(&mut out, &job.body);
        }
        for job in &jobs {
            self.delete(&mut out, job);
        }
        self.write.write_all(&out)?;
        self.drain(0)?;
        Ok(jobs.len())
    }

    fn collect(&mut self, most: usize) -> Result<Vec<Vec<u8>>> {
        self.watch("default")?;
        let jobs = self.reserve(most)?;
        let mut out = Vec::new();
        for job in &jobs {
            self.delete(&mut out, job);
        }
        self.write.write_all(&out)?;
        self.drain(0)?;
        Ok(jobs.into_iter().map(|job| job.body).collect())
    }
}
