//! Results on their way out: made to fit, and put into messages.

use sheaf_task::{
    BATCH_BYTES_AIM, BATCH_ROWS_MAX, BODY_BYTES_MAX, Class, Failure, NAME_BYTES_MAX, Outcome, ResultItem,
    STDERR_TAIL_MAX,
};

/// Longest message of a failure, bytes; the rest is cut off.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// The outcome as it may travel: an answer that is too long is a failure that says so; a failure names its witness and is
/// short. An executor that keeps to the limits is never corrected here.
pub(super) fn fit(outcome: Outcome, worker: &str) -> Outcome {
    let mut failure = match outcome {
        Outcome::Ok(body) if body.len() <= BODY_BYTES_MAX => return Outcome::Ok(body),
        Outcome::Ok(body) => Failure::new(
            Class::Rejected,
            format!(
                "the answer has {} bytes, and a result holds at most {BODY_BYTES_MAX}: make it shorter",
                body.len()
            ),
        ),
        Outcome::Failed(failure) => failure,
    };
    let stderr = &mut failure.evidence.stderr;
    *stderr = stderr.slice(stderr.len().saturating_sub(STDERR_TAIL_MAX)..);
    failure.message.truncate(failure.message.floor_char_boundary(MESSAGE_BYTES_MAX));
    failure.evidence.upstream = failure.evidence.upstream.map(|upstream| Box::new(upstream.cut()));
    if failure.evidence.worker.is_empty() {
        failure.evidence.worker = worker[..worker.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
    }
    Outcome::Failed(failure)
}

/// In order, each of at most [`BATCH_ROWS_MAX`] items and about [`BATCH_BYTES_AIM`] bytes; a larger one goes alone.
pub(super) fn batches(items: Vec<ResultItem>) -> Vec<Vec<ResultItem>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for item in items {
        let len = item.outcome.len();
        if !batch.is_empty() && (batch.len() == BATCH_ROWS_MAX || bytes + len > BATCH_BYTES_AIM) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += len;
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}
