//! When files go, as clients say it: `expires_after` of an upload, `output_expires_after` of a batch.

use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::reply::ApiError;

/// What a time is counted from; there is nothing else.
const ANCHOR: &str = "created_at";

/// How long a file may stay that is to go by itself: an hour to thirty days.
const SECONDS: RangeInclusive<u64> = 3_600..=2_592_000;

/// What an upload calls it.
const FORM_PARAM: &str = "expires_after";

/// When a file is to go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpiresAfter {
    anchor: String,
    seconds: u64,
}

impl ExpiresAfter {
    /// Of the fields of a form, where there is one of them.
    pub(super) fn of_form(anchor: Option<String>, seconds: Option<String>) -> Result<Option<u64>, ApiError> {
        match (anchor, seconds.map(|seconds| seconds.parse())) {
            (None, None) => Ok(None),
            (Some(anchor), Some(Ok(seconds))) => Self { anchor, seconds }.seconds(FORM_PARAM).map(Some),
            (_, None | Some(Err(_))) | (None, Some(Ok(_))) => Err(wrong(FORM_PARAM)),
        }
    }

    /// Seconds from when it is made, by the field that says so.
    pub(crate) fn seconds(&self, param: &'static str) -> Result<u64, ApiError> {
        if self.anchor == ANCHOR && SECONDS.contains(&self.seconds) {
            return Ok(self.seconds);
        }
        Err(wrong(param))
    }
}

fn wrong(param: &'static str) -> ApiError {
    let (least, most) = SECONDS.into_inner();
    let what = format!("{param} has anchor \"{ANCHOR}\" and seconds from {least} to {most}");
    ApiError::invalid(what, Some(param))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_to_thirty_days_from_when_it_is_made() {
        let of = |anchor: Option<&str>, seconds: Option<&str>| {
            let found = ExpiresAfter::of_form(anchor.map(str::to_owned), seconds.map(str::to_owned));
            found.map_err(|error| error.param)
        };
        assert_eq!(of(None, None), Ok(None));
        for good in [3_600, 2_592_000] {
            assert_eq!(of(Some("created_at"), Some(&good.to_string())), Ok(Some(good)));
        }
        let bad = [(None, Some("3600")), (Some("created_at"), None), (Some("last_used_at"), Some("3600"))];
        let bad = bad
            .into_iter()
            .chain(["3599", "2592001", "-1", "x", ""].map(|seconds| (Some("created_at"), Some(seconds))));
        for (anchor, seconds) in bad {
            assert_eq!(of(anchor, seconds), Err(Some("expires_after")), "{anchor:?} {seconds:?}");
        }
    }
}
