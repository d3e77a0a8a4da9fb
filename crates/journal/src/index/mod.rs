//! The index of finished keys.
