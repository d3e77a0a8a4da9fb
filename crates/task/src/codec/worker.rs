//! [`ToWorker`] and what it carries.

use super::{Result, all, bytes, each, id, name, required};
use crate::wire::{self, ToWorkerKind};
use crate::{Assignment, BATCH_ROWS_MAX, DecodeError, FENCES_MAX, RouterId, ToWorker};

impl From<&ToWorker> for wire::ToWorker {
    fn from(message: &ToWorker) -> Self {
        let kind = match message {
            ToWorker::Registered { router, keep, drop } => ToWorkerKind::Registered(wire::Registered {
                router: bytes(&router.0),
                keep: each(keep),
                drop: each(drop),
            }),
            ToWorker::Assign(items) => ToWorkerKind::Assign(wire::Assign { items: each(items) }),
            ToWorker::Recall(fences) => ToWorkerKind::Recall(wire::Fences { fences: each(fences) }),
            ToWorker::Cancel(fences) => ToWorkerKind::Cancel(wire::Fences { fences: each(fences) }),
            ToWorker::Refused(refusal) => ToWorkerKind::Refused(refusal.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::ToWorker> for ToWorker {
    type Error = DecodeError;

    fn try_from(w: wire::ToWorker) -> Result<Self> {
        Ok(match required(w.kind, "message to worker")? {
            ToWorkerKind::Registered(w) => ToWorker::Registered {
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

impl From<&Assignment> for wire::Assignment {
    fn from(a: &Assignment) -> Self {
        Self {
            fence: Some((&a.fence).into()),
            service: a.service.clone(),
            timeout_ms: a.timeout_ms,
            alone: a.alone,
            body: a.body.clone(),
        }
    }
}

impl TryFrom<wire::Assignment> for Assignment {
    type Error = DecodeError;

    fn try_from(w: wire::Assignment) -> Result<Self> {
        Ok(Self {
            fence: required(w.fence, "assign.fence")?.try_into()?,
            service: name(w.service, "assign.service")?,
            timeout_ms: w.timeout_ms,
            alone: w.alone,
            body: w.body,
        })
    }
}
