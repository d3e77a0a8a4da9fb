//! The three machines of Sheaf: router, worker and client. Pure.

pub mod router;
