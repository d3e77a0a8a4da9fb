use super::*;

const K: u64 = RECORD_BYTES;

fn entry(bytes: u64, expires_at: Option<u64>) -> Entry {
    Entry { bytes, expires_at, purpose: Some(Purpose::Batch) }
}

#[test]
fn bytes_are_those_of_files_and_of_what_is_being_written() {
    let books = Arc::new(Books::default());
    let mut held = Held::none(&books, "a".into());
    held.grow(5 * K);
    held.grow(2 * K);
    assert_eq!((books.bytes("a"), books.bytes("b")), (7 * K, 0));
    books.insert("a", 1, entry(7 * K, None));
    drop(held);
    books.insert("a", 1, entry(8 * K, None));
    books.insert("a", 2, entry(2 * K, None));
    assert_eq!(books.bytes("a"), 10 * K, "a file that is there again counts once");
    books.remove("a", 1);
    books.remove("a", 1);
    assert_eq!(books.bytes("a"), 2 * K);
}

#[test]
fn a_file_without_content_takes_room_too() {
    let books = Books::default();
    for number in 0..3 {
        books.insert("a", number, entry(number as u64, None));
    }
    assert_eq!(books.bytes("a"), 3 * K);
    (0..3).for_each(|number| books.remove("a", number));
    assert_eq!(books.bytes("a"), 0);
}

#[test]
fn an_input_counts_once_until_the_last_batch_that_reads_it_is_over() {
    let books = Arc::new(Books::default());
    let hold = || HeldInput::new(&books, "a".into(), 1, 7 * K);
    books.insert("a", 1, entry(7 * K, None));
    let (first, second) = (hold(), hold());
    assert_eq!(books.bytes("a"), 7 * K, "it is its file");
    books.remove("a", 1);
    assert_eq!(books.bytes("a"), 7 * K, "it is there still, under another name");
    drop(first);
    assert_eq!(books.bytes("a"), 7 * K);
    drop(second);
    assert_eq!(books.bytes("a"), 0);
    // As at a start, where its file went before.
    let again = hold();
    assert_eq!(books.bytes("a"), 7 * K);
    books.insert("a", 1, entry(7 * K, None));
    assert_eq!(books.bytes("a"), 7 * K);
    drop(again);
    assert_eq!(books.bytes("a"), 7 * K, "the file stays");
}

#[test]
fn what_is_over_is_found_within_bounds_and_what_is_needed_is_not() {
    let books = Books::default();
    for number in 0..10 {
        books.insert("a", number, entry(0, Some(100 + number as u64)));
    }
    books.insert("a", 10, entry(0, None));
    let expired = |now, max| books.expired(now, max, |app, number| app == "a" && number == 3).len();
    assert_eq!([expired(99, 99), expired(104, 99), expired(104, 2), expired(u64::MAX, 99)], [0, 4, 2, 9]);
    books.remove("a", 0);
    books.insert("a", 1, entry(0, Some(500)));
    assert_eq!([expired(104, 99), expired(u64::MAX, 99)], [2, 8], "what it was noted with before counts no more");
}

#[test]
fn what_cannot_go_makes_room_for_what_can() {
    let books = Books::default();
    for number in 0..4 {
        books.insert("a", number, entry(0, Some(100)));
    }
    let expired = |now| books.expired(now, 2, |_, _| false);
    let first = expired(100);
    first.iter().for_each(|(app, number)| books.put_off(app, *number, 200));
    let second = expired(100);
    assert_eq!(second.len(), 2);
    assert!(second.iter().all(|one| !first.contains(one)));
    second.iter().for_each(|(app, number)| books.remove(app, *number));
    assert_eq!((expired(199).len(), expired(200)), (0, first), "it is tried again");
}

#[test]
fn a_page_is_of_one_purpose_or_of_all_in_order() {
    let books = Books::default();
    for number in 0..6u128 {
        let purpose = Some(if number % 2 == 0 { Purpose::Batch } else { Purpose::BatchOutput });
        books.insert("a", number, Entry { purpose, ..entry(0, None) });
    }
    let page = |query: &str| books.page("a", &Query::parse(Some(query), "file-").unwrap());
    assert_eq!(page("limit=2"), [5, 4, 3], "and one more");
    assert_eq!(page("limit=3&order=asc"), [0, 1, 2, 3]);
    assert_eq!(page("purpose=batch_output&limit=2"), [5, 3, 1]);
    let after = format!("purpose=batch&after=file-{:032x}", 3);
    assert_eq!((page(&after), page("purpose=x")), (vec![2, 0], vec![]));
}

#[test]
fn what_is_damaged_is_in_no_list_and_is_news_once() {
    let books = Books::default();
    books.insert("a", 1, entry(3 * K, None));
    books.insert("a", 2, entry(3 * K, None));
    let page = |query: &str| books.page("a", &Query::parse(Some(query), "file-").unwrap());
    assert_eq!((page(""), page("purpose=batch"), page("purpose=x")), (vec![2, 1], vec![2, 1], vec![]));
    assert!(books.note_damaged("a", 2) && !books.note_damaged("a", 2) && !books.note_damaged("a", 3));
    assert_eq!((page(""), page("purpose=batch_output")), (vec![1], vec![]));
    assert_eq!(books.bytes("a"), 6 * K);
    for number in [2, 3] {
        books.note_sound("a", number, entry(3 * K, None));
    }
    assert_eq!((page(""), books.bytes("a")), (vec![2, 1], 6 * K), "what can be read again is listed again");
    assert!(books.note_damaged("a", 2));
}
