//! One behaviour each, told from beginning to end.
