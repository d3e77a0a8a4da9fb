//! The three machines of Sheaf: router, worker and client. Pure.

pub mod client;
pub mod port;
pub mod router;
pub mod worker;
