//! Fuzzing on the stable toolchain: `fuzz [--target T] [--inputs N | --minutes M] [--seed S] [--input FILE]`.
//!
//! The parent runs each target in a process of its own, so that one that dies, hangs or fills memory is seen from
//! outside, and its last input is still there. Exit code 0: nothing was found. 1: something was, and where it lies was
//! printed with the command that repeats it. 2: usage.

mod args;
mod child;
mod corpus;
mod guard;
mod mutate;
mod parent;
mod target;
mod targets;

use std::process::ExitCode;

use args::{Args, Mode};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(says) => {
            eprintln!("fuzz: {says}\n{}", args::USAGE);
            return ExitCode::from(2);
        }
    };
    let found = match args.mode {
        Mode::Parent => parent::run(&args),
        Mode::Child => child::run(&args),
        Mode::Examples => corpus::write_examples(&args).map(|()| 0),
    };
    match found {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}
