//! A checker that passes a planted fault is worth nothing: each kind of fault is planted here, and must be found.

use super::*;
use crate::seed::Rng;

/// Three rows, each executed once and in the sink once.
fn sound() -> (Rows, Ledger, Vec<SinkRow>) {
    let rows = Rows::make(&mut Rng::new(1), "t", 3, 0);
    let (mut ledger, mut sink) = (Ledger::new(), Vec::new());
    for (row, digest) in rows.digests() {
        let token = format!("token-{row}");
        let once = Executions { begun: vec![token.clone()], ended: vec![token.clone()] };
        ledger.insert(digest.to_owned(), once);
        sink.push(SinkRow { row, result: Landed::Ok(format!("{digest} {token}")) });
    }
    (rows, ledger, sink)
}

fn found(tamper: impl FnOnce(&mut Ledger, &mut Vec<SinkRow>)) -> Vec<Violation> {
    let (rows, mut ledger, mut sink) = sound();
    tamper(&mut ledger, &mut sink);
    complete(&rows, &ledger, &sink, Allowed::default())
}

#[test]
fn what_is_sound_passes() {
    assert_eq!(found(|_, _| ()), []);
}

#[test]
fn a_lost_row_is_found() {
    assert_eq!(found(|_, sink| drop(sink.remove(1))), [Violation::Lost { row: 2 }]);
}

#[test]
fn a_duplicate_is_found_though_it_is_the_same_line() {
    let twice = |_: &mut Ledger, sink: &mut Vec<SinkRow>| sink.push(sink[0].clone());
    assert_eq!(found(twice), [Violation::Duplicate { row: 1, times: 2 }]);
}

#[test]
fn one_row_lost_and_another_doubled_do_not_cancel_out() {
    let swap = |_: &mut Ledger, sink: &mut Vec<SinkRow>| sink[2] = sink[0].clone();
    assert_eq!(found(swap), [Violation::Lost { row: 3 }, Violation::Duplicate { row: 1, times: 2 }]);
}

#[test]
fn answers_that_changed_places_are_found() {
    let swap = |_: &mut Ledger, sink: &mut Vec<SinkRow>| {
        let (one, other) = (sink[0].result.clone(), sink[1].result.clone());
        (sink[0].result, sink[1].result) = (other, one);
    };
    assert!(matches!(found(swap)[..], [Violation::Wrong { row: 1, .. }, Violation::Wrong { row: 2, .. }]));
}

#[test]
fn an_answer_that_no_execution_gave_is_found() {
    let forge = |ledger: &mut Ledger, _: &mut Vec<SinkRow>| {
        for of in ledger.values_mut() {
            of.ended.retain(|token| token != "token-2");
        }
    };
    assert_eq!(found(forge), [Violation::Unproved { row: 2, token: "token-2".into() }]);
}

#[test]
fn a_row_that_does_not_exist_and_one_that_failed_are_found() {
    let tamper = |_: &mut Ledger, sink: &mut Vec<SinkRow>| {
        sink.push(SinkRow { row: 9, result: sink[0].result.clone() });
        sink[0].result = Landed::Failed { class: "error".into(), deaths: Some(0) };
    };
    assert_eq!(found(tamper), [Violation::Stranger { row: 9 }, Violation::Failed { row: 1, class: "error".into() }]);
}

#[test]
fn a_second_execution_counts_unless_excused() {
    let (rows, mut ledger, sink) = sound();
    ledger.values_mut().for_each(|of| of.begun.push("again".into()));
    let judge = |again| complete(&rows, &ledger, &sink, Allowed { again, deaths: 0 });
    assert_eq!(judge(2), [Violation::Again { extra: 3, allowed: 2 }]);
    assert_eq!(judge(3), []);
}

#[test]
fn deaths_excuse_a_crash_and_nothing_else() {
    let (rows, ledger, mut sink) = sound();
    let allowed = Allowed { again: 0, deaths: 3 };
    sink[0].result = Landed::Failed { class: "crashed".into(), deaths: Some(3) };
    assert_eq!(complete(&rows, &ledger, &sink, allowed), []);
    sink[0].result = Landed::Failed { class: "crashed".into(), deaths: Some(2) };
    assert_eq!(complete(&rows, &ledger, &sink, allowed).len(), 1);
    sink[0].result = Landed::Failed { class: "error".into(), deaths: Some(3) };
    assert_eq!(complete(&rows, &ledger, &sink, allowed).len(), 1);
}

#[test]
fn a_settled_result_that_was_replaced_is_found() {
    let (_, _, mut sink) = sound();
    let seen = sink.iter().map(|found| (found.row, found.result.clone())).collect();
    assert_eq!(replaced(&seen, &sink), []);
    sink[0].result = Landed::Ok("another".into());
    sink.remove(2);
    assert_eq!(replaced(&seen, &sink), [Violation::Replaced { row: 1 }]);
}

#[test]
fn an_acknowledgement_that_was_not_kept_is_found() {
    let (rows, mut ledger, _) = sound();
    assert_eq!(kept(3, &rows, &ledger), None);
    ledger.pop_first();
    assert_eq!(kept(3, &rows, &ledger), Some(Violation::Unkept { acknowledged: 3, executed: 2 }));
}
