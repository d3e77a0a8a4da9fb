//! The driver with real sources, real sinks and a router in memory that answers at once, keeps what it has, and gives
//! deliveries above the cursor again to whoever opens the job.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sheaf_roles::client::Reason;
use sheaf_task::{DeliveredRow, JobCounts, JobOptions, Key, Outcome, RouterId, RowId, SubmitRow};

use super::*;
use crate::config::prepare;
use crate::sink::SinkSpec;
use crate::source::SourceSpec;

/// What the router has on disk.
#[derive(Default)]
struct Journal {
    /// By delivery number, from 1.
    results: Vec<DeliveredRow>,
    /// Numbers of rows.
    rows: BTreeMap<RowId, u64>,
    /// Every execution, as `body#sample`.
    executed: Vec<String>,
    /// Rows that it takes in before it falls silent; the rest lies in its journal.
    silent_after: Option<usize>,
    settled: u64,
}

#[derive(Clone, Default)]
struct Router(Arc<Mutex<Journal>>);

struct FakeLine {
    router: Router,
    events: VecDeque<Event>,
    /// Of each ticket: its last number.
    tickets: Vec<u64>,
    given: usize,
}

impl Router {
    fn line(&self) -> FakeLine {
        FakeLine { router: self.clone(), events: [Event::Up].into(), tickets: Vec::new(), given: 0 }
    }

    fn executed(&self) -> Vec<String> {
        let mut executed = self.0.lock().unwrap().executed.clone();
        executed.sort();
        executed
    }
}

impl Journal {
    fn execute(&mut self, row: SubmitRow) {
        if self.rows.contains_key(&row.row) {
            return;
        }
        let text = String::from_utf8_lossy(&row.body).into_owned();
        self.executed.push(format!("{text}#{}", row.sample));
        let number = self.results.len() as u64 + 1;
        self.rows.insert(row.row, number);
        self.results.push(DeliveredRow {
            number,
            row: row.row,
            key: Key([5; 16]),
            outcome: outcome(&text),
            attempts: 1,
            worker: "w".into(),
            ms: 1,
            cached: false,
        });
    }

    /// An operator's retry: the failed rows have another result, with numbers of their own.
    fn retry(&mut self) {
        for mut result in self.results.clone() {
            if !result.outcome.is_ok() && self.rows[&result.row] == result.number {
                result.number = self.results.len() as u64 + 1;
                result.outcome = Outcome::Ok("retried".into());
                self.rows.insert(result.row, result.number);
                self.results.push(result);
            }
        }
    }
}

fn outcome(text: &str) -> Outcome {
    match text.strip_prefix("bad") {
        Some(why) => Outcome::Failed(Failure::new(Class::Error, why)),
        None => Outcome::Ok(format!("{text}!").into()),
    }
}

impl FakeLine {
    fn deliver_from(&mut self, number: u64) {
        let journal = self.router.0.lock().unwrap();
        let rows: Vec<_> = journal.results.iter().filter(|result| result.number > number).cloned().collect();
        for part in rows.chunks(3) {
            if journal.silent_after.is_some_and(|most| self.given + part.len() > most) {
                return;
            }
            self.given += part.len();
            self.tickets.push(part.last().unwrap().number);
            self.events.push_back(Event::Delivered { ticket: Ticket(self.tickets.len() as u64), rows: part.to_vec() });
        }
    }
}

impl Line for FakeLine {
    async fn next(&mut self) -> Result<Event, LineError> {
        match self.events.pop_front() {
            Some(event) => Ok(event),
            None => std::future::pending().await,
        }
    }

    fn send(&mut self, tag: Option<Tag>, message: ToRouter) {
        match message {
            ToRouter::OpenJob(spec) => {
                let last = self.router.0.lock().unwrap().results.len() as u64;
                let counts = JobCounts { last_number: last, ..JobCounts::default() };
                self.events.push_back(Event::Opened { router: RouterId([4; 16]), cursor: spec.cursor, counts });
                if self.tickets.is_empty() {
                    self.deliver_from(spec.cursor);
                }
            }
            ToRouter::Submit { rows, .. } => {
                let before = self.router.0.lock().unwrap().results.len() as u64;
                rows.into_iter().for_each(|row| self.router.0.lock().unwrap().execute(row));
                self.events.push_back(Event::Acknowledged(tag.unwrap()));
                self.deliver_from(before);
            }
            other => assert!(matches!(other, ToRouter::Scanned { .. })),
        }
    }

    fn commit(&mut self, ticket: Ticket) {
        self.router.0.lock().unwrap().settled = self.tickets[ticket.0 as usize - 1];
    }

    async fn close(self) {}
}

fn config(dir: &Path, out: &str) -> JobConfig {
    JobConfig {
        name: "test".into(),
        source: SourceSpec::new(dir.join("rows.txt")),
        sink: SinkSpec::new(dir.join(out)),
        service: "s".into(),
        revision: "1".into(),
        prompt: None,
        fresh: false,
        share: false,
        limit: None,
        max_failures: None,
        options: JobOptions::default(),
    }
}

async fn run(config: JobConfig, router: &Router) -> Summary {
    let interrupt = Interrupt::default();
    let prepared = prepare(config, &interrupt).unwrap();
    run_job(prepared, router.line(), interrupt, watch::Sender::default()).await.unwrap()
}

/// Runs until the router has given all that it will, and the sink has it; then interrupts.
async fn run_until_silent(config: JobConfig, router: &Router, rows: usize) -> Summary {
    router.0.lock().unwrap().silent_after = Some(rows);
    let interrupt = Interrupt::default();
    let prepared = prepare(config, &interrupt).unwrap();
    let (sender, mut progress) = watch::channel(Progress::default());
    let asked = interrupt.clone();
    let watcher = tokio::spawn(async move {
        progress.wait_for(|now| now.done >= rows as u64 / 3 * 3).await.unwrap();
        asked.ask();
    });
    let summary = run_job(prepared, router.line(), interrupt, sender).await.unwrap();
    watcher.await.unwrap();
    router.0.lock().unwrap().silent_after = None;
    summary
}

fn lines(dir: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(name)).unwrap();
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| {
            let said = line["output"].as_str().or(line["error"]["message"].as_str()).unwrap().to_owned();
            (line["row"].as_u64().unwrap(), said)
        })
        .collect();
    lines.sort();
    lines.into_iter().map(|(row, said)| format!("{row} {said}")).collect()
}

#[tokio::test]
async fn rows_go_in_and_every_answer_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.txt"), "a\nbad luck\na\n").unwrap();
    let router = Router::default();
    let summary = run(config(dir.path(), "o.jsonl"), &router).await;
    assert_eq!(lines(dir.path(), "o.jsonl"), ["1 a!", "2  luck", "3 a!"]);
    assert_eq!(router.executed(), ["a#0", "a#1", "bad luck#0"]);
    assert_eq!(summary.to_string(), "submitted 3 = ok 2 + failed 1 + open 0; lost 0, repeated 0; resumed 0, cached 0");
    assert_eq!((summary.exit_code(), summary.whole), (3, true));
    assert_eq!(router.0.lock().unwrap().settled, 3);
    let again = run(config(dir.path(), "o.jsonl"), &router).await;
    assert_eq!(again.to_string(), "submitted 3 = ok 2 + failed 1 + open 0; lost 0, repeated 0; resumed 3, cached 0");
    assert_eq!((again.exit_code(), router.executed().len()), (3, 3));
}

#[tokio::test]
async fn shared_rows_have_one_sample_and_malformed_rows_are_failed_rows() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.jsonl"), "{\"id\": 1, \"t\": \"a\"}\n{oops\n{\"id\": 2, \"t\": \"a\"}\n").unwrap();
    let router = Router::default();
    let mut shared = config(dir.path(), "o.jsonl");
    shared.source = SourceSpec {
        column: Some("t".into()),
        id: Some("id".into()),
        ..SourceSpec::new(dir.path().join("rows.jsonl"))
    };
    shared.share = true;
    let summary = run(shared, &router).await;
    assert_eq!(router.executed(), ["a#0", "a#0"]);
    assert_eq!((summary.books().failed, summary.ended.audit.ok), (1, 2));
    let text = fs::read_to_string(dir.path().join("o.jsonl")).unwrap();
    assert!(text.contains("{\"row\": 3, \"id\": 2, \"status\": \"ok\""), "{text}");
    assert!(text.contains("\"class\": \"rejected\""), "{text}");
}

#[tokio::test]
async fn an_interrupted_job_resumes_with_what_the_router_has_finished_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..5_000).map(|n| format!("row {n}")).collect();
    fs::write(dir.path().join("rows.txt"), rows.join("\n")).unwrap();
    let router = Router::default();
    let first = run_until_silent(config(dir.path(), "o.jsonl"), &router, 300).await;
    assert_eq!((first.ended.reason.clone(), first.exit_code()), (Reason::Interrupted, 130));
    // Thousands of results lie in the router's journal, and come before their rows have been read again.
    let second = run(config(dir.path(), "o.jsonl"), &router).await;
    assert_eq!(second.ended.reason, Reason::Complete, "{second}");
    assert_eq!(second.ended.audit.resumed, first.ended.audit.ok);
    let expected: Vec<_> = rows.iter().enumerate().map(|(at, row)| format!("{} {row}!", at + 1)).collect();
    let mut found = lines(dir.path(), "o.jsonl");
    found.sort_by_key(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(found, expected);
    assert_eq!(router.executed().len(), 5_000);
    assert_eq!(second.ended.audit.lost, 0);
}

#[tokio::test]
async fn an_operators_retry_brings_failed_rows_their_answers() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.txt"), "a\nbad\nc\n").unwrap();
    let router = Router::default();
    for name in ["o.jsonl", "ordered.jsonl"] {
        let mut config = config(dir.path(), name);
        config.sink.ordered = name == "ordered.jsonl";
        let router = Router::default();
        assert_eq!(run(config.clone(), &router).await.exit_code(), 3);
        router.0.lock().unwrap().retry();
        assert_eq!(run(config.clone(), &router).await.exit_code(), 0);
        assert_eq!(lines(dir.path(), name), ["1 a!", "2 retried", "3 c!"]);
    }
    drop(router);
}

#[tokio::test]
async fn a_limit_is_no_other_job() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.txt"), "a\nb\nc\nd\n").unwrap();
    let router = Router::default();
    let tried = run(JobConfig { limit: Some(2), ..config(dir.path(), "o.jsonl") }, &router).await;
    assert_eq!((tried.whole, lines(dir.path(), "o.jsonl").len()), (false, 2));
    let whole = run(config(dir.path(), "o.jsonl"), &router).await;
    assert_eq!((whole.whole, whole.ended.audit.resumed), (true, 2));
    let narrow = run(JobConfig { limit: Some(1), ..config(dir.path(), "o.jsonl") }, &router).await;
    assert_eq!((narrow.exit_code(), lines(dir.path(), "o.jsonl").len()), (0, 4));
    assert_eq!(router.executed().len(), 4);
}

#[tokio::test]
async fn too_many_failures_stop_a_run_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.txt"), "bad 1\nbad 2\nbad 3\n".repeat(1_000)).unwrap();
    let router = Router::default();
    let stopped = run(JobConfig { max_failures: Some(2), ..config(dir.path(), "o.csv") }, &router).await;
    assert_eq!((stopped.ended.reason.clone(), stopped.exit_code()), (Reason::TooManyFailures, 3));
    let rest = run(config(dir.path(), "o.csv"), &router).await;
    assert_eq!(rest.ended.reason, Reason::Complete);
    let rows = csv::Reader::from_path(dir.path().join("o.csv")).unwrap().into_records().count();
    assert_eq!((rows, rest.books().failed), (3_000, 3_000));
}

#[tokio::test]
async fn an_empty_source_is_a_job_that_is_done() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rows.txt"), "").unwrap();
    let summary = run(config(dir.path(), "o.jsonl"), &Router::default()).await;
    assert_eq!((summary.exit_code(), summary.ended.audit.submitted), (0, 0));
}

#[tokio::test]
async fn sqlite_in_and_out_of_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "create table r (id integer primary key, t text); \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) insert into r select i, 'row ' || i from n",
    )
    .unwrap();
    let mut config = config(dir.path(), "x");
    config.source = SourceSpec { query: Some("select id, t from r".into()), ..SourceSpec::new(&path) };
    config.sink = SinkSpec { table: Some("labels".into()), ..SinkSpec::new(&path) };
    let router = Router::default();
    run_until_silent(config.clone(), &router, 600).await;
    db.execute_batch("update r set t = 'new' where id = 7; delete from r where id = 1").unwrap();
    let summary = run(config, &router).await;
    assert_eq!(summary.ended.reason, Reason::Complete, "{summary}");
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("select count(*) from labels join r using (id) where output = r.t || '!'"), 2_999);
    assert_eq!(count("select count(*) from labels where id = 1"), 1);
    assert_eq!(count("select count(*) from labels"), 3_000);
}

#[tokio::test]
async fn a_row_with_the_id_of_an_earlier_one_is_a_failed_row_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.csv");
    fs::write(&rows, "id,t\n1,a\n2,b\n2,c\n2,c\n3,d\n").unwrap();
    let mut config = config(dir.path(), "x");
    config.source = SourceSpec { column: Some("t".into()), id: Some("id".into()), ..SourceSpec::new(&rows) };
    config.sink = SinkSpec { table: Some("labels".into()), ..SinkSpec::new(dir.path().join("a.db")) };
    let router = Router::default();
    let db = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let found = || {
        let sql = "select status || ' ' || coalesce(output, error_class) from labels order by row";
        let mut statement = db.prepare(sql).unwrap();
        let found = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        found.collect::<Result<Vec<_>, _>>().unwrap()
    };
    for _ in 0..2 {
        let books = run(config.clone(), &router).await.books();
        assert_eq!((books.submitted, books.ok, books.failed), (5, 3, 2));
        assert_eq!(found(), ["ok a!", "ok b!", "failed rejected", "failed rejected", "ok d!"]);
        assert_eq!(router.executed(), ["a#0", "b#0", "d#0"]);
    }
    // Once the earlier row is gone, the later one is worked on.
    fs::write(&rows, "id,t\n1,a\n2,c\n3,d\n").unwrap();
    assert_eq!(run(config, &router).await.exit_code(), 0);
    assert_eq!(router.executed(), ["a#0", "b#0", "c#0", "d#0"]);
}
