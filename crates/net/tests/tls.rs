//! Sessions over TLS, and whoever is not to be trusted: each is told once, and tries no further.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: its panic is its message")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{Caller, Hall, Heard};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use sheaf_net::authority::{Authority, own_names};
use sheaf_net::tls::{TlsError, client_config, server_config};
use sheaf_net::{NetError, Target};
use sheaf_session::{Auth, Refusal};
use tempfile::TempDir;

const NO_TOKEN: Auth = Auth(Bytes::new());

async fn remote(addr: SocketAddr, ca: &Path) -> Target {
    Target::remote(&format!("sheaf://localhost:{}", addr.port()), Some(ca), NO_TOKEN).await.unwrap()
}

fn names() -> Vec<String> {
    own_names("127.0.0.1:0")
}

/// A hall with a private authority.
async fn hall(dir: &TempDir) -> (Hall, Authority) {
    let authority = Authority::open(dir.path()).unwrap();
    (Hall::over_tls(authority.server_config(&names()).unwrap()).await, authority)
}

/// What a dialer hears that is to hear no more than this.
async fn heard(target: Target) -> Heard {
    Caller::dial(target, 1, None).hear().await
}

#[tokio::test]
async fn a_session_over_tls_carries_all_that_is_said_to_its_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let (hall, authority) = hall(&dir).await;
    let addr = hall.addr.unwrap();
    for (id, host) in [(1, "localhost"), (2, "127.0.0.1")] {
        let addr = format!("sheaf://{host}:{}", addr.port());
        let target = Target::remote(&addr, Some(authority.path()), NO_TOKEN).await.unwrap();
        assert_eq!(target.to_string(), addr);
        let mut caller = Caller::dial(target, id, None);
        let bodies: Vec<Bytes> = (0..200).map(|n: u8| vec![n; 1 + usize::from(n) * 1_000].into()).collect();
        caller.say(bodies.clone()).await;
        for body in bodies {
            assert_eq!(caller.message().await, body);
        }
        caller.close().await;
    }
    hall.stop().await;
}

#[tokio::test]
async fn an_authority_is_made_once_and_its_key_is_its_owners() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(dir.path()).unwrap();
    let ca = fs::read(first.path()).unwrap();
    let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // What the next life signs, those trust who were given the certificate in this one.
    let (hall, again) = hall(&dir).await;
    assert_eq!(fs::read(again.path()).unwrap(), ca);
    assert!(matches!(heard(remote(hall.addr.unwrap(), again.path()).await).await, Heard::Up { .. }));
    hall.stop().await;
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hall, _) = hall(&dir).await;
    let other = Authority::open(other.path()).unwrap();
    let target = remote(hall.addr.unwrap(), other.path()).await;
    assert_eq!(heard(target).await, Heard::Refused(Refusal::Untrusted));
    hall.stop().await;
}

/// Files of a certificate for `name` that ends in `year`, of its key, and of the authority that signed it.
fn made(dir: &Path, name: &str, year: i32) -> [PathBuf; 3] {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let mut cert = CertificateParams::new(vec![name.to_owned()]).unwrap();
    cert.not_after = date_time_ymd(year, 1, 1);
    let cert = cert.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let files = ["cert.pem", "cert.key", "ca.pem"].map(|file| dir.join(file));
    for (file, text) in files.iter().zip([cert.pem(), key.serialize_pem(), ca_pem]) {
        fs::write(file, text).unwrap();
    }
    files
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_shown_and_one_that_has_expired_or_names_another_is_refused() {
    let untrusted = Heard::Refused(Refusal::Untrusted);
    for (name, year, expected) in [
        ("localhost", 2_999, Heard::Up { resumed: false }),
        ("localhost", 2_001, Heard::Refused(Refusal::Untrusted)),
        ("elsewhere", 2_999, untrusted),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let [cert, key, ca] = made(dir.path(), name, year);
        let hall = Hall::over_tls(server_config(&cert, &key).unwrap()).await;
        assert_eq!(heard(remote(hall.addr.unwrap(), &ca).await).await, expected, "{name} until {year}");
        hall.stop().await;
    }
}

#[tokio::test]
async fn where_only_one_side_has_tls_both_know() {
    let dir = tempfile::tempdir().unwrap();
    let (hall, authority) = hall(&dir).await;
    let untrusted = Heard::Refused(Refusal::Untrusted);
    assert_eq!(heard(Target::Tcp(hall.addr.unwrap())).await, untrusted, "without TLS to a port with it");
    hall.stop().await;
    let plain = Hall::open(Some("127.0.0.1:0"), None).await;
    let target = remote(plain.addr.unwrap(), authority.path()).await;
    assert_eq!(heard(target).await, untrusted, "with TLS to a port without");
    plain.stop().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_said_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key, ca] = made(dir.path(), "localhost", 2_999);
    let missing = dir.path().join("missing");
    assert!(matches!(client_config(Some(&missing)), Err(TlsError::Read { path, .. }) if path == missing));
    assert!(matches!(client_config(Some(&key)), Err(TlsError::Empty { path }) if path == key));
    assert!(matches!(server_config(&cert, &ca), Err(TlsError::Read { path, .. }) if path == ca));
    assert!(matches!(server_config(&ca, &key), Err(TlsError::Unfit { path, .. }) if path == ca), "another's key");
    for addr in ["sheaf://", "sheaf://localhost", "sheaf://localhost:http", "sheaf://a b:1", "sheaf://:1"] {
        let target = Target::remote(addr, Some(&ca), NO_TOKEN).await;
        assert!(matches!(target, Err(NetError::Address { .. })), "{addr}");
    }
    let far = Target::remote("192.0.2.1:4477", None, Auth(Bytes::from_static(b"token"))).await;
    assert!(matches!(far, Err(NetError::NotLoopback { .. })), "a token is not told to the network");
}
