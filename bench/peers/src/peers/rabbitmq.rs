//! RabbitMQ: quorum queues of one member, publisher confirms with a window, consumers with a prefetch that acknowledge
//! many at once.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, PublisherConfirm};
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};

use crate::peer::{Link, Package, Peer, Profile};
use crate::server::{Ground, Process, Server, free_port};

/// Publishes that may wait for their confirmation.
const WINDOW: usize = 4_000;

/// A message that survives a restart.
const PERSISTENT: u8 = 2;

pub(crate) struct RabbitMq;

impl Peer for RabbitMq {
    fn profile(&self) -> Profile {
        Profile {
            name: "RabbitMQ, quorum queues",
            synced: true,
            batch: 1_000,
            workers: 1,
            programs: &["rabbitmq-server", "epmd"],
            package: Package::Debian("rabbitmq-server"),
        }
    }

    /// Erlang's port mapper is a process of ours, too: the one that Erlang would start by itself stays for ever.
    fn start(&self, ground: Ground) -> Result<Server> {
        let (port, data) = (free_port()?, ground.subdirectory("data")?);
        let (mapper_port, between_nodes) = (free_port()?.to_string(), free_port()?.to_string());
        let mut mapper = ground.command("epmd", None)?;
        mapper.args(["-address", "127.0.0.1", "-port", &mapper_port]);
        let mapper = Process::start(mapper, Signal::TERM, &ground.path("epmd.log"))?;
        let plugins = ground.path("enabled_plugins");
        std::fs::write(&plugins, "[].\n").context("cannot write its configuration")?;
        let mut command = ground.command("rabbitmq-server", None)?;
        command.env("HOME", ground.subdirectory("home")?);
        command.env("ERL_EPMD_PORT", mapper_port).env("RABBITMQ_DIST_PORT", between_nodes);
        command.env("RABBITMQ_NODENAME", format!("peers{port}@localhost"));
        command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1").env("RABBITMQ_NODE_PORT", port.to_string());
        command.env("RABBITMQ_MNESIA_BASE", &data).env("RABBITMQ_LOG_BASE", ground.subdirectory("logs")?);
        command.env("RABBITMQ_PID_FILE", ground.path("pid")).env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins);
        command.env("RABBITMQ_CONFIG_FILE", ground.path("none")).env("RABBITMQ_CONF_ENV_FILE", ground.path("none"));
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-start_epmd false");
        let process = Process::start(command, Signal::TERM, &ground.path("log"))?;
        Server::ready(vec![process, mapper], (ground, data), port, |server| {
            let runtime = runtime()?;
            runtime.block_on(async {
                let (connection, channel) = open(server).await?;
                for queue in ["tasks", "results"] {
                    make(&channel, queue).await?;
                }
                Ok(connection.close(200, "done".into()).await?)
            })
        })
    }

    fn connect(&self, server: &Server) -> Result<Box<dyn Link>> {
        let runtime = runtime()?;
        let (connection, channel) = runtime.block_on(open(server))?;
        let open = VecDeque::new();
        Ok(Box::new(Queues { runtime, channel, open, consumer: None, _connection: connection }))
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("no runtime")
}

async fn open(server: &Server) -> Result<(Connection, Channel)> {
    let address = format!("amqp://127.0.0.1:{}/%2f", server.port);
    let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

async fn make(channel: &Channel, queue: &str) -> Result<()> {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, table).await?;
    Ok(())
}

struct Queues {
    runtime: Runtime,
    channel: Channel,
    /// Publishes that are not confirmed.
    open: VecDeque<PublisherConfirm>,
    /// What this connection takes from, once it has.
    consumer: Option<Consumer>,
    _connection: Connection,
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> Result<PublisherConfirm> {
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    Ok(channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties).await?)
}

/// Waits until at most so many are open.
async fn confirm(open: &mut VecDeque<PublisherConfirm>, most: usize) -> Result<()> {
    while open.len() > most
        && let Some(publish) = open.pop_front()
    {
        ensure!(matches!(publish.await?, Confirmation::Ack(None)), "a message was refused");
    }
    Ok(())
}

/// Messages that are there, at least one, or none after a second.
async fn take(channel: &Channel, consumer: &mut Option<Consumer>, queue: &str, most: usize) -> Result<Vec<Delivery>> {
    let consumer = match consumer {
        Some(consumer) => consumer,
        None => {
            let prefetch = u16::try_from(2 * most).context("prefetch")?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            consumer.insert(channel.basic_consume(queue.into(), "one".into(), options, FieldTable::default()).await?)
        }
    };
    let mut taken = Vec::new();
    let Ok(first) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await else { return Ok(taken) };
    taken.push(first.context("the consumer was cancelled")??);
    while taken.len() < most {
        let next = tokio::time::timeout(Duration::ZERO, consumer.next()).await;
        let Ok(Some(next)) = next else { break };
        taken.push(next?);
    }
    Ok(taken)
}

/// All up to the last one.
async fn acknowledge(taken: &[Delivery]) -> Result<()> {
    if let Some(last) = taken.last() {
        last.ack(BasicAckOptions { multiple: true }).await?;
    }
    Ok(())
}

impl Link for Queues {
    fn submit(&mut self, bodies: &[Vec<u8>]) -> Result<()> {
        let Self { runtime, channel, open, .. } = self;
        runtime.block_on(async {
            for body in bodies {
                open.push_back(publish(channel, "tasks", body).await?);
            }
            confirm(open, WINDOW).await
        })
    }

    fn settle(&mut self) -> Result<()> {
        let Self { runtime, open, .. } = self;
        runtime.block_on(confirm(open, 0))
    }

    fn work(&mut self, most: usize) -> Result<usize> {
        let Self { runtime, channel, open, consumer, .. } = self;
        runtime.block_on(async {
            let tasks = take(channel, consumer, "tasks", most).await?;
            for task in &tasks {
                open.push_back(publish(channel, "results", &task.data).await?);
            }
            confirm(open, 0).await?;
            acknowledge(&tasks).await?;
            Ok(tasks.len())
        })
    }

    fn collect(&mut self, most: usize) -> Result<Vec<Vec<u8>>> {
        let Self { runtime, channel, consumer, .. } = self;
        runtime.block_on(async {
            let results = take(channel, consumer, "results", most).await?;
            acknowledge(&results).await?;
            Ok(results.into_iter().map(|result| result.data).collect())
        })
    }
}
