//! An echo server whose client ends it from inside the conversation.
//!
//!     cargo run -p sheaf-session --example echo -- server 127.0.0.1:4499
//!     cargo run -p sheaf-session --example echo -- client 127.0.0.1:4499 one two three
//!
//! The client sends each word, prints each answer, and then sends SHUTDOWN. The server commits that message, drains,
//! and both forget the session: neither leaves while the other still waits for something.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "an example is a shell")]

mod shell;

use bytes::Bytes;
use sheaf_session::{
    Body, Config, Delivery, Event, How, Kind, Lane, Micros, Outgoing, Record, Session, SessionId, Side, Ticket,
};

const SHUTDOWN: &[u8] = b"SHUTDOWN";

struct Echo {
    side: Side,
    answers_due: usize,
    ended: bool,
}

impl Echo {
    fn say(&self, session: &mut Session, now: Micros, body: Bytes, answers: Option<&Delivery>) {
        let (kind, of) = match answers {
            Some(delivery) => (Kind::Reply, Some(delivery.place)),
            None => (Kind::Data, None),
        };
        let message = Outgoing { lane: Lane::Bulk, kind, app: 0, of, body: Body::Inline(body) };
        if let Err(full) = session.send(now, message) {
            eprintln!("not sent: {full}");
        }
    }
}

impl shell::App for Echo {
    fn persist(&mut self, _: Ticket, _: Record) {
        unreachable!("all lanes have depth MEMORY")
    }

    fn deliver(&mut self, session: &mut Session, now: Micros, delivery: Delivery) {
        session.commit(now, delivery.place);
        match (self.side, &delivery.body[..]) {
            (Side::Listener, SHUTDOWN) => session.close(now, How::Drain),
            (Side::Listener, _) => self.say(session, now, delivery.body.clone(), Some(&delivery)),
            (Side::Dialer, answer) => {
                println!("{}", String::from_utf8_lossy(answer));
                self.answers_due -= 1;
                if self.answers_due == 0 {
                    self.say(session, now, Bytes::from_static(SHUTDOWN), None);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        if event == Event::Ended {
            println!("ended");
            self.ended = true;
        }
    }

    fn line(&mut self, _: &mut Session, _: Micros, _: Option<String>) {}

    fn settle(&mut self, _: &mut Session, _: Micros) -> bool {
        false
    }

    fn is_done(&self, _: &Session) -> bool {
        self.ended
    }
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (side, address, words) = match arguments.as_slice() {
        [mode, address] if mode == "server" => (Side::Listener, address, &[][..]),
        [mode, address, words @ ..] if mode == "client" && !words.is_empty() => (Side::Dialer, address, words),
        _ => {
            eprintln!("usage: echo server ADDRESS | echo client ADDRESS WORD...");
            std::process::exit(2);
        }
    };
    let config = Config { boot: shell::nonce(), ..Config::default() };
    let mut session = Session::new(config, side, SessionId(*b"sheaf-echo-demo!"), shell::nonce());
    let mut echo = Echo { side, answers_due: words.len(), ended: false };
    for word in words {
        echo.say(&mut session, Micros::ZERO, Bytes::from(word.clone()), None);
    }
    shell::Shell::new(session, side, address, false)?.run(&mut echo);
    Ok(())
}
