//! Whom a request speaks for: the app of its token, or whoever runs the router where no token is asked for.
//!
//! It knows no route. Invariant: what was shown is in no message and no log.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use sheaf_roles::port::Principal;
use sheaf_server::TokenBook;
use sheaf_server::tokens::TOKEN_PREFIX;

use crate::reply::ApiError;

/// Looks at tokens.
pub(crate) struct Who {
    // Handlers look on several threads; each look asks for the state of a file, and rarely reads it.
    books: Mutex<Books>,
    /// Nobody is answered without a token.
    is_strict: bool,
}

/// The tokens, and what was said of those that are none.
struct Books {
    tokens: TokenBook,
    said_at: Option<Instant>,
    /// Requests that were turned away since.
    unsaid: u64,
}

/// Between two lines of the log about tokens that are not known.
const SAY_EVERY: Duration = Duration::from_secs(10);

impl Who {
    pub(crate) fn new(tokens: TokenBook, is_strict: bool) -> Self {
        Self { books: Mutex::new(Books { tokens, said_at: None, unsaid: 0 }), is_strict }
    }

    /// The app that a request speaks for; empty: the owner's. Clients of OpenAI's API always show something: where no
    /// token is asked for, only what looks like one of ours is looked up. A page of some other site in a browser on this
    /// machine is not the owner.
    pub(crate) fn app(&self, headers: &HeaderMap) -> Result<String, ApiError> {
        let shown = headers.get(AUTHORIZATION).map(|value| bearer(value.as_bytes()));
        match shown {
            Some(Some(token)) if self.is_strict || token.starts_with(TOKEN_PREFIX.as_bytes()) => self.app_of(token),
            Some(_) | None if !self.is_strict && is_from_here(headers) => Ok(String::new()),
            Some(_) | None if !self.is_strict => Err(foreign()),
            Some(_) => Err(unknown("the Authorization header should be: Bearer TOKEN")),
            None => Err(unknown("a token is needed here, as api_key: make one with `sheaf token create`")),
        }
    }

    /// The apps that have a token here.
    pub(crate) fn apps(&self) -> BTreeSet<String> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).tokens.apps()
    }

    /// Whether a request is an operator's: of an admin, or of whoever runs the router where no token is asked for.
    pub(crate) fn admin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let shown = headers.get(AUTHORIZATION).map(|value| bearer(value.as_bytes()));
        match shown {
            Some(Some(token)) if self.is_strict || token.starts_with(TOKEN_PREFIX.as_bytes()) => {
                match self.principal(token, |principal| matches!(principal, Principal::Admin))? {
                    Some(_) => Ok(()),
                    None => {
                        Err(wrong_role("this token is no admin's: make one with `sheaf token create --role admin`"))
                    }
                }
            }
            Some(_) | None if !self.is_strict && is_from_here(headers) => Ok(()),
            Some(_) | None if !self.is_strict => Err(foreign()),
            Some(_) => Err(unknown("the Authorization header should be: Bearer TOKEN")),
            None => Err(unknown("a token of an admin is needed here: make one with `sheaf token create --role admin`")),
        }
    }

    /// Whom a token speaks for; nothing where that is none of those wanted.
    fn principal(&self, token: &[u8], is_wanted: fn(&Principal) -> bool) -> Result<Option<Principal>, ApiError> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let principal = books.tokens.principal(token);
        if !principal.as_ref().is_some_and(is_wanted) {
            books.note_refused();
        }
        let principal =
            principal.ok_or_else(|| unknown("this token is not known here, was revoked, or has expired"))?;
        Ok(Some(principal).filter(is_wanted))
    }

    fn app_of(&self, token: &[u8]) -> Result<String, ApiError> {
        match self.principal(token, |principal| matches!(principal, Principal::Client(_)))? {
            Some(Principal::Client(app)) => Ok(app),
            Some(Principal::Owner | Principal::Worker | Principal::Admin) | None => {
                let make = "this token is no client's: make one with `sheaf token create --role client --app APP`";
                Err(wrong_role(make))
            }
        }
    }
}

impl Books {
    fn note_refused(&mut self) {
        self.unsaid += 1;
        if self.said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            tracing::warn!(requests = self.unsaid, "requests with a token that is not known, or of another role");
            (self.said_at, self.unsaid) = (Some(Instant::now()), 0);
        }
    }
}

/// Neither the name that was called nor the page that calls is another machine's.
fn is_from_here(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).is_none_or(|host| host.to_str().is_ok_and(is_local_name));
    let origin = headers.get(ORIGIN).is_none_or(|origin| {
        let name = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        name.is_some_and(|(_, name)| is_local_name(name))
    });
    host && origin
}

/// Whether a `Host` is `localhost` or an address, with or without a port.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || port.starts_with(':') => name,
            Some(_) | None => return false,
        },
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// To somebody without a token, under a name or from a page that is not this machine's.
fn foreign() -> ApiError {
    let (status, code) = (StatusCode::FORBIDDEN, Some("foreign_name"));
    let message =
        "without a token only requests to localhost or an address are answered, and of no page of another site";
    ApiError { status, code, ..ApiError::invalid(message, None) }
}

fn wrong_role(message: &str) -> ApiError {
    let (status, code) = (StatusCode::FORBIDDEN, Some("wrong_role"));
    ApiError { status, code, ..ApiError::invalid(message, None) }
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
    fn other_names_for_this_machine_are_refused() {
        for host in ["localhost", "LOCALHOST:4479", "127.0.0.1:4479", "127.0.0.1", "[::1]:4479", "[::1]"] {
            assert!(is_local_name(host), "{host}");
        }
        for host in ["evil.example:4479", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1].evil.example"]
        {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_not_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (_, client) = create_token(dir.path(), Principal::Client("a".to_owned()), None).unwrap();
        let who = Who::new(TokenBook::open(dir.path()).unwrap(), false);
        let asked = |host: &str, origin: Option<&str>, token: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            origin.map(|origin| headers.insert(ORIGIN, origin.parse().unwrap()));
            token.map(|token| headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap()));
            who.app(&headers).map_err(|error| error.status.as_u16())
        };
        assert_eq!(asked("localhost:80", None, None), Ok(String::new()));
        assert_eq!(asked("localhost:80", Some("http://127.0.0.1:3000"), None), Ok(String::new()));
        assert_eq!(asked("evil.example", None, None), Err(403));
        assert_eq!(asked("localhost", Some("https://evil.example"), None), Err(403));
        assert_eq!(asked("localhost", Some("null"), Some("sk-none")), Err(403));
        assert_eq!(asked("router.example.org", None, Some(client.reveal())), Ok("a".to_owned()));
    }

    #[test]
    fn a_token_says_whose_app_it_is_and_no_token_is_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (_, client) = create_token(dir.path(), Principal::Client("a".to_owned()), None).unwrap();
        let (_, worker) = create_token(dir.path(), Principal::Worker, None).unwrap();
        let (_, admin) = create_token(dir.path(), Principal::Admin, None).unwrap();
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
            assert_eq!(asked(is_strict, bearer(admin.reveal())), Err(403));
            let operator = |token: &str| {
                let headers = [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())];
                who(is_strict).admin(&HeaderMap::from_iter(headers)).map_err(|error| error.status.as_u16())
            };
            assert_eq!(operator(admin.reveal()), Ok(()));
            assert_eq!([operator(client.reveal()), operator(worker.reveal())], [Err(403); 2]);
            assert_eq!(operator("sheaf_0123"), Err(401));
            assert_eq!(who(is_strict).admin(&HeaderMap::new()).is_ok(), !is_strict);
        }
        for shown in [None, bearer("sk-none"), bearer(""), Some("Basic eDp5".to_owned()), Some("B".to_owned())] {
            assert_eq!(asked(false, shown.clone()), Ok(String::new()), "{shown:?}");
            assert_eq!(asked(true, shown), Err(401));
        }
    }
}
