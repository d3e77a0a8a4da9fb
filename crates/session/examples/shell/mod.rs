//! The shell of both examples: one session, one TCP connection at a time, one thread that owns them. It moves bytes and
//! time and decides nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sheaf_session::{Delivery, Event, Input, Micros, Output, Record, Session, Side, Ticket};

/// What the shell is told by its threads.
pub(crate) enum Happening {
    Connected(TcpStream),
    Bytes(u64, Bytes),
    Gone(u64),
    Line(String),
    NoMoreLines,
}

/// What an example does with what its session says.
pub(crate) trait App {
    fn persist(&mut self, ticket: Ticket, record: Record);
    fn deliver(&mut self, session: &mut Session, now: Micros, delivery: Delivery);
    fn event(&mut self, event: Event);
    /// A line was typed; `None`: there will be no more.
    fn line(&mut self, session: &mut Session, now: Micros, line: Option<String>);
    /// Everything that came is handled: make it durable. True: the session was told something new.
    fn settle(&mut self, session: &mut Session, now: Micros) -> bool;
    fn is_done(&self, session: &Session) -> bool;
}

pub(crate) struct Shell {
    session: Session,
    began: Instant,
    connection: Option<TcpStream>,
    /// Counts connections, so that the end of an old one is not mistaken for the end of the new one.
    count: u64,
    happenings: Receiver<Happening>,
    report: SyncSender<Happening>,
}

impl Shell {
    pub(crate) fn new(session: Session, side: Side, address: &str, lines: bool) -> std::io::Result<Shell> {
        let (report, happenings) = sync_channel(QUEUE);
        let (address, reporter) = (address.to_owned(), report.clone());
        match side {
            Side::Dialer => drop(std::thread::spawn(move || dial(&address, &reporter))),
            Side::Listener => {
                let listener = TcpListener::bind(&address)?;
                println!("listening on {}", listener.local_addr()?);
                std::thread::spawn(move || accept(&listener, &reporter));
            }
        }
        if lines {
            let reporter = report.clone();
            std::thread::spawn(move || read_lines(&reporter));
        }
        Ok(Shell { session, began: Instant::now(), connection: None, count: 0, happenings, report })
    }

    pub(crate) fn run(&mut self, app: &mut impl App) {
        loop {
            let wait = self.drain(app);
            if app.is_done(&self.session) {
                return;
            }
            let now = self.now();
            let span = wait.map_or(Duration::from_secs(60), |at| Duration::from_micros(at.since(now).0));
            match self.happenings.recv_timeout(span) {
                Ok(happening) => self.on(happening, app),
                Err(RecvTimeoutError::Timeout) => self.feed(Input::Tick),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn now(&self) -> Micros {
        Micros(self.began.elapsed().as_micros() as u64)
    }

    fn on(&mut self, happening: Happening, app: &mut impl App) {
        let now = self.now();
        match happening {
            Happening::Connected(stream) => self.on_connected(stream),
            Happening::Bytes(count, bytes) if count == self.count => self.feed(Input::Bytes(bytes.into())),
            Happening::Gone(count) if count == self.count => self.hang_up(),
            Happening::Bytes(..) | Happening::Gone(_) => {}
            Happening::Line(line) => app.line(&mut self.session, now, Some(line)),
            Happening::NoMoreLines => app.line(&mut self.session, now, None),
        }
    }

    fn on_connected(&mut self, stream: TcpStream) {
        self.hang_up();
        self.count += 1;
        let (count, report) = (self.count, self.report.clone());
        let Ok(mut reader) = stream.try_clone() else { return };
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                if report.send(Happening::Bytes(count, Bytes::copy_from_slice(&buffer[..len]))).is_err() {
                    return;
                }
            }
            // The shell may have left already; then nobody needs to know.
            drop(report.send(Happening::Gone(count)));
        });
        self.connection = Some(stream);
        self.feed(Input::Connected { conn: nonce() });
    }

    fn hang_up(&mut self) {
        if let Some(stream) = self.connection.take() {
            // A connection that is gone already cannot be shut down, which is as good.
            drop(stream.shutdown(Shutdown::Both));
            self.feed(Input::Disconnected);
        }
    }

    fn feed(&mut self, input: Input) {
        let now = self.now();
        if let Err(fatal) = self.session.feed(now, input) {
            eprintln!("the peer broke the protocol: {fatal}");
            self.hang_up();
        }
    }

    fn drain(&mut self, app: &mut impl App) -> Option<Micros> {
        loop {
            let now = self.now();
            match self.session.take(now) {
                Output::Persist(ticket, record) => app.persist(ticket, record),
                Output::Need(_) => unreachable!("all bodies are inline"),
                Output::Transmit(bytes) => self.transmit(&bytes),
                Output::Deliver(delivery) => app.deliver(&mut self.session, now, delivery),
                Output::Event(event) => app.event(event),
                Output::Close(_) => self.hang_up(),
                Output::Wait(at) => {
                    if !app.settle(&mut self.session, now) {
                        return at;
                    }
                }
            }
        }
    }

    fn transmit(&mut self, bytes: &Bytes) {
        let failed = self.connection.as_mut().is_some_and(|stream| stream.write_all(bytes).is_err());
        if failed {
            self.hang_up();
        }
    }
}

/// Keeps one connection at a time: the next is tried when the last one has ended.
fn dial(address: &str, report: &SyncSender<Happening>) {
    loop {
        if let Ok(stream) = TcpStream::connect(address) {
            let Ok(watch) = stream.try_clone() else { return };
            if report.send(Happening::Connected(stream)).is_err() {
                return;
            }
            // Peeking ends with the connection and takes nothing from the reader.
            while let Ok(1..) = watch.peek(&mut [0]) {
                std::thread::sleep(RETRY);
            }
        }
        std::thread::sleep(RETRY);
    }
}

fn accept(listener: &TcpListener, report: &SyncSender<Happening>) {
    while let Ok((stream, _)) = listener.accept() {
        if report.send(Happening::Connected(stream)).is_err() {
            return;
        }
    }
}

fn read_lines(report: &SyncSender<Happening>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if report.send(Happening::Line(line)).is_err() {
            return;
        }
    }
    drop(report.send(Happening::NoMoreLines));
}

/// A number that no other process and no other call has.
pub(crate) fn nonce() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_nanos() as u64);
    nanos ^ (u64::from(std::process::id()) << 40)
}

/// Happenings that wait for the shell; above it the threads that report them wait.
const QUEUE: usize = 256;
/// Pause before the next attempt to connect.
const RETRY: Duration = Duration::from_millis(50);
