//! Proxies as companies have them: by CONNECT of HTTP, with a password, and by SOCKS 5, without one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Listens at a port of this machine, for as long as it is there.
pub(crate) struct Tunnel {
    address: SocketAddr,
    /// Where its clients wanted to go.
    asked: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Tunnel {
    /// `password`: `Basic` and the rest of a header, without which nobody gets through by HTTP.
    pub(crate) async fn start(password: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let mut task = JoinSet::new();
        let seen = Arc::clone(&asked);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                // A broken connection is its client's affair.
                connections.spawn(async move {
                    serve(client, password, &seen).await.unwrap_or_default();
                });
            }
        });
        Self { address, asked, _task: task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut client: TcpStream,
    password: &str,
    asked: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    client.read_buf(&mut head).await?;
    let place = if head.first() == Some(&5) {
        client.write_all(&[5, 0]).await?;
        // Version, command, nothing, kind of address (4 bytes here), address, port.
        let mut it = [0; 10];
        client.read_exact(&mut it).await?;
        let ip = Ipv4Addr::new(it[4], it[5], it[6], it[7]);
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        asked.lock().unwrap().push(format!("socks5 {ip}"));
        format!("{ip}:{}", u16::from_be_bytes([it[8], it[9]]))
    } else {
        while !head.ends_with(b"\r\n\r\n") {
            if client.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let header = head.lines().find_map(|it| {
            let (name, value) = it.split_once(": ")?;
            name.eq_ignore_ascii_case("proxy-authorization").then(|| value.to_owned())
        });
        let line = head.lines().next().unwrap_or_default();
        asked.lock().unwrap().push(line.to_owned());
        if header.as_deref() != Some(password) {
            return client
                .write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
        line.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let mut server = TcpStream::connect(place).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
