//! Each planted mutation is caught.
