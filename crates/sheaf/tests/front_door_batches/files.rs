//! Files that end, and that there are too many of; records that a disk has spoilt.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::{Answer, Door, form, read_answer};
use crate::common::{Sandbox, wait_until};
use crate::{CHAT, EMBED, chats, embed};

/// Uploads a line that asks `hash`, with fields of its own.
fn upload_with(door: &Door, fields: &[(&str, &str)]) -> Answer {
    let content = embed("a", "hash", "x");
    let fields = fields.iter().map(|(name, value)| (*name, None, *value));
    let whole: Vec<_> =
        [("purpose", None, "batch"), ("file", Some("in"), &*content)].into_iter().chain(fields).collect();
    door.post_form("b", &form(&whole))
}

fn create_with(door: &Door, file: &Value, expires: &Value) -> Answer {
    let asked =
        json!({"input_file_id": file, "endpoint": EMBED, "completion_window": "24h", "output_expires_after": expires});
    door.post("/v1/batches", &asked)
}

fn record(s: &Sandbox, kind: &str, id: &str, name: &str) -> PathBuf {
    s.path(&format!("router/edge/{kind}/@/{id}/{name}"))
}

/// The record of a file says that its time was over long ago.
fn age(s: &Sandbox, id: &str) {
    let path = record(s, "files", id, "meta.json");
    let mut meta: Value = serde_json::from_slice(&fs::read(&path).expect("its record")).expect("JSON");
    meta["expires_at"] = json!(1);
    fs::write(path, meta.to_string()).expect("writable sandbox");
}

fn text(value: &Value) -> String {
    value.as_str().expect("an id").to_owned()
}

#[test]
fn files_go_when_their_time_is_over_and_no_batch_needs_them() {
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    for (anchor, seconds) in [("created_at", "3599"), ("created_at", "2592001"), ("last_used_at", "3600"), ("", "")] {
        let fields = [("expires_after[anchor]", anchor), ("expires_after[seconds]", seconds)];
        upload_with(&door, &fields).refused(400);
    }
    let fields = [("expires_after[seconds]", "3600"), ("expires_after[anchor]", "created_at")];
    let file = upload_with(&door, &fields).good();
    assert_eq!(file["expires_at"].as_u64(), file["created_at"].as_u64().map(|at| at + 3_600));
    create_with(&door, &file["id"], &json!({"anchor": "created_at", "seconds": 1})).refused(400);
    let expires = json!({"anchor": "created_at", "seconds": 7_200});
    let batch = text(&create_with(&door, &file["id"], &expires).good()["id"]);
    let (needed, idle, kept) = (text(&file["id"]), text(&upload_with(&door, &[]).good()["id"]), door.upload("x"));
    for id in [&needed, &idle] {
        age(&s, id);
    }
    door.killed(&s);
    let get = |door: &Door, id: &str| door.get(&format!("/v1/files/{id}")).status;
    wait_until("what has expired is gone", || get(&door, &idle) == 404);
    assert_eq!(
        (get(&door, &needed), get(&door, &kept)),
        (200, 200),
        "a batch that waits for a worker needs one of them"
    );
    let worker = door.worker(&s, "hash", &["--backend", "builtin:hash-embed"]);
    let over = door.over(&batch, "completed");
    let output = door.get(&format!("/v1/files/{}", text(&over["output_file_id"]))).good();
    assert_eq!(output["expires_at"].as_u64(), output["created_at"].as_u64().map(|at| at + 7_200));
    drop(worker);
    door.killed(&s);
    wait_until("what no batch needs any more is gone too", || get(&door, &needed) == 404);
    assert_eq!(get(&door, &kept), 200);
}

#[test]
fn an_app_has_no_more_bytes_of_files_than_it_may() {
    let s = Sandbox::new();
    let mut door = Door::open_with(&s, &["--files-max", "1MiB"]);
    let first = door.upload(&"x".repeat(600_000));
    // Where its length says so before it is sent, and where only the last of it is too much.
    let headers = "content-type: multipart/form-data; boundary=b\r\ncontent-length: 600000\r\n";
    assert_eq!(read_answer(door.begin("POST", "/v1/files", headers)).refused(413), "files_quota_exceeded");
    let too_much = form(&[("purpose", None, "batch"), ("file", Some("in"), &"x".repeat(470_000))]);
    assert_eq!(door.post_form("b", &too_much).refused(413), "files_quota_exceeded");
    // What was refused half-way takes no room, and a start counts the same.
    door.killed(&s);
    let second = door.upload(&"x".repeat(400_000));
    let create = |file: &str| {
        door.post("/v1/batches", &json!({"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}))
    };
    door.over(&text(&create(&second).good()["id"]), "failed");
    // A batch that is over counts 4 KiB, for its record.
    let rest = form(&[("purpose", None, "batch"), ("file", Some("in"), &"x".repeat((1 << 20) - 1_000_000 - 4_096))]);
    let mut last = None;
    wait_until("its input counts no more", || {
        last = Some(door.post_form("b", &rest)).filter(|answer| answer.status == 200);
        last.is_some()
    });
    let rest = last.expect("an answer").good();
    assert_eq!(create(&text(&rest["id"])).refused(413), "files_quota_exceeded");
    let empty = form(&[("purpose", None, "batch"), ("file", Some("in"), "")]);
    assert_eq!(door.post_form("b", &empty).refused(413), "files_quota_exceeded", "nothing has room for nothing");
    assert_eq!(door.delete(&format!("/v1/files/{first}")).good()["deleted"], true);
    door.upload(&"x".repeat(600_000));
}

#[test]
fn what_a_batch_reads_counts_though_its_file_is_deleted() {
    let s = Sandbox::new();
    let mut door = Door::open_with(&s, &["--files-max", "1MiB"]);
    let long = "x".repeat(200_000);
    let file = door.upload(&(embed("a", "one", &long) + &embed("b", "other", &long)));
    let batch = door.create(&file, EMBED, "24h");
    wait_until("its input is copied, for two models", || door.batch(&batch)["status"] == "in_progress");
    assert_eq!(door.delete(&format!("/v1/files/{file}")).good()["deleted"], true);
    let more = form(&[("purpose", None, "batch"), ("file", Some("in"), &"x".repeat(300_000))]);
    assert_eq!(door.post_form("b", &more).refused(413), "files_quota_exceeded");
    door.killed(&s);
    assert_eq!(door.post_form("b", &more).refused(413), "files_quota_exceeded", "a start counts the same");
    door.post(&format!("/v1/batches/{batch}/cancel"), &json!({})).good();
    door.over(&batch, "cancelled");
    wait_until("it counts no more", || door.post_form("b", &more).status == 200);
}

#[test]
fn a_record_that_is_damaged_costs_nothing_else() {
    let s = Sandbox::new();
    let mut door = Door::open(&s);
    let files: Vec<String> = (0..3).map(|n| door.upload(&chats(n + 1, "m"))).collect();
    let batches: Vec<String> = files.iter().map(|file| door.create(file, CHAT, "24h")).collect();
    for id in &batches {
        wait_until("it is in progress", || door.batch(id)["status"] == "in_progress");
    }
    fs::write(record(&s, "files", &files[1], "meta.json"), "{\"id\": ").expect("writable sandbox");
    let listed = |door: &Door, path: &str| -> Vec<String> {
        let list = door.get(path).good();
        assert_eq!(list["has_more"], false);
        list["data"].as_array().expect("a list").iter().rev().map(|entry| text(&entry["id"])).collect()
    };
    let sound = |ids: &[String]| [ids[0].clone(), ids[2].clone()];
    assert_eq!(listed(&door, "/v1/files?limit=2"), sound(&files));
    door.process.kill9();
    fs::write(record(&s, "batches", &batches[1], "batch.json"), "\0\0").expect("writable sandbox");
    door.killed(&s);
    for (kind, ids) in [("files", &files), ("batches", &batches)] {
        assert_eq!(listed(&door, &format!("/v1/{kind}?limit=2")), sound(ids));
        assert_eq!(door.get(&format!("/v1/{kind}/{}", ids[1])).refused(500), "damaged_record");
    }
    assert_eq!(door.get(&format!("/v1/batches/{}/results", batches[1])).refused(500), "damaged_record");
    assert_eq!(door.post(&format!("/v1/batches/{}/cancel", batches[1]), &json!({})).refused(500), "damaged_record");
    let _worker = crate::serve(&door, &s, "m", "0");
    door.over(&batches[0], "completed");
    door.over(&batches[2], "completed");
    // A disk that only had a bad moment.
    let path = record(&s, "batches", &batches[2], "batch.json");
    let kept = fs::read(&path).expect("its record");
    fs::write(&path, "\0\0").expect("writable sandbox");
    let get = |door: &Door| door.get(&format!("/v1/batches/{}", batches[2]));
    wait_until("it is read from the disk", || get(&door).status == 500);
    assert_eq!(listed(&door, "/v1/batches"), batches[..1]);
    fs::write(&path, kept).expect("writable sandbox");
    assert_eq!(get(&door).good()["status"], "completed");
    assert_eq!(listed(&door, "/v1/batches"), sound(&batches));
    // Its bytes are there still, and it may be deleted.
    assert_eq!(door.get(&format!("/v1/files/{}/content", files[1])).body, chats(2, "m").into_bytes());
    assert_eq!(door.delete(&format!("/v1/files/{}", files[1])).good()["deleted"], true);
    let (log, spoilt) = (s.read("router.log"), format!("{}/meta.json", files[1]));
    assert_eq!(log.lines().filter(|line| line.contains(&spoilt)).count(), 2, "once a start: {log}");
}
