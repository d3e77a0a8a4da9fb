//! A conversation between two peers that outlives connections, processes and disks. Pure.
