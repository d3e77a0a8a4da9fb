//! crab: the smallest HTTPS server that cannot be overloaded. One heavy program becomes an HTTPS endpoint that slowly
//! marches on, whatever is thrown at it.
//!
//! Two processes of one binary. The *supervisor* owns the listening socket and starts the *server* again whatever happened
//! to it. In the server, work moves by ownership: into a thread when it starts, out of it when it is joined.
//!
//! ```text
//!   accept loop ──connection──► reader, a thread ──complete request──► the queue of the accept loop
//!   accept loop ──whole queue──► handler, a thread ──one request──► a thread ──► the program, a process
//! ```
//!
//! Full means nothing: the accept loop sleeps until the handler takes the queue, and the kernel's backlog drops what comes.

mod accept;
mod answer;
mod args;
mod bell;
mod body;
mod conn;
mod family;
mod handler;
mod head;
mod light;
mod limits;
mod plant;
mod program;
mod reader;
mod say;
mod server;
mod supervisor;
mod tls;

use std::process::ExitCode;

use args::{Fault, Wish};

/// Exit code for a command line or a certificate that cannot work: starting again would not help.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    say::one_line_for_each_panic();
    let mut words = std::env::args_os().skip(1).peekable();
    let is_server = words.next_if(|word| word == supervisor::SERVER_WORD).is_some();
    let config = match args::parse(words) {
        Ok(Wish::Serve(config)) => config,
        Ok(Wish::Print(text)) => return say::result(text),
        Err(Fault(word, why)) => {
            say::line(&format!("{}: {why}\nTry: crab --help", word.display()));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let result = if is_server { server::run(*config) } else { supervisor::run(&config) };
    result.unwrap_or_else(|error| {
        say::line(&error);
        ExitCode::from(EXIT_USAGE)
    })
}
