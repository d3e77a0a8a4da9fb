//! One behaviour a test: events in, the outputs in short words out.

use bytes::Bytes;
use sheaf_session::Micros;
use sheaf_task::{
    BATCH_BYTES_AIM, BODY_BYTES_MAX, Class, DeliveredRow, Failure, JobCounts, JobId, JobOptions, JobSpec, Key, Outcome,
    Refusal, RouterId, RowId, ToRouter,
};

use super::{Client, Config, Cursor, Event, Kept, Output, ScannedRow, Tag, Ticket, WriteId, WriteRow};

const ROUTER: RouterId = RouterId([1; 16]);

fn id(n: u64) -> RowId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    RowId(bytes)
}

fn number(row: &RowId) -> String {
    row.0[0].to_string()
}

fn config(cursor: u64) -> Config {
    let spec = JobSpec {
        job: JobId([2; 16]),
        name: "j".into(),
        service: "s".into(),
        revision: "r".into(),
        nonce: Bytes::new(),
        cursor,
        cursor_router: (cursor > 0).then_some(ROUTER),
        options: JobOptions::default(),
    };
    Config { spec, failures_max: None, collects: false }
}

fn write_word(rows: &[WriteRow]) -> String {
    let one = |row: &WriteRow| format!("{}{}", row.number, if row.outcome.is_ok() { "" } else { "!" });
    rows.iter().map(one).collect::<Vec<_>>().join(",")
}

fn word(output: Output) -> String {
    match output {
        Output::Read { .. } => "read".into(),
        Output::Rewind => "rewind".into(),
        Output::Send { message: ToRouter::OpenJob(spec), .. } => format!("open {}", spec.cursor),
        Output::Send { message: ToRouter::Submit { rows, .. }, tag } => {
            let rows: Vec<String> = rows.iter().map(|row| number(&row.row)).collect();
            format!("submit#{} {}", tag.unwrap().0, rows.join(","))
        }
        Output::Send { message: ToRouter::Scanned { .. }, .. } => "scanned".into(),
        Output::Send { message, .. } => format!("{message:?}"),
        Output::Write { id, rows, cursor } => {
            let cursor = cursor.map_or("-".into(), |Cursor { number, .. }| number.to_string());
            format!("write#{} {} to {cursor}", id.0, write_word(&rows))
        }
        Output::Commit(ticket) => format!("commit {}", ticket.0),
        Output::Done(ended) => {
            let a = ended.audit;
            let books = format!("{}={}+{}+{}", a.submitted, a.ok, a.failed, a.open);
            format!("done {:?} {books} lost {} repeated {}", ended.reason, a.lost, a.repeated)
        }
    }
}

struct Play {
    client: Client,
    now: Micros,
}

impl Play {
    fn new(config: Config) -> Self {
        Self { client: Client::new(config), now: Micros::ZERO }
    }

    #[track_caller]
    fn check(&mut self, events: impl IntoIterator<Item = Event>, want: &str) {
        events.into_iter().for_each(|event| self.client.handle(self.now, event));
        let mut words = Vec::new();
        while let Some(output) = self.client.poll(self.now) {
            words.push(word(output));
        }
        assert_eq!(words.join("; "), want);
    }

    /// Rows 1 to `rows` read and acknowledged, the source at its end.
    fn submitted(config: Config, rows: u64) -> Self {
        let mut play = Self::new(config);
        let cursor = play.client.config.spec.cursor;
        let numbers: Vec<u64> = (1..=rows).collect();
        let events = [Event::Up, opened(cursor, JobCounts::default()), scanned(&numbers), Event::SourceEnd];
        events.into_iter().for_each(|event| play.client.handle(play.now, event));
        while play.client.poll(play.now).is_some() {}
        play.check([Event::Acknowledged(Tag(1))], "scanned");
        play
    }
}

fn opened(cursor: u64, counts: JobCounts) -> Event {
    Event::Opened { router: ROUTER, cursor, counts }
}

fn closed_counts(last_number: u64) -> JobCounts {
    JobCounts { last_number, ..JobCounts::default() }
}

fn closed(last_number: u64) -> Event {
    opened(0, closed_counts(last_number))
}

fn scanned(numbers: &[u64]) -> Event {
    let one = |n: &u64| ScannedRow { number: *n, row: id(*n), sample: 0, body: Ok(Bytes::from_static(b"b")) };
    Event::Scanned { rows: numbers.iter().map(one).collect(), kept: Kept::default() }
}

fn delivered(ticket: u64, rows: &[(u64, u64)]) -> Event {
    let one = |(number, row): &(u64, u64)| DeliveredRow {
        number: *number,
        row: id(*row),
        key: Key::default(),
        outcome: Outcome::Ok(Bytes::new()),
        attempts: 1,
        worker: "w".into(),
        ms: 1,
        cached: false,
    };
    Event::Delivered { ticket: Ticket(ticket), rows: rows.iter().map(one).collect() }
}

fn failed(ticket: u64, number: u64, row: u64) -> Event {
    let Event::Delivered { ticket, mut rows } = delivered(ticket, &[(number, row)]) else { unreachable!() };
    rows[0].outcome = Outcome::Failed(Failure::new(Class::Rejected, "no"));
    Event::Delivered { ticket, rows }
}

#[test]
fn rows_go_out_and_come_back_once() {
    let mut play = Play::new(config(0));
    play.check([], "read");
    play.check([Event::Up], "open 0");
    play.check([scanned(&[1, 2])], "read");
    play.check([opened(0, JobCounts::default())], "submit#1 1,2");
    play.check([scanned(&[3])], "submit#2 3; read");
    play.check([Event::SourceEnd], "");
    play.check([Event::Acknowledged(Tag(2))], "scanned");
    play.check([delivered(1, &[(1, 2), (2, 1)])], "write#1 2,1 to 2");
    play.check([Event::Written(WriteId(1))], "commit 1");
    play.check([delivered(2, &[(3, 3)])], "write#2 3 to 3");
    play.check([Event::Written(WriteId(2))], "commit 2; open 3");
    play.check([closed(3)], "done Complete 3=3+0+0 lost 0 repeated 0");
    play.check([Event::Tick, Event::Interrupt], "");
}

#[test]
fn the_session_commits_only_what_the_sink_has() {
    let mut play = Play::submitted(config(0), 9);
    play.check([delivered(1, &[(1, 1)])], "write#1 1 to 1");
    play.check([delivered(2, &[(2, 2)])], "write#2 2 to 2");
    play.check([delivered(3, &[(3, 3)])], "write#3 3 to 3");
    play.check([delivered(4, &[(4, 4)])], "write#4 4 to 4");
    // No more at once: what comes now is written together.
    play.check([delivered(5, &[(5, 5)]), delivered(6, &[(6, 6)])], "");
    play.check([Event::Written(WriteId(2))], "commit 2; write#5 5,6 to 6");
    play.check([Event::Written(WriteId(5))], "commit 6");
}

#[test]
fn what_comes_again_is_not_written_again() {
    let mut play = Play::submitted(config(0), 3);
    play.check([delivered(1, &[(1, 1), (2, 2)])], "write#1 1,2 to 2");
    // The router begins again at its cursor; the sink is still at work.
    play.check([delivered(2, &[(1, 1)]), delivered(3, &[(2, 2)])], "");
    play.check([Event::Written(WriteId(1))], "commit 3");
    play.check([delivered(4, &[(2, 2)])], "commit 4");
    play.check([delivered(5, &[(3, 2)])], "write#2  to 3");
    assert_eq!((play.client.audit().repeated, play.client.audit().stale), (0, 1));
}

#[test]
fn a_row_that_is_gone_counts_and_is_not_written() {
    let mut play = Play::submitted(config(4), 1);
    play.check([delivered(1, &[(4, 8), (5, 9), (6, 1)])], "write#1 1 to 6");
    assert_eq!(play.client.audit().stale, 1);
}

#[test]
fn a_result_that_comes_before_its_row_is_read_waits_for_it() {
    let mut play = Play::new(config(1));
    play.check([Event::Up, opened(1, JobCounts::default())], "open 1; read");
    play.check([delivered(1, &[(2, 7)])], "");
    play.check([scanned(&[7])], "write#1 7 to 2; submit#1 7; read");
}

#[test]
fn a_left_out_number_ends_the_run() {
    let mut play = Play::submitted(config(0), 3);
    play.check([delivered(1, &[(1, 1)]), delivered(2, &[(3, 3)])], "write#1 1 to 1");
    play.check([Event::Written(WriteId(1))], "commit 1; done Gap { after: 1, got: 3 } 3=1+0+2 lost 0 repeated 0");
}

#[test]
fn refused_rows_are_read_and_submitted_again() {
    let mut play = Play::submitted(config(0), 3);
    let rows = vec![id(2), id(3)];
    play.check([Event::RowsRefused { rows, refusal: Refusal::Busy { retry_ms: 100 } }], "");
    assert_eq!(play.client.deadline(), Some(Micros::from_ms(100)));
    play.now = Micros::from_ms(100);
    play.check([Event::Tick], "rewind; read");
    play.check([scanned(&[1, 2])], "submit#2 2; read");
    // Row 3 is not in the source any more. With the new rows the router took back that it knows all: it is said again.
    play.check([Event::SourceEnd, Event::Acknowledged(Tag(2))], "scanned");
    play.check([delivered(1, &[(1, 1), (2, 2)])], "write#1 1,2 to 2");
    play.check([Event::Written(WriteId(1))], "commit 1; open 2");
    play.check([closed(2)], "done Complete 3=2+0+1 lost 0 repeated 0");
}

#[test]
fn a_router_with_another_journal_gets_everything_that_is_open() {
    let mut play = Play::submitted(config(0), 2);
    play.check([delivered(1, &[(1, 1)])], "write#1 1 to 1");
    play.check([Event::Written(WriteId(1)), Event::Down, Event::Up], "commit 1; open 1");
    let other = Event::Opened { router: RouterId([3; 16]), cursor: 0, counts: JobCounts::default() };
    play.check([other], "rewind; read");
    play.check([scanned(&[1, 2]), Event::SourceEnd], "submit#2 2");
    play.check([Event::Acknowledged(Tag(2)), delivered(2, &[(1, 2)])], "write#2 2 to 1; scanned");
}

#[test]
fn rows_that_can_be_no_task_fail_here() {
    let mut play = Play::new(config(0));
    play.check([Event::Up, opened(0, JobCounts::default())], "open 0; read");
    let row = |n, body| ScannedRow { number: n, row: id(n), sample: 0, body };
    let rows = vec![
        row(1, Err(Failure::new(Class::Rejected, "no JSON"))),
        row(2, Ok(Bytes::from(vec![0; BODY_BYTES_MAX + 1]))),
    ];
    play.check([Event::Scanned { rows, kept: Kept::default() }, Event::SourceEnd], "write#1 1!,2! to -; scanned");
    play.check([Event::Written(WriteId(1))], "open 0");
    play.check([closed(0)], "done Complete 2=0+2+0 lost 0 repeated 0");
}

#[test]
fn a_retried_row_is_waited_for_and_replaces_its_failure() {
    let mut play = Play::submitted(config(0), 1);
    play.check([failed(1, 1, 1)], "write#1 1! to 1");
    play.check([Event::Written(WriteId(1))], "commit 1; open 1");
    play.check([opened(1, JobCounts { open: 1, last_number: 1, ..JobCounts::default() })], "");
    play.check([delivered(2, &[(2, 1)])], "write#2 1 to 2");
    play.check([Event::Written(WriteId(2))], "commit 2; open 2");
    play.check([closed(2)], "done Complete 1=1+0+0 lost 0 repeated 0");
}

#[test]
fn a_row_that_failed_in_an_earlier_run_may_get_its_answer() {
    let mut play = Play::new(config(5));
    let kept = Kept { rows: 7, failed: vec![(id(3), 3)] };
    play.check([Event::Up, opened(5, JobCounts::default())], "open 5; read");
    play.check([Event::Scanned { rows: Vec::new(), kept }], "read");
    play.check([Event::SourceEnd, delivered(1, &[(6, 3)])], "write#1 3 to 6; scanned");
    let audit = play.client.audit();
    assert_eq!((audit.submitted, audit.ok, audit.resumed, audit.resumed_failed), (1, 1, 6, 0));
}

#[test]
fn interrupted_it_waits_for_the_sink_only() {
    let mut play = Play::submitted(config(0), 3);
    play.check([delivered(1, &[(1, 1)])], "write#1 1 to 1");
    play.check([Event::Interrupt, delivered(2, &[(2, 2)])], "");
    play.check([Event::Written(WriteId(1))], "commit 1; done Interrupted 3=1+0+2 lost 0 repeated 0");
}

#[test]
fn too_many_failures_end_the_run() {
    let mut play = Play::submitted(Config { failures_max: Some(0), ..config(0) }, 2);
    play.check([failed(1, 1, 1)], "write#1 1! to 1");
    play.check([Event::Written(WriteId(1))], "commit 1; done TooManyFailures 2=0+1+1 lost 0 repeated 0");
}

#[test]
fn what_the_router_lost_is_submitted_again_and_then_counted() {
    let mut play = Play::submitted(config(0), 1);
    play.now = Micros::from_secs(5);
    play.check([Event::Tick], "open 0");
    play.check([closed(0)], "rewind; read");
    play.check([scanned(&[1]), Event::SourceEnd], "submit#2 1");
    play.check([Event::Acknowledged(Tag(2))], "scanned");
    play.now = Micros::from_secs(10);
    play.check([Event::Tick], "open 0");
    play.check([closed(0)], "done Complete 1=0+0+1 lost 1 repeated 0");
}

#[test]
fn an_answer_to_an_earlier_question_ends_nothing() {
    let mut play = Play::submitted(config(0), 2);
    play.now = Micros::from_secs(5);
    play.check([Event::Tick], "open 0");
    play.check([delivered(1, &[(1, 1)])], "write#1 1 to 1");
    play.check([Event::Written(WriteId(1))], "commit 1");
    play.now = Micros::from_secs(10);
    play.check([Event::Tick], "open 1");
    play.check([closed(1)], "");
    play.check([closed(1)], "rewind; read");
}

#[test]
fn a_message_takes_rows_up_to_a_number_of_bytes_and_one_at_least() {
    let row = |n: u64, len: usize| ScannedRow { number: n, row: id(n), sample: 0, body: Ok(vec![b'b'; len].into()) };
    let mut play = Play::new(config(0));
    play.check([Event::Up, opened(0, JobCounts::default())], "open 0; read");
    let rows = vec![row(1, 2_000), row(2, 2_000), row(3, 2_000)];
    play.check([Event::Scanned { rows, kept: Kept::default() }], "submit#1 1,2,3; read");
    let rows = vec![row(4, BATCH_BYTES_AIM - 10), row(5, 11), row(6, BATCH_BYTES_AIM * 2), row(7, 1)];
    play.check(
        [Event::Scanned { rows, kept: Kept::default() }],
        "submit#2 4; submit#3 5; submit#4 6; submit#5 7; read",
    );
}

#[test]
fn a_submission_names_the_cursor_that_the_router_said_last() {
    let mut play = Play::new(config(3));
    let submitted = |play: &mut Play, n: u64| {
        play.client.handle(play.now, scanned(&[n]));
        let outputs: Vec<Output> = std::iter::from_fn(|| play.client.poll(play.now)).collect();
        outputs.into_iter().find_map(|output| match output {
            Output::Send { message: ToRouter::Submit { cursor, .. }, .. } => Some(cursor),
            _ => None,
        })
    };
    play.check([Event::Up, opened(5, JobCounts::default())], "open 3; read");
    assert_eq!(submitted(&mut play, 1), Some(5));
    // The sink was restored from an older copy, and its rows are new numbers to the router.
    play.check([Event::Down, Event::Up, opened(7, JobCounts::default())], "open 5");
    assert_eq!(submitted(&mut play, 2), Some(7));
    play.check([Event::Down, Event::Up, opened(6, JobCounts::default())], "open 7");
    assert_eq!(submitted(&mut play, 3), Some(7), "the sink has seven");
}

#[test]
fn a_job_that_is_refused_for_good_ends_the_run() {
    let mut play = Play::submitted(config(0), 1);
    play.check([delivered(1, &[(1, 1)])], "write#1 1 to 1");
    play.check([Event::JobRefused(Refusal::OtherJob)], "");
    play.check([Event::Written(WriteId(1))], "commit 1; done Refused(OtherJob) 1=1+0+0 lost 0 repeated 0");
}

#[test]
fn answers_that_the_router_had_already_are_counted() {
    let mut play = Play::submitted(config(0), 2);
    let Event::Delivered { ticket, mut rows } = delivered(1, &[(1, 1), (2, 2)]) else { unreachable!() };
    rows[0].cached = true;
    play.check([Event::Delivered { ticket, rows }], "write#1 1,2 to 2");
    assert_eq!((play.client.audit().ok, play.client.audit().cached), (2, 1));
}

#[test]
fn in_a_second_pass_a_row_that_nobody_knows_is_not_waited_for() {
    let mut play = Play::submitted(config(0), 2);
    let rows = vec![id(2)];
    play.check([Event::RowsRefused { rows, refusal: Refusal::Busy { retry_ms: 0 } }, Event::Tick], "rewind; read");
    play.check([delivered(1, &[(1, 9), (2, 1)])], "write#1 1 to 2");
    assert_eq!(play.client.audit().stale, 1);
}

#[test]
fn of_a_cancelled_job_everything_is_brought_in_before_the_run_ends() {
    // Also where failures would end it: what was withdrawn is no reason to leave what was finished.
    for failures_max in [None, Some(0)] {
        let mut play = Play::new(Config { failures_max, ..config(0) });
        play.check([Event::Up, opened(0, JobCounts::default())], "open 0; read");
        play.check([scanned(&[1, 2]), delivered(1, &[(1, 1)])], "write#1 1 to 1; submit#1 1,2; read");
        let rows = vec![id(1), id(2)];
        let refused = Event::RowsRefused { rows, refusal: Refusal::Cancelled };
        // What else is in the source is read, for an answer to it may be on its way; nothing of it is submitted.
        play.check([refused, Event::Acknowledged(Tag(1)), scanned(&[3, 4])], "read");
        let counts = JobCounts { last_number: 3, open: 1, ..JobCounts::default() };
        play.check([Event::SourceEnd, Event::Progress(counts)], "scanned");
        play.check([Event::Written(WriteId(1))], "commit 1");
        play.check([delivered(2, &[(2, 3)]), failed(3, 3, 4)], "write#2 3,4! to 3");
        play.check([Event::Progress(closed_counts(3)), Event::Written(WriteId(2))], "commit 3; open 3");
        play.check([closed(3)], "done Refused(Cancelled) 4=2+1+1 lost 0 repeated 0");
    }
}

#[test]
fn whoever_collects_submits_nothing() {
    let mut play = Play::new(Config { collects: true, ..config(0) });
    play.check([Event::Up, opened(0, closed_counts(1))], "open 0; read");
    play.check([scanned(&[1, 2]), Event::SourceEnd], "scanned");
    play.check([delivered(1, &[(1, 1)])], "write#1 1 to 1");
    play.check([Event::Written(WriteId(1))], "commit 1; open 1");
    // Its session is lost, and what it knew of the router: it still submits nothing.
    play.check([Event::Down, Event::Lost, Event::Up], "open 1");
    play.check([opened(1, closed_counts(2))], "scanned");
    play.check([delivered(1, &[(2, 2)])], "write#2 2 to 2");
    play.check([Event::Written(WriteId(2))], "commit 1; open 2");
    play.check([closed(2)], "done Complete 2=2+0+0 lost 0 repeated 0");
}
