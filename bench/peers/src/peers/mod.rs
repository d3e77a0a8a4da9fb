//! The peers, a file each.

mod beanstalkd;
mod nats;
mod postgres;
mod rabbitmq;
mod redis;

use crate::peer::Peer;

/// All, in the order of the table.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(redis::Redis { fsync: redis::Fsync::Always }),
        Box::new(redis::Redis { fsync: redis::Fsync::EverySecond }),
        Box::new(postgres::Postgres),
        Box::new(rabbitmq::RabbitMq),
        Box::new(nats::Nats { sync: nats::Sync::Always }),
        Box::new(nats::Nats { sync: nats::Sync::Default }),
        Box::new(beanstalkd::Beanstalkd),
    ]
}
