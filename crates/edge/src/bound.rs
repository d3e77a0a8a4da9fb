//! An address that is taken for a listener of this process, before anybody is answered there: the front door's, or the
//! operators'. Both keep the rule of all listeners: what is reached from elsewhere has TLS and asks for tokens.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use sheaf_roles::port::Principal;
use sheaf_server::TokenBook;
use sheaf_server::tokens::TokensError;
use tokio::net::TcpListener;

use crate::who::Who;

/// Whom a listener answers where it asks for tokens: the front door clients, the operators' one admins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Tenants.
    Client,
    /// Operators.
    Admin,
}

impl Role {
    fn has(self, principal: &Principal) -> bool {
        match principal {
            Principal::Client(_) => self == Self::Client,
            Principal::Admin => self == Self::Admin,
            Principal::Owner | Principal::Worker => false,
        }
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client --app APP",
            Self::Admin => "admin",
        })
    }
}

/// Where a listener is, and whom it answers.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Its address.
    pub listen: String,
    /// TLS on it; none only on loopback.
    pub tls: Option<Arc<ServerConfig>>,
    /// The directory that has the tokens.
    pub tokens: PathBuf,
    /// Nobody is answered without one, on loopback either.
    pub require_token: bool,
    /// Whose they are.
    pub role: Role,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address itself.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// As it was given.
        addr: String,
        /// What the system says.
        error: io::Error,
    },
    /// It would be open to everybody.
    #[error("{addr} is reached from elsewhere: there is TLS there, or nobody listens (--tls)")]
    NoTls {
        /// The address.
        addr: SocketAddr,
    },
    /// Nobody could use it.
    #[error("nobody has a token for {addr}: make one first with `sheaf token create --data {data} --role {role}`")]
    NoTokens {
        /// The address.
        addr: SocketAddr,
        /// Where tokens are kept.
        data: PathBuf,
        /// Whose token there is none of.
        role: Role,
    },
    /// The tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// An address that is taken. Who connects waits until somebody listens.
pub struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) who: Who,
}

impl Bound {
    /// Takes the address.
    pub async fn take(config: ListenConfig) -> Result<Self, BindError> {
        let ListenConfig { listen, tls, tokens, require_token, role } = config;
        let failed = |error| BindError::Listen { addr: listen.clone(), error };
        let listener = TcpListener::bind(&listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let is_far = !addr.ip().to_canonical().is_loopback();
        if is_far && tls.is_none() {
            return Err(BindError::NoTls { addr });
        }
        let is_strict = is_far || require_token;
        let book = TokenBook::open(&tokens)?;
        if is_strict && !book.has_tokens_of(|principal| role.has(principal)) {
            return Err(BindError::NoTokens { addr, data: tokens, role });
        }
        Ok(Self { listener, addr, tls, who: Who::new(book, is_strict) })
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether it has TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}
