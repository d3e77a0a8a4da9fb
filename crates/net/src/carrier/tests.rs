//! A carrier with TLS holds nothing back: what it took while its socket was full leaves when there is room, though nothing
//! more is written.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::authority::{Authority, own_names};
use crate::tls::client_config;

async fn pair() -> (Carrier, Carrier) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let acceptor = TlsAcceptor::from(authority.server_config(&own_names("127.0.0.1:0")).unwrap());
    let connector = TlsConnector::from(client_config(Some(authority.path())).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let name = ServerName::try_from("localhost").unwrap();
    let connected = async { connector.connect(name, TcpStream::connect(addr).await.unwrap()).await.unwrap() };
    let (near, far) = tokio::join!(accepted, connected);
    (Carrier::tls(near.into(), addr), Carrier::tls(far.into(), addr))
}

#[tokio::test]
async fn nothing_stays_in_a_carrier_whose_socket_was_full() {
    let (mut near, mut far) = pair().await;
    let (mut outbound, mut written, mut read) = (Outbound::default(), 0, 0);
    // Until it takes no more, with nobody reading.
    loop {
        outbound.push(Bytes::from(vec![7; 50_000]));
        let write = async {
            while outbound.has_remaining() {
                near.writer.write(&mut outbound).await.unwrap();
            }
        };
        let is_full = timeout(Duration::from_millis(200), write).await.is_err();
        written += 50_000;
        if is_full {
            break;
        }
    }
    // What it did not take is forgotten, so that all that is left is in it; each write may be dropped, as the link drops them.
    written -= outbound.remaining();
    outbound.clear();
    let drained = async {
        while read < written {
            tokio::select! {
                biased;
                // First, so that the last of it is taken while the socket is full.
                wrote = near.writer.write(&mut outbound), if outbound.has_remaining() || !near.writer.is_flushed() => {
                    wrote.unwrap();
                }
                bytes = far.reader.read(0) => read += bytes.unwrap().expect("it is open").len(),
            }
        }
    };
    timeout(Duration::from_secs(60), drained).await.expect("bytes stay where they are");
}
