//! An upload: a multipart form that is streamed to disk as it comes, `purpose` before or after `file`.
//!
//! Invariant: at most [`WRITE_BYTES`] of it and what one read brings are in memory, however long it is.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use multer::{Constraints, Field, Multipart, SizeLimit};
use tokio::time::{Instant, timeout_at};

use super::books::RECORD_BYTES;
use super::expiry::ExpiresAfter;
use super::over_quota;
use super::store::{Draft, FileMeta, Store};
use crate::disk::{blocking, refused};
use crate::limits::Limits;
use crate::reply::ApiError;

/// What uploads may be for; others mean nothing here.
const PURPOSE: &str = "batch";

/// Bytes that are put together before they are written; every connection may be an upload.
const WRITE_BYTES: usize = 64 << 10;

/// What a form may have beside the file's content: its fields' heads and small fields.
const FORM_BYTES_MAX: u64 = 64 << 10;

/// Longest content of a field that is no file, and longest name that is kept of a file.
const FIELD_BYTES_MAX: u64 = 1 << 10;
const FILENAME_CHARS_MAX: usize = 255;

/// Takes an upload.
pub(super) async fn upload(
    store: &Store,
    app: &str,
    limits: &Limits,
    request: Request<Incoming>,
    now: Duration,
) -> Result<FileMeta, ApiError> {
    let of_form = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = of_form.and_then(|value| multer::parse_boundary(value).ok()).ok_or_else(|| {
        ApiError::invalid("an upload is a multipart/form-data form with the fields purpose and file", None)
    })?;
    let max = limits.file_bytes_max;
    if request.body().size_hint().lower() > max + FORM_BYTES_MAX {
        return Err(too_large(max));
    }
    let least = request.body().size_hint().lower().saturating_sub(FORM_BYTES_MAX).max(RECORD_BYTES);
    if let Some(max) = store.too_many(app, least) {
        return Err(over_quota(max));
    }
    let sizes = SizeLimit::new().whole_stream(max + FORM_BYTES_MAX).per_field(FIELD_BYTES_MAX).for_field("file", max);
    let form = request.into_body().into_data_stream();
    let form = Multipart::with_constraints(form, boundary, Constraints::new().size_limit(sizes));
    let begun = Instant::now();
    let mut upload =
        Upload { store, app, now, limits, begun, read: 0, purpose: None, expires: [None, None], file: None };
    let taken = upload.take(form).await;
    let purpose = upload.purpose.take();
    let [anchor, seconds] = upload.expires;
    let taken = taken.and_then(|()| ExpiresAfter::of_form(anchor, seconds));
    match (taken, upload.file) {
        (Ok(expires), Some((draft, filename))) if purpose.is_some() => {
            let store = store.clone();
            blocking(move || finish(&store, draft, filename, expires, now)).await?
        }
        (taken, file) => {
            if let Some((draft, _)) = file {
                blocking(move || draft.discard()).await?.map_err(|error| refused(&error))?;
            }
            taken?;
            let missing = if purpose.is_some() { "file" } else { "purpose" };
            Err(ApiError::invalid(format!("the form has no field {missing}"), Some(missing)))
        }
    }
}

fn finish(
    store: &Store,
    draft: Draft,
    filename: String,
    expires: Option<u64>,
    now: Duration,
) -> Result<FileMeta, ApiError> {
    let meta = FileMeta {
        id: draft.id.clone(),
        bytes: draft.bytes(),
        created_at: now.as_secs(),
        filename,
        purpose: PURPOSE.to_owned(),
        expires_at: expires.map(|seconds| now.as_secs() + seconds),
    };
    store.finish(draft, &meta).map_err(|error| refused(&error))?;
    Ok(meta)
}

/// A form as far as it was read.
struct Upload<'a> {
    store: &'a Store,
    app: &'a str,
    now: Duration,
    limits: &'a Limits,
    begun: Instant,
    /// Bytes of the file that came.
    read: u64,
    purpose: Option<String>,
    /// Anchor and seconds of when it goes.
    expires: [Option<String>; 2],
    file: Option<(Draft, String)>,
}

impl Upload<'_> {
    async fn take(&mut self, mut form: Multipart<'_>) -> Result<(), ApiError> {
        while let Some(field) = self.in_time(form.next_field()).await? {
            match field.name().unwrap_or_default() {
                "purpose" if self.purpose.is_none() => self.take_purpose(field).await?,
                "expires_after[anchor]" if self.expires[0].is_none() => {
                    self.expires[0] = Some(self.in_time(field.text()).await?);
                }
                "expires_after[seconds]" if self.expires[1].is_none() => {
                    self.expires[1] = Some(self.in_time(field.text()).await?);
                }
                "file" if self.file.is_none() => self.take_file(field).await?,
                name => {
                    let what = format!("the form has a field {name:?} that is not known here, or is there twice");
                    return Err(ApiError::invalid(what, None));
                }
            }
        }
        Ok(())
    }

    /// A client that sends nothing for too long is not waited for, nor one that sends next to nothing.
    async fn in_time<T>(&self, reads: impl Future<Output = multer::Result<T>>) -> Result<T, ApiError> {
        let until = self.begun + patience(self.begun.elapsed(), self.read, self.limits);
        match timeout_at(until, reads).await {
            Ok(read) => read.map_err(|error| broken(&error, self.limits.file_bytes_max)),
            Err(_) => {
                let status = StatusCode::REQUEST_TIMEOUT;
                Err(ApiError {
                    status,
                    ..ApiError::invalid("the upload stopped before its end, or came too slowly", None)
                })
            }
        }
    }

    async fn take_purpose(&mut self, field: Field<'_>) -> Result<(), ApiError> {
        let purpose = self.in_time(field.text()).await?;
        if purpose != PURPOSE {
            let what = format!("purpose is {purpose:?}; files are taken for {PURPOSE:?} only");
            return Err(ApiError { code: Some("invalid_purpose"), ..ApiError::invalid(what, Some("purpose")) });
        }
        self.purpose = Some(purpose);
        Ok(())
    }

    async fn take_file(&mut self, mut field: Field<'_>) -> Result<(), ApiError> {
        let filename = field.file_name().unwrap_or("file").chars().take(FILENAME_CHARS_MAX).collect();
        let (store, app, now) = (self.store.clone(), self.app.to_owned(), self.now);
        let draft = blocking(move || store.begin(&app, now)).await?.map_err(|error| refused(&error))?;
        self.file = Some((draft, filename));
        let mut gathered = BytesMut::new();
        while let Some(chunk) = self.in_time(field.chunk()).await? {
            self.read += chunk.len() as u64;
            gathered.extend_from_slice(&chunk);
            if gathered.len() >= WRITE_BYTES {
                self.write(gathered.split().freeze()).await?;
            }
        }
        self.write(gathered.freeze()).await
    }

    /// Others of the app may write at the same time: each may pass the limit by what it writes at once.
    async fn write(&mut self, bytes: Bytes) -> Result<(), ApiError> {
        if let Some(max) = self.store.too_many(self.app, bytes.len() as u64) {
            return Err(over_quota(max));
        }
        let Some((mut draft, filename)) = self.file.take() else { return Ok(()) };
        let (draft, written) = blocking(move || {
            let written = draft.write(&bytes);
            (draft, written)
        })
        .await?;
        self.file = Some((draft, filename));
        written.map_err(|error| refused(&error))
    }
}

/// Until when, since its beginning, an upload of which so many bytes have come by now may be silent: so much has come that
/// so much longer it may take.
fn patience(now: Duration, read: u64, limits: &Limits) -> Duration {
    let earned = Duration::from_secs_f64(read as f64 / f64::from(limits.body_rate_min));
    limits.body_timeout + now.min(earned)
}

fn broken(error: &multer::Error, max: u64) -> ApiError {
    match error {
        multer::Error::StreamSizeExceeded { .. } => too_large(max),
        multer::Error::FieldSizeExceeded { field_name: Some(name), .. } if name == "file" => too_large(max),
        other => ApiError::invalid(format!("the form cannot be read: {other}"), None),
    }
}

fn too_large(max: u64) -> ApiError {
    let what = format!("a file may have {max} bytes: split it into several batches");
    let error = ApiError::invalid(what, Some("file"));
    ApiError { status: StatusCode::PAYLOAD_TOO_LARGE, code: Some("file_too_large"), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_next_to_nothing_is_not_waited_for() {
        let limits = Limits::default();
        let [minute, hour] = [60, 3_600].map(Duration::from_secs);
        assert_eq!(patience(Duration::ZERO, 0, &limits), minute);
        assert_eq!(patience(hour, 3_600 * 4_096, &limits), hour + minute, "a pause, and no more");
        assert_eq!(patience(minute, 200 << 20, &limits), 2 * minute, "who was quick earns no longer pause");
        assert!(patience(minute, 60, &limits) < minute + Duration::from_secs(1), "a byte a second is nothing");
    }
}
