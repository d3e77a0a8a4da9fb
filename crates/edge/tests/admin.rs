//! The operators' listener before there is a router: it lives, is not ready, and says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use sheaf_edge::{Admin, Bound, ListenConfig, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn get(admin: &Admin, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin.addr()).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn while_the_journal_is_replayed_it_lives_and_is_not_ready() {
    let tokens = tempfile::tempdir().unwrap();
    let (listen, tokens) = ("127.0.0.1:0".to_owned(), tokens.path().to_owned());
    let config = ListenConfig { listen, tls: None, tokens, require_token: false, role: Role::Admin };
    let at = Bound::take(config).await.unwrap();
    let admin = Admin::open(at, false);
    assert_eq!(get(&admin, "/healthz").await.0, 200);
    for path in ["/readyz", "/api/v1/snapshot", "/api/v1/jobs", "/api/v1/jobs/x", "/api/v1/workers"] {
        assert_eq!(get(&admin, path).await.0, 503, "{path}");
    }
    let (status, page) = get(&admin, "/metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("sheaf_build_info") && !page.contains("sheaf_tasks"), "{page}");
    admin.close().await;
}
