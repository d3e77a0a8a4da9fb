//! A whole cluster in one thread: seeded clock, network and disks, and the checkers that watch it. Pure.
