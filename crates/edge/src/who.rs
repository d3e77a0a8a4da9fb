//! Whom a request speaks for: the app of its token, or whoever runs the router where no token is asked for.
//!
//! It knows no route. Invariant: what was shown is in no message and no log.

use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use sheaf_roles::port::Principal;
use sheaf_server::TokenBook;
use sheaf_server::tokens::TOKEN_PREFIX;

use crate::reply::ApiError;

/// Looks at tokens.
pub(crate) struct Who {
    // Handlers look on several threads; each look asks for the state of a file, and rarely reads it.
    book: Mutex<TokenBook>,
    /// Nobody is answered without a token.
    is_strict: bool,
}

impl Who {
    pub(crate) fn new(book: TokenBook, is_strict: bool) -> Self {
        Self { book: Mutex::new(book), is_strict }
    }

    /// The app that a request speaks for; empty: the owner's. Clients of OpenAI's API always show something: where no
    /// token is asked for, only what looks like one of ours is looked up.
    pub(crate) fn app(&self, headers: &HeaderMap) -> Result<String, ApiError> {
        let shown = headers.get(AUTHORIZATION).map(|value| bearer(value.as_bytes()));
        match shown {
            Some(Some(token)) if self.is_strict || token.starts_with(TOKEN_PREFIX.as_bytes()) => self.app_of(token),
            Some(_) | None if !self.is_strict => Ok(String::new()),
            Some(_) => Err(unknown("the Authorization header should be: Bearer TOKEN")),
            None => Err(unknown("a token is needed here, as api_key: make one with `sheaf token create`")),
        }
    }

    fn app_of(&self, token: &[u8]) -> Result<String, ApiError> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        match book.principal(token) {
            Some(Principal::Client(app)) => Ok(app),
            Some(Principal::Owner | Principal::Worker | Principal::Admin) => {
                let (status, code) = (StatusCode::FORBIDDEN, Some("wrong_role"));
                let message = "this token is no client's: make one with `sheaf token create --role client --app APP`";
                Err(ApiError { status, code, ..ApiError::invalid(message, None) })
            }
            None => Err(unknown("this token is not known here, or was revoked")),
        }
    }
}

fn unknown(message: &str) -> ApiError {
    let (status, code) = (StatusCode::UNAUTHORIZED, Some("invalid_api_key"));
    ApiError { status, code, ..ApiError::invalid(message, None) }
}

/// What stands behind `Bearer`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use sheaf_server::tokens::create_token;

    use super::*;

    #[test]
    fn a_token_says_whose_app_it_is_and_no_token_is_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (_, client) = create_token(dir.path(), Principal::Client("a".to_owned())).unwrap();
        let (_, worker) = create_token(dir.path(), Principal::Worker).unwrap();
        let who = |is_strict| Who::new(TokenBook::open(dir.path()).unwrap(), is_strict);
        let asked = |is_strict, shown: Option<String>| {
            let mut headers = HeaderMap::new();
            shown.map(|shown| headers.insert(AUTHORIZATION, shown.parse().unwrap()));
            who(is_strict).app(&headers).map_err(|error| error.status.as_u16())
        };
        let bearer = |token: &str| Some(format!("bearer {token}"));
        for is_strict in [false, true] {
            assert_eq!(asked(is_strict, bearer(client.reveal())), Ok("a".to_owned()));
            assert_eq!(asked(is_strict, bearer(worker.reveal())), Err(403));
            assert_eq!(asked(is_strict, bearer("sheaf_0123")), Err(401));
        }
        for shown in [None, bearer("sk-none"), bearer(""), Some("Basic eDp5".to_owned()), Some("B".to_owned())] {
            assert_eq!(asked(false, shown.clone()), Ok(String::new()), "{shown:?}");
            assert_eq!(asked(true, shown), Err(401));
        }
    }
}
