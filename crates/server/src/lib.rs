//! The router process: core loop, journal writer, restore, listeners. Shell.
