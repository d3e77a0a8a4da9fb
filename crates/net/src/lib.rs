//! Carriers, and the link driver that keeps a session on one. Shell.
