//! Bytes from nowhere never panic.
