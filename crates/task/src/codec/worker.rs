//! [`ToWorker`] and what it carries.

use super::{Result, all, id, required, shared_name};
use crate::put::{Put, Writer};
use crate::wire::{self, ToWorkerKind};
use crate::{Assignment, BATCH_ROWS_MAX, DecodeError, FENCES_MAX, RouterId, ToWorker};

impl Put for ToWorker {
    fn put(&self, to: &mut Writer) {
        match self {
            ToWorker::Registered { incarnation, router, keep, drop } => to.nested(1, |to| {
                to.bytes(1, router.0);
                to.each(2, keep);
                to.each(3, drop);
                to.uint(4, *incarnation);
            }),
            ToWorker::Assign(items) => to.nested(2, |to| to.each(1, items)),
            ToWorker::Recall(fences) => to.nested(3, |to| to.each(1, fences)),
            ToWorker::Cancel(fences) => to.nested(4, |to| to.each(1, fences)),
            ToWorker::Refused(refusal) => to.message(5, refusal),
        }
    }
}

impl TryFrom<wire::ToWorker> for ToWorker {
    type Error = DecodeError;

    fn try_from(w: wire::ToWorker) -> Result<Self> {
        Ok(match required(w.kind, "message to worker")? {
            ToWorkerKind::Registered(w) => ToWorker::Registered {
                incarnation: w.incarnation,
                router: id!(RouterId, w.router, "registered.router")?,
                keep: all(w.keep, FENCES_MAX, "registered.keep")?,
                drop: all(w.drop, FENCES_MAX, "registered.drop")?,
            },
            ToWorkerKind::Assign(w) => ToWorker::Assign(all(w.items, BATCH_ROWS_MAX, "assign.items")?),
            ToWorkerKind::Recall(w) => ToWorker::Recall(all(w.fences, FENCES_MAX, "recall.fences")?),
            ToWorkerKind::Cancel(w) => ToWorker::Cancel(all(w.fences, FENCES_MAX, "cancel.fences")?),
            ToWorkerKind::Refused(w) => ToWorker::Refused(w.try_into()?),
        })
    }
}

impl Put for Assignment {
    fn put(&self, to: &mut Writer) {
        to.message(1, &self.fence);
        to.bytes(2, &self.service);
        to.uint(3, self.timeout_ms);
        to.uint(4, self.alone);
        to.bytes(5, &self.body);
    }
}

impl TryFrom<wire::Assignment> for Assignment {
    type Error = DecodeError;

    fn try_from(w: wire::Assignment) -> Result<Self> {
        Ok(Self {
            fence: required(w.fence, "assign.fence")?.try_into()?,
            service: shared_name(w.service, "assign.service")?,
            timeout_ms: w.timeout_ms,
            alone: w.alone,
            body: w.body,
        })
    }
}
