//! One file for each reader of bytes. They share nothing but the contract in `target`.

mod edits;
mod frames;
pub(crate) mod journal;
mod pair;
pub(crate) mod records;
pub(crate) mod rows;
pub(crate) mod session;
pub(crate) mod task;
pub(crate) mod words;
