//! Reading the wire: a full `Submit`, rows and bodies.

use std::hint::black_box;

use bytes::Bytes;
use sheaf_task::{JobId, RowId, SubmitRow, ToRouter};

use crate::{BATCH, BATCHES, body};

pub(crate) fn run() -> u64 {
    let rows = (0..BATCH)
        .map(|number| SubmitRow { row: RowId(u128::from(number).to_be_bytes()), sample: 0, body: body(number) })
        .collect();
    let wire = ToRouter::Submit { job: JobId([1; 16]), cursor: 0, rows }.encode();
    for _ in 0..BATCHES {
        measured(wire.clone());
    }
    BATCH * BATCHES
}

#[inline(never)]
fn measured(wire: Bytes) {
    black_box(ToRouter::decode(wire).expect("what encode made"));
}
