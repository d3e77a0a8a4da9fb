//! Every source through the same scan: rows in, `number id body` lines out.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use sheaf_task::BODY_BYTES_MAX;

use super::*;

fn scan_with(source: &mut dyn Source, rows_max: usize) -> Vec<SourceRow> {
    let mut rows = Vec::new();
    loop {
        let before = rows.len();
        source.next_batch(rows_max, 1 << 20, &mut rows).unwrap();
        if rows.len() == before {
            return rows;
        }
    }
}

fn show(rows: &[SourceRow]) -> Vec<String> {
    rows.iter()
        .map(|row| {
            let id = match &row.id {
                None => String::new(),
                Some(SourceId::Int(number)) => format!(" #{number}"),
                Some(SourceId::Text(text)) => format!(" {text:?}"),
            };
            match &row.body {
                Ok(body) => format!("{}{id} {}", row.number, String::from_utf8_lossy(body)),
                Err(malformed) => format!("{}{id} !{}", row.number, malformed.message),
            }
        })
        .collect()
}

/// Scans thrice, with batches of different size: every scan must yield the same.
fn check(name: &str, content: &[u8], options: impl Fn(&mut SourceSpec), expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = SourceSpec::new(dir.path().join(name));
    fs::write(&spec.path, content).unwrap();
    options(&mut spec);
    let mut source = open(&spec, dir.path()).unwrap();
    for rows_max in [1, 2, 1000] {
        assert_eq!(show(&scan_with(&mut *source, rows_max)), expected, "{name}, batches of {rows_max}");
        source.rewind().unwrap();
    }
}

fn error(name: &str, content: &[u8], options: impl Fn(&mut SourceSpec)) -> SourceError {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = SourceSpec::new(dir.path().join(name));
    fs::write(&spec.path, content).unwrap();
    options(&mut spec);
    open(&spec, dir.path()).err().unwrap()
}

fn named(column: &'static str, id: &'static str) -> impl Fn(&mut SourceSpec) {
    move |spec| {
        spec.column = (!column.is_empty()).then(|| column.to_owned());
        spec.id = (!id.is_empty()).then(|| id.to_owned());
    }
}

#[test]
fn text_is_a_row_a_line() {
    check("a.txt", b"one\ntwo\n", |_| {}, &["1 one", "2 two"]);
    check("a.txt", b"one\r\ntwo\r\n", |_| {}, &["1 one", "2 two"]);
    check("a.txt", b"\xef\xbb\xbfone\ntwo, half wri", |_| {}, &["1 one", "2 two, half wri"]);
    check("a.txt", b"one\n\n\ntwo\n\n\n", |_| {}, &["1 one", "2 ", "3 ", "4 two"]);
    check("a.txt", b"", |_| {}, &[]);
    check("a.txt", b"\n\n", |_| {}, &[]);
    check("a", b"\xff\xfe\n", |_| {}, &["1 \u{fffd}\u{fffd}"]);
}

#[test]
fn an_overlong_line_is_one_failed_row_and_the_longest_is_none() {
    let mut content = vec![b'x'; BODY_MAX + 1];
    content.extend_from_slice(b"\nsmall\n");
    check("a.txt", &content, |_| {}, &["1 !line 1 is 1048577 bytes long; a row may have 1048576", "2 small"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    fs::write(&path, [vec![b'x'; BODY_MAX], b"\r\n".to_vec(), vec![b'y'; BODY_MAX]].concat()).unwrap();
    let rows = scan_with(&mut *open(&SourceSpec::new(&path), dir.path()).unwrap(), 10);
    assert!(rows.iter().all(|row| row.body.as_ref().unwrap().len() == BODY_MAX));
    assert_eq!(rows.len(), 2);
}

const BODY_MAX: usize = sheaf_task::BODY_BYTES_MAX;

#[test]
fn a_line_of_gigabytes_is_skipped_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"first\n").unwrap();
    // A hole: zeros that take no room on disk.
    file.seek(SeekFrom::Current(256 << 20)).unwrap();
    file.write_all(b"\nlast").unwrap();
    let rows = scan_with(&mut *open(&SourceSpec::new(&path), dir.path()).unwrap(), 10);
    assert_eq!(rows.len(), 3);
    assert!(rows[1].body.is_err());
    assert_eq!(rows[2].body.as_ref().unwrap(), "last");
}

#[test]
fn jsonl_takes_the_line_or_a_field() {
    let lines = b"{\"id\": 7, \"text\": \"a\\nb\"}\n\n  [1, 2] \n{\"id\": \"x\", \"text\": {\"k\": 1}}";
    check(
        "a.jsonl",
        lines,
        |_| {},
        &["1 {\"id\": 7, \"text\": \"a\\nb\"}", "3 [1, 2]", "4 {\"id\": \"x\", \"text\": {\"k\": 1}}"],
    );
    check(
        "a.ndjson",
        lines,
        named("text", "id"),
        &["1 #7 a\nb", "3 !line 3: it is no JSON object, so it has no field \"id\"", "4 \"x\" {\"k\": 1}"],
    );
}

#[test]
fn a_field_that_is_no_string_keeps_its_bytes() {
    let lines = b"{\"b\": {\"z\": 1e3, \"a\":12345678901234567890123, \"a\": \"\\u00e9\"}}\n{\"b\": \"\\u00e9\"}";
    check(
        "a.jsonl",
        lines,
        named("b", ""),
        &["1 {\"z\": 1e3, \"a\":12345678901234567890123, \"a\": \"\\u00e9\"}", "2 é"],
    );
}

#[test]
fn a_malformed_json_line_costs_only_itself() {
    check(
        "a.jsonl",
        b"{\"a\": 1}\n{oops\n{\"a\": \"\xff\"}\n{\"a\": 1} x\n{\"a\": null}\n{\"a\": 3}",
        named("a", ""),
        &[
            "1 1",
            "2 !line 2: invalid JSON at column 2: key must be a string",
            "3 !line 3: invalid UTF-8 at byte 8",
            "4 !line 4: invalid JSON at column 10: trailing characters",
            "5 !line 5: it has no value in field \"a\", which --column names",
            "6 3",
        ],
    );
}

#[test]
fn csv_becomes_objects_or_a_field() {
    let file = b"id,text\r\n1,plain\r\n2,\"two\r\nlines, \"\"quoted\"\"\"\r\n\r\n3,a\"b\r\n";
    check(
        "a.csv",
        file,
        |_| {},
        &[
            "1 {\"id\":\"1\",\"text\":\"plain\"}",
            "2 {\"id\":\"2\",\"text\":\"two\\r\\nlines, \\\"quoted\\\"\"}",
            "3 {\"id\":\"3\",\"text\":\"a\\\"b\"}",
        ],
    );
    check("a.csv", file, named("text", "id"), &["1 \"1\" plain", "2 \"2\" two\r\nlines, \"quoted\"", "3 \"3\" a\"b"]);
    check("a.tsv", b"a\tb\n1\t2", |_| {}, &["1 {\"a\":\"1\",\"b\":\"2\"}"]);
    check("a.csv", b"", |_| {}, &[]);
    check("a.csv", b"a,b\n", |_| {}, &[]);
}

/// A row that began with a byte order mark lost it when it was the first of a batch, and so had another name each time.
#[test]
fn a_byte_order_mark_is_taken_off_a_file_and_never_off_a_row() {
    check(
        "a.csv",
        b"\xef\xbb\xbfa\n1\n\xef\xbb\xbf\n\xef\xbb\xbf2\n",
        named("a", ""),
        &["1 1", "2 \u{feff}", "3 \u{feff}2"],
    );
}

#[test]
fn a_bad_csv_record_costs_only_itself() {
    check(
        "a.csv",
        b"a,b\n1,2\n3\n4,5,6\n7,\xff\n8,9\n",
        |_| {},
        &[
            "1 {\"a\":\"1\",\"b\":\"2\"}",
            "2 !line 3 has 1 fields; the header has 2",
            "3 !line 4 has 3 fields; the header has 2",
            "4 !line 5: invalid UTF-8 in column \"b\"",
            "5 {\"a\":\"8\",\"b\":\"9\"}",
        ],
    );
    check(
        "a.csv",
        b"a,b\n1,\"open\n2,x\n3,y\n",
        |_| {},
        &["1 !line 2 opens a quote that nothing closes", "2 {\"a\":\"2\",\"b\":\"x\"}", "3 {\"a\":\"3\",\"b\":\"y\"}"],
    );
}

#[test]
fn a_csv_record_that_is_too_long_is_one_row_and_a_stray_quote_costs_one_line() {
    // How many rows there are, and how many of them cannot be worked on.
    let count = |content: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let spec = SourceSpec::new(dir.path().join("a.csv"));
        fs::write(&spec.path, content).unwrap();
        let mut source = open(&spec, dir.path()).unwrap();
        let rows = scan_with(&mut *source, 3);
        source.rewind().unwrap();
        assert!(scan_with(&mut *source, 100) == rows);
        (rows.len(), rows.iter().filter(|row| row.body.is_err()).count())
    };
    let lines = "x \"\"y\"\"\r\n".repeat(150_000);
    let one_line = "x".repeat(BODY_BYTES_MAX + 1);
    let end = "1,2\n3,4\n";
    for long in [&lines, &one_line, &format!("{one_line}\n{one_line}")] {
        for ending in ["\n", "\r\n"] {
            let file = format!("a,b\n0,0\n7,\"{long}\"{ending}{end}");
            assert_eq!(count(file.as_bytes()), (4, 1));
            assert_eq!(count(file.trim_end_matches(&format!("{ending}{end}")).as_bytes()), (2, 1));
        }
    }
    // The next quote opens a field: it does not close the stray one.
    let stray = format!("a,b\n7,\"stray\n{}1,\"good\"\n", "1,2\n".repeat(300_000));
    assert_eq!(count(stray.as_bytes()), (300_002, 1));
}

#[test]
fn a_name_that_is_not_there_is_refused_with_those_that_are() {
    let existing = |error| match error {
        SourceError::UnknownColumn { existing, .. } => existing,
        other => panic!("{other}"),
    };
    assert_eq!(existing(error("a.csv", b"x,y\n", named("z", ""))), ["x", "y"]);
    assert_eq!(existing(error("a.jsonl", b"nope\n{\"x\": 1}\n", named("", "z"))), ["x"]);
    assert!(matches!(error("a.txt", b"x", named("z", "")), SourceError::NoColumns { .. }));
    assert!(matches!(error("a.csv", b"x,x\n", |_| {}), SourceError::Header { reason: HeaderFault::Twice(_), .. }));
    assert!(matches!(error("a.db", b"", |_| {}), SourceError::NeedsQuery { .. }));
    let missing = open(&SourceSpec::new("/nonexistent/a.txt"), Path::new("/tmp"));
    assert!(matches!(missing.err().unwrap(), SourceError::Io { .. }));
}

fn check_query(setup: &str, query: &str, options: impl Fn(&mut SourceSpec), expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = SourceSpec::new(dir.path().join("a.db"));
    rusqlite::Connection::open(&spec.path).unwrap().execute_batch(setup).unwrap();
    spec.query = Some(query.to_owned());
    options(&mut spec);
    let mut source = open(&spec, dir.path()).unwrap();
    for rows_max in [1, 2, 1000] {
        assert_eq!(show(&scan_with(&mut *source, rows_max)), expected, "{query}, batches of {rows_max}");
        source.rewind().unwrap();
    }
}

const REVIEWS: &str = "create table r(id, text, stars); \
    insert into r values (3, 'c', 5), (1, 'a', null), (null, 'n', 1), ('k', x'ff', 2), (1, 'b', 0), (null, 'm', 2)";

#[test]
fn a_query_is_paged_by_id_whatever_the_ids_are() {
    check_query(
        REVIEWS,
        "select id, text from r;",
        |_| {},
        &["1 m", "2 n", "3 #1 a", "4 #1 b", "5 #3 c", "6 \"k\" \u{fffd}"],
    );
    check_query(
        REVIEWS,
        "select * from r where stars > 1 limit 5",
        |_| {},
        &[
            "1 {\"text\":\"m\",\"stars\":2}",
            "2 #3 {\"text\":\"c\",\"stars\":5}",
            "3 \"k\" !row 3 (id \"k\"): column \"text\" is not UTF-8",
        ],
    );
    check_query(
        REVIEWS,
        "select id, stars from r where id = 1",
        |_| {},
        &["1 #1 !row 1 (id 1): column \"stars\" is NULL", "2 #1 0"],
    );
    check_query(REVIEWS, "select id from r where id = 3", |_| {}, &["1 #3 3"]);
}

#[test]
fn a_query_without_an_id_keeps_its_order() {
    check_query(
        REVIEWS,
        "select text from r where stars > 1 order by stars desc",
        |_| {},
        &["1 c", "2 \u{fffd}", "3 m"],
    );
    check_query(REVIEWS, "select stars as id, text from r where stars = 5", named("text", "id"), &["1 #5 c"]);
}

#[test]
fn what_is_no_query_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch(REVIEWS).unwrap();
    let tried = |query: &str, column: Option<&str>| {
        let mut spec = SourceSpec::new(&path);
        spec.query = Some(query.to_owned());
        spec.column = column.map(str::to_owned);
        open(&spec, dir.path()).err().unwrap()
    };
    assert!(matches!(tried("delete from r", None), SourceError::NotAQuery));
    assert!(matches!(tried("select 1; select 2", None), SourceError::NotAQuery));
    assert!(matches!(tried("select ?1", None), SourceError::NotAQuery));
    assert!(matches!(tried("select * from nowhere", None), SourceError::Sql { .. }));
    assert!(matches!(tried("select * from r", Some("nope")), SourceError::UnknownColumn { .. }));
}

#[test]
fn standard_input_is_copied_and_an_empty_one_takes_up_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stdin");
    spool::copy(&mut b"one\ntwo\n".as_slice(), &path).unwrap();
    spool::copy(&mut b"".as_slice(), &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
}

#[test]
fn any_bytes_are_the_same_rows_whatever_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = sheaf_session::Rng::new(11);
    for round in 0..600 {
        let len = rng.below(60);
        let content: Vec<u8> = (0..len).map(|_| b"ab,\"\"\n\n\r{}:\xff"[rng.below(12) as usize]).collect();
        for name in ["a.csv", "a.jsonl", "a.txt"] {
            let path = dir.path().join(name);
            let header: &[u8] = if name == "a.csv" { b"x,y\n" } else { b"" };
            fs::write(&path, [header, &content].concat()).unwrap();
            let mut source = open(&SourceSpec::new(&path), dir.path()).unwrap();
            let whole = scan_with(&mut *source, 1000);
            source.rewind().unwrap();
            assert_eq!(
                scan_with(&mut *source, 1),
                whole,
                "round {round}, {name}: {:?}",
                content.escape_ascii().to_string()
            );
        }
    }
}
