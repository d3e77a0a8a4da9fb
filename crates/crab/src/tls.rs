//! TLS, by the system's OpenSSL or by rustls: one of the two is built in. Both take TLS 1.2 and 1.3 with their own defaults,
//! and keep no sessions: a client resumes with the ticket that it holds itself.

#[cfg(not(any(feature = "openssl", feature = "rustls")))]
compile_error!("crab needs one of its features `openssl` (the default) and `rustls`");

#[cfg(feature = "openssl")]
#[path = "tls/by_openssl.rs"]
mod imp;
#[cfg(all(feature = "rustls", not(feature = "openssl")))]
#[path = "tls/by_rustls.rs"]
mod imp;

pub(crate) use imp::{Acceptor, Stream};
