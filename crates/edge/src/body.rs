//! Reads the body of a call into memory: bounded in bytes, and cut off where it comes too slowly.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::admit::busy_reply;
use crate::limits::Limits;
use crate::reply::{ApiError, Reply};
use crate::serve::Door;

/// The whole body of a call; refused unread where nothing is to be let in.
pub(crate) async fn read(door: &Door, body: Incoming) -> Result<Bytes, Reply> {
    let limits = &door.config.limits;
    let max = limits.call_bytes_max;
    let said = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if said > max {
        return Err(too_long(max).reply());
    }
    // Where its length is not said it may be as long as any.
    let room = if body.size_hint().exact().is_some() { said } else { max };
    let Some(_room) = door.gate.admit_body(room) else { return Err(busy_reply(door.names.number())) };
    read_all(body, said, limits).await.map_err(|error| error.reply())
}

/// Whether this can be a JSON object; if it is JSON at all.
pub(crate) fn is_object(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}

async fn read_all(mut body: Incoming, said: usize, limits: &Limits) -> Result<Bytes, ApiError> {
    let max = limits.call_bytes_max;
    let begun = Instant::now();
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    loop {
        let read = first.len() + rest.len();
        // So much has come that so much longer it may take.
        let earned = Duration::from_secs_f64(read as f64 / f64::from(limits.body_rate_min));
        let frame = timeout_at(begun + limits.body_grace + earned, body.frame()).await;
        let Ok(frame) = frame else { return Err(too_slow(limits)) };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::invalid(format!("the body broke off: {error}"), None))?;
        // Trailers say nothing that is of use.
        let Ok(data) = frame.into_data() else { continue };
        if read + data.len() > max {
            return Err(too_long(max));
        }
        if read == 0 {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(said.max(first.len() + data.len()));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn too_long(max: usize) -> ApiError {
    let message =
        format!("the body is longer than {max} bytes, the most that a call may have; batches take larger files");
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    ApiError { status, code: Some("request_too_large"), ..ApiError::invalid(message, None) }
}

fn too_slow(limits: &Limits) -> ApiError {
    let message = format!("the body came more slowly than {} bytes a second", limits.body_rate_min);
    let status = StatusCode::REQUEST_TIMEOUT;
    ApiError { status, code: Some("request_timeout"), ..ApiError::invalid(message, None) }
}
