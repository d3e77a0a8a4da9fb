//! A private certificate authority, for routers that nobody gave a certificate.
//!
//! ```text
//! DIR/ca.pem      the authority's certificate: no secret, give it to whoever connects (--ca)
//! DIR/ca.key      its key, readable by the owner only
//! ```
//!
//! Invariants: both are made once, the key first, and neither is ever overwritten. A listener's own certificate is made
//! at each start and never written: it expires, and whoever has it only for a moment cannot lose it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tls::{TlsError, listening};

/// How long a listener's certificate is good for, from its start. Longer: the router is to be started again.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(397 * 86_400);

/// How long an authority is.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_650 * 86_400);

/// Clocks may differ by so much.
const CLOCK_SLACK: Duration = Duration::from_secs(86_400);

/// An authority and its files.
#[derive(Debug)]
pub struct Authority {
    path: PathBuf,
    key: KeyPair,
}

impl Authority {
    /// Takes the one of this directory, or makes one.
    pub fn open(dir: &Path) -> Result<Self, TlsError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
        let (path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        if !key_path.exists() {
            write_once(&key_path, &KeyPair::generate()?.serialize_pem(), 0o600)?;
        }
        let key = fs::read_to_string(&key_path).map_err(io_error("read", &key_path))?;
        let key = KeyPair::from_pem(&key)?;
        if !path.exists() {
            write_once(&path, &params().self_signed(&key)?.pem(), 0o644)?;
        }
        Ok(Self { path, key })
    }

    /// Its certificate, for [`crate::tls::client_config`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For a listener that is reached by these names and addresses. Its certificate is new.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
        let issuer = Issuer::new(params(), &self.key);
        let key = KeyPair::generate()?;
        let mut cert = CertificateParams::new(names)?;
        cert.not_before = date_time_ymd(1970, 1, 1) + now().saturating_sub(CLOCK_SLACK);
        cert.not_after = date_time_ymd(1970, 1, 1) + now() + CERTIFICATE_LIFE;
        cert.distinguished_name.push(DnType::CommonName, "sheaf router");
        cert.use_authority_key_identifier_extension = true;
        cert.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        cert.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let cert = cert.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        listening(vec![cert.der().clone()], key).map_err(|why| TlsError::Unfit { path: self.path.clone(), why })
    }
}

/// The authority's own certificate, apart from its key: the same each time, so that what it signs names it rightly.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1) + now().saturating_sub(CLOCK_SLACK);
    params.not_after = date_time_ymd(1970, 1, 1) + now() + AUTHORITY_LIFE;
    params.distinguished_name.push(DnType::CommonName, "sheaf private authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// The names by which a listener at the address `listen` is reached from this machine, and from elsewhere as far as it can
/// know.
pub fn own_names(listen: &str) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let listen = listen.rsplit_once(':').map_or(listen, |(host, _)| host).trim_matches(['[', ']']);
    let is_any = listen.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    for name in [host.trim(), listen] {
        // A host's name may hold what no certificate may.
        let is_fit =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte));
        if is_fit && !(is_any && name == listen) && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn write_once(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let aside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(io_error("write", path))
}

fn io_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    let path = path.to_owned();
    move |error| TlsError::Io { act, path, error }
}
