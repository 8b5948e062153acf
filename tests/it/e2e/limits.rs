//! The bounds that only a real connection meets.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::PATIENCE;
use crate::support::service::{Options, Service};

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.url.trim_start_matches("http://")).await.unwrap()
}

/// What comes until the connection is closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer counts as its end.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask(service: &Service, head: &str) -> String {
    let mut stream = connect(service).await;
    let _ = stream.write_all(head.as_bytes()).await;
    rest(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_bounded_in_every_way() {
    let service = Service::start().await;
    let head = |fields: &str| {
        format!(
            "GET /api/v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n"
        )
    };
    let cookie = |kib: usize| format!("cookie: {}\r\n", "x".repeat(kib << 10));
    let answer = ask(&service, &head("")).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    // In words, as long as it can be read at all.
    let answer = ask(&service, &head(&cookie(65))).await;
    assert!(
        answer.starts_with("HTTP/1.1 431 ") && answer.contains("headers_too_large"),
        "{answer}"
    );
    for fields in [cookie(600), "x: y\r\n".repeat(200)] {
        let answer = ask(&service, &head(&fields)).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_further_ones_wait() {
    let options = |connections: &str| Options {
        env: vec![("SUPERCARGO__HTTP__MAX_CONNECTIONS".to_owned(), connections.to_owned())],
        ..Options::default()
    };
    let service = Service::start_with(options("10")).await;
    let request = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // Each is answered once, and stays open. The client of the service itself may hold one.
    let mut held = Vec::new();
    let mut waiting = loop {
        assert!(held.len() <= 10, "there is no limit");
        let mut stream = connect(&service).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut byte = [0; 1];
        let answered = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut byte));
        match answered.await {
            Ok(read) => {
                read.unwrap();
                held.push(stream);
            }
            Err(_) => break stream,
        }
    };
    assert!(held.len() >= 8, "{}", held.len());
    held.pop();
    let mut byte = [0; 1];
    tokio::time::timeout(PATIENCE, waiting.read_exact(&mut byte))
        .await
        .expect("the one that waited has its turn")
        .unwrap();
    let log = std::fs::read_to_string(service.data_dir().join("service.log")).unwrap();
    assert!(log.contains("every connection is in use"), "{log}");
}
