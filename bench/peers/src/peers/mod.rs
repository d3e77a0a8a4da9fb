//! The peers, a file each.

mod beanstalkd;
mod redis;

use crate::peer::Peer;

/// All, in the order of the table.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(redis::Redis { fsync: redis::Fsync::Always }),
        Box::new(redis::Redis { fsync: redis::Fsync::EverySecond }),
        Box::new(beanstalkd::Beanstalkd),
    ]
}
