//! What travels and is stored: keys, tasks, outcomes, the messages between roles, and their codec. Pure.
