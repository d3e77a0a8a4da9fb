//! The session in its world: property runs over seeds, named stories, and bytes from nowhere.

mod actor;
mod flow;
mod garbage;
mod lives;
#[cfg(feature = "mutations")]
mod mutations;
mod packets;
mod property;
mod stories;
mod world;
