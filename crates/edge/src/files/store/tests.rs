use super::*;

fn put(store: &Store, app: &str, second: u64, text: &str) -> FileMeta {
    let mut draft = store.begin(app, Duration::from_secs(second)).unwrap();
    draft.write(text.as_bytes()).unwrap();
    let meta = FileMeta {
        id: draft.id.clone(),
        bytes: draft.bytes(),
        created_at: second,
        filename: "rows.jsonl".into(),
        purpose: if second.is_multiple_of(2) { "batch" } else { "batch_output" }.into(),
        expires_at: Some(second + 100),
    };
    store.finish(draft, &meta).unwrap();
    meta
}

#[test]
fn files_are_listed_read_and_deleted_by_their_own_app_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    let metas: Vec<_> = (1..=4).map(|second| put(&store, "", second, "abc")).collect();
    let theirs = put(&store, "them", 9, "secret");
    let ids = |query: &str| -> Vec<String> {
        let query = Query::parse(Some(query), PREFIX).unwrap();
        store.list("", &query).unwrap().into_iter().map(|meta| meta.id).collect()
    };
    assert_eq!(ids("limit=1"), [metas[3].id.clone(), metas[2].id.clone()]);
    assert_eq!(ids("purpose=batch&order=asc"), [metas[1].id.clone(), metas[3].id.clone()]);
    assert_eq!(store.get("", &theirs.id).unwrap(), None);
    assert!(!store.delete("", &theirs.id).unwrap());
    assert_eq!(store.get("them", &theirs.id).unwrap(), Some(theirs));
    assert!(store.delete("", &metas[0].id).unwrap());
    assert!(!store.delete("", &metas[0].id).unwrap());
    assert_eq!(ids("").len(), 3);
    assert_eq!(fs::read(store.content("", &metas[1].id).unwrap()).unwrap(), b"abc");
    assert_eq!(store.content("", "file-../x"), None);
}

#[test]
fn what_was_being_written_is_gone_after_a_crash_and_finishing_twice_is_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    let mut draft = store.begin("", Duration::from_secs(1)).unwrap();
    draft.write(b"half").unwrap();
    std::mem::forget(draft);
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("edge/tmp")).unwrap().count(), 0);
    drop(store.begin("", Duration::from_secs(1)).unwrap());
    assert_eq!(fs::read_dir(dir.path().join("edge/tmp")).unwrap().count(), 0);
    let meta = put(&store, "", 2, "whole");
    let mut again = store.begin_as("", meta.id.clone()).unwrap();
    again.write(b"whole").unwrap();
    store.finish(again, &meta).unwrap();
    assert_eq!(store.list("", &Query::parse(None, PREFIX).unwrap()).unwrap(), [meta]);
    assert_eq!(fs::read_dir(dir.path().join("edge/tmp")).unwrap().count(), 0);
}

#[test]
fn a_record_that_is_damaged_costs_only_its_own_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    let metas: Vec<_> = (1..=4).map(|second| put(&store, "", second, "abc")).collect();
    let record = |at: usize| store.place("", &metas[at].id).unwrap().join(META);
    let listed = |store: &Store, query: &str| -> Vec<_> {
        let found = store.list("", &Query::parse(Some(query), PREFIX).unwrap()).unwrap();
        found.into_iter().map(|meta| meta.created_at).collect()
    };
    // Once while the store is open, and once before it is opened; torn, and gone.
    fs::write(record(3), "{").unwrap();
    assert_eq!((listed(&store, "limit=1"), listed(&store, "")), (vec![3, 2], vec![3, 2, 1]));
    fs::remove_file(record(1)).unwrap();
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    assert_eq!(listed(&store, ""), [3, 1]);
    for at in [1, 3] {
        assert!(is_damaged(&store.get("", &metas[at].id).unwrap_err()));
        assert_eq!(fs::read(store.content("", &metas[at].id).unwrap()).unwrap(), b"abc");
    }
    const K: u64 = RECORD_BYTES;
    let too_many = |count| store.too_many("", count * K);
    assert_eq!((too_many(16), too_many(17)), (None, Some(20 * K)), "they count");
    assert!(store.delete("", &metas[1].id).unwrap());
    assert_eq!(too_many(17), None);
    // A disk that only had a bad moment.
    fs::write(record(3), json!(metas[3]).to_string()).unwrap();
    assert_eq!(store.get("", &metas[3].id).unwrap().as_ref(), Some(&metas[3]));
    assert_eq!(listed(&store, ""), [4, 3, 1]);
}

#[test]
fn what_has_expired_is_swept_but_for_what_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    let store = open();
    let metas: Vec<_> = (1..=3).map(|second| put(&store, "", second, "abc")).collect();
    put(&store, "them", 9, "abc");
    let store = open();
    let needed = number_of(PREFIX, &metas[1].id).unwrap();
    let is_needed = |app: &str, number| app == "@" && number == needed;
    let sweep = |now| store.sweep(Duration::from_secs(now), is_needed, || false);
    assert_eq!([sweep(100), sweep(103), sweep(103), sweep(109)], [0, 2, 0, 1]);
    assert_eq!(store.list("", &Query::parse(None, PREFIX).unwrap()).unwrap(), [metas[1].clone()]);
    const K: u64 = RECORD_BYTES;
    assert_eq!((store.get("", &metas[0].id).unwrap(), store.too_many("", 20 * K)), (None, Some(20 * K)));
    assert_eq!(store.sweep(Duration::from_secs(103), |_, _| false, || false), 1);
    assert_eq!(store.too_many("", 20 * K), None);
    assert_eq!(fs::read_dir(dir.path().join("edge/tmp")).unwrap().count(), 0);
}

#[test]
fn a_sweep_stops_when_it_is_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    (1..=5).for_each(|second| drop(put(&store, "", second, "abc")));
    let asked = std::cell::Cell::new(0);
    let is_stopping = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    assert_eq!(store.sweep(Duration::from_secs(1_000), |_, _| false, is_stopping), 2);
    assert_eq!(store.list("", &Query::parse(None, PREFIX).unwrap()).unwrap().len(), 3);
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    assert_eq!(store.sweep(Duration::from_secs(1_000), |_, _| false, || false), 3);
}

#[test]
fn an_expired_file_that_cannot_be_removed_waits_for_an_hour() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge"), 20 * RECORD_BYTES).unwrap();
    let meta = put(&store, "", 1, "abc");
    let in_the_way = store.aside(&format!("deleted-{}", meta.id));
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    let sweep = |now: Duration| store.sweep(now, |_, _| false, || false);
    let now = Duration::from_secs(1_000);
    assert_eq!([sweep(now), sweep(now)], [1, 0]);
    assert_eq!(store.get("", &meta.id).unwrap().as_ref(), Some(&meta));
    fs::remove_dir_all(in_the_way).unwrap();
    assert_eq!((sweep(now + AGAIN), store.get("", &meta.id).unwrap()), (1, None));
}
