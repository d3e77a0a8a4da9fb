//! TLS 1.3: what both ends are configured with, read from files of PEM. One version and one provider of cryptography,
//! whoever listens or connects; the private authority of a router is in `authority`.
//!
//! It knows no tokens: TLS says that the router is the one that was meant, and who may speak to it is said inside.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or a key cannot be read.
    #[error("cannot read {path}: {why}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: rustls::pki_types::pem::Error,
    },
    /// A file of certificates has none.
    #[error("{path} holds no certificate: it should be PEM, with BEGIN CERTIFICATE")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The certificate and the key do not serve together, or an authority is none.
    #[error("{path} cannot be used: {why}")]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why.
        why: rustls::Error,
    },
    /// The system knows no certificate authorities.
    #[error("this system has no certificate authorities to trust: name those of the router with --ca FILE")]
    NoRoots,
    /// The private authority cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file of the private authority cannot be written or read.
    #[error("cannot {act} {path}: {error}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// For a listener that shows the certificates in `cert`, its own first, and holds the key in `key`. No application protocol
/// is named: whoever speaks HTTP names its own in a copy.
pub fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let certs = certificates(cert)?;
    let read = |why| TlsError::Read { path: key.to_owned(), why };
    let key = PrivateKeyDer::from_pem_file(key).map_err(read)?;
    listening(certs, key).map_err(|why| TlsError::Unfit { path: cert.to_owned(), why })
}

/// For a dialer that trusts the authorities in `ca` and no others, or those of the system.
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for cert in certificates(path)? {
                roots.add(cert).map_err(|why| TlsError::Unfit { path: path.to_owned(), why })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    let config = ClientConfig::builder_with_provider(provider());
    #[expect(clippy::expect_used, reason = "the provider is fixed, and has TLS 1.3")]
    let config = config.with_protocol_versions(VERSIONS).expect("the provider has TLS 1.3");
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

pub(crate) fn listening(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let mut config = config.with_no_client_auth().with_single_cert(certs, key)?;
    // A session of ours outlives its connections and is bound to its token: nothing of TLS need be resumed.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |why| TlsError::Read { path: path.to_owned(), why };
    let certs = CertificateDer::pem_file_iter(path).map_err(read)?;
    let certs = certs.collect::<Result<Vec<_>, _>>().map_err(read)?;
    if certs.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(certs) }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What a listener without TLS says to a dialer with it, in the dialer's own language: a fatal alert, `protocol_version`.
pub(crate) const ALERT_NO_TLS: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];

/// A greeting that begins so is one of TLS.
pub(crate) fn is_handshake(first: &[u8]) -> bool {
    first.starts_with(&[0x16, 3])
}

/// What a listener with TLS says to a dialer without it is an alert. No packet of a session is: it would be of 197 KB.
pub(crate) fn is_alert(first: &[u8]) -> bool {
    first.starts_with(&[0x15, 3, 3, 0, 2]) || first.starts_with(&[0x15, 3, 1, 0, 2])
}

/// Why no connection may be trusted, where that will be so the next time, too: what TLS found wrong, and not the network.
pub(crate) fn distrust(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}
