//! The session in its world: property runs over seeds, named stories, and bytes from nowhere.

mod actor;
mod garbage;
#[cfg(feature = "mutations")]
mod mutations;
mod packets;
mod property;
mod stories;
mod world;
