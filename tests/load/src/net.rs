//! Connections to a server: TCP or TLS, one request at a time, kept alive. The thin shell around [`Decoder`].

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::http1::Decoder;
use crate::tally::Fault;

const CONNECT: Duration = Duration::from_secs(10);
/// A blocking reload may be held for three target durations.
const ANSWER: Duration = Duration::from_secs(45);
/// A playlist larger than this is refused.
const BODY: usize = 8 * 1024 * 1024;

thread_local! {
    /// Every connection of the thread reads into it; a waiting one needs no buffer of its own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// What the connections of one thread share.
pub struct Network {
    tls: TlsConnector,
    /// Names are looked up once. At most [`Network::NAMES`], the oldest goes first.
    names: RefCell<Vec<(String, u16, SocketAddr)>>,
    /// Reused connections that turned out to be closed.
    pub reconnects: Cell<u64>,
    sources: Cell<u8>,
}

impl Network {
    const NAMES: usize = 16;

    /// `roots`: certificates to trust.
    pub fn new(roots: Arc<rustls::RootCertStore>) -> Self {
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Self { tls, names: RefCell::default(), reconnects: Cell::new(0), sources: Cell::new(0) }
    }

    pub async fn address(&self, url: &Url) -> Result<SocketAddr, Fault> {
        let (host, port) = host_and_port(url)?;
        let known = self.names.borrow().iter().find(|(h, p, _)| h == host && *p == port).map(|(.., a)| *a);
        if let Some(address) = known {
            return Ok(address);
        }
        // A literal IPv6 address stands in brackets in a URL.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await.map_err(|e| Fault::Connect(e.to_string()))?;
        let address = found.into_iter().next().ok_or_else(|| Fault::Connect(format!("{host} has no address")))?;
        let mut names = self.names.borrow_mut();
        if names.len() >= Self::NAMES {
            names.remove(0);
        }
        names.push((host.to_owned(), port, address));
        Ok(address)
    }

    /// Opens a TCP connection that does not wait to fill packets.
    pub async fn tcp(&self, url: &Url) -> Result<TcpStream, Fault> {
        let address = self.address(url).await?;
        let refused = |e: std::io::Error| Fault::Connect(e.kind().to_string());
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(refused)?;
        if let IpAddr::V4(ip) = address.ip()
            && ip.is_loopback()
        {
            socket.bind(SocketAddr::from(([127, 0, 0, self.source()], 0))).map_err(refused)?;
        }
        let stream = timeout(CONNECT, socket.connect(address)).await.map_err(|_| Fault::Timeout)?;
        let stream = stream.map_err(refused)?;
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// The last byte of the next connection's own loopback address: one address has only 28,000 ports.
    fn source(&self) -> u8 {
        let next = self.sources.get() % 8 + 1;
        self.sources.set(next);
        next
    }

    async fn open(&self, url: &Url) -> Result<Stream, Fault> {
        let tcp = self.tcp(url).await?;
        if url.scheme() != "https" {
            return Ok(Stream::Plain(tcp));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|e| Fault::Connect(e.to_string()))?;
        let tls = timeout(CONNECT, self.tls.connect(name, tcp)).await.map_err(|_| Fault::Timeout)?;
        Ok(Stream::Tls(Box::new(tls.map_err(|e| Fault::Connect(e.to_string()))?)))
    }
}

/// The certificates in a PEM file. Err: a sentence.
pub fn roots(file: &std::path::Path) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| format!("{}: {e}", file.display()))?;
    roots.add_parsable_certificates(certificates.flatten());
    if roots.is_empty() { Err(format!("{}: no certificate in it", file.display())) } else { Ok(roots) }
}

/// An answer that has come completely.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    /// Bytes of the body.
    pub length: u64,
    pub sent: Instant,
    pub first_byte: Instant,
    pub last_byte: Instant,
}

/// One kept-alive connection to whatever host the last request went to.
#[derive(Default)]
pub struct Connection {
    stream: Option<Stream>,
    /// Scheme, host and port that `stream` belongs to.
    peer: Option<Url>,
}

impl Connection {
    /// Fetches and keeps the body.
    pub async fn text(&mut self, network: &Network, url: &Url) -> Result<(Answer, Vec<u8>), Fault> {
        let mut body = Vec::new();
        let mut over = false;
        let answer = self
            .get(network, url, "", &mut |bytes| {
                over |= body.len() + bytes.len() > BODY;
                if !over {
                    body.extend_from_slice(bytes);
                }
            })
            .await?;
        if over { Err(Fault::Http("a playlist is too large")) } else { Ok((answer, body)) }
    }

    /// Fetches; the body goes to `body`. `headers`: further lines, each with CR LF.
    pub async fn get(
        &mut self,
        network: &Network,
        url: &Url,
        headers: &str,
        body: &mut impl FnMut(&[u8]),
    ) -> Result<Answer, Fault> {
        self.exchange(network, url, &request(url, headers)?, body).await
    }

    /// Sends these bytes as a request. A kept-alive connection that the server has closed meanwhile is replaced once.
    pub async fn exchange(
        &mut self,
        network: &Network,
        url: &Url,
        request: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<Answer, Fault> {
        let fits = self.peer.as_ref().is_some_and(|p| same_peer(p, url));
        if let Some(stream) = self.stream.take().filter(|_| fits) {
            match self.on(stream, request, body).await {
                Err((Fault::Closed, true)) => network.reconnects.set(network.reconnects.get() + 1),
                other => return other.map_err(|(fault, _)| fault),
            }
        }
        let stream = network.open(url).await?;
        self.peer = Some(url.clone());
        self.on(stream, request, body).await.map_err(|(fault, _)| fault)
    }

    /// Err: with whether not a byte of an answer has come.
    async fn on(
        &mut self,
        mut stream: Stream,
        request: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<Answer, (Fault, bool)> {
        let sent = Instant::now();
        let mut decoder = Decoder::default();
        let mut first_byte = None;
        let exchange = async {
            let written = async {
                stream.write_all(request).await?;
                stream.flush().await
            };
            // A server may refuse before it has read everything; its answer is worth more than the failed write.
            let _ = written.await;
            poll_fn(|cx| {
                SCRATCH.with_borrow_mut(|scratch| {
                    loop {
                        let mut buffer = ReadBuf::new(scratch);
                        if ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer)).is_err() {
                            return Poll::Ready(Err(Fault::Closed));
                        }
                        if buffer.filled().is_empty() {
                            return Poll::Ready(decoder.end());
                        }
                        first_byte.get_or_insert_with(Instant::now);
                        match decoder.feed(buffer.filled(), body) {
                            Ok(false) => {}
                            Ok(true) => return Poll::Ready(Ok(())),
                            Err(fault) => return Poll::Ready(Err(fault)),
                        }
                    }
                })
            })
            .await
        };
        let result = timeout(ANSWER, exchange).await.unwrap_or(Err(Fault::Timeout));
        result.map_err(|fault| (fault, decoder.is_untouched()))?;
        let last_byte = Instant::now();
        if decoder.reusable {
            self.stream = Some(stream);
        }
        let (status, length, location) = (decoder.status, decoder.length, decoder.location);
        Ok(Answer { status, location, length, sent, first_byte: first_byte.unwrap_or(last_byte), last_byte })
    }
}

/// A GET with further header lines.
pub fn request(url: &Url, headers: &str) -> Result<Vec<u8>, Fault> {
    host_and_port(url)?;
    let mut text = String::with_capacity(256);
    let path = url.path();
    // Writing to a String cannot fail.
    let _ = match url.query() {
        Some(query) => write!(text, "GET {path}?{query} HTTP/1.1\r\n"),
        None => write!(text, "GET {path} HTTP/1.1\r\n"),
    };
    let _ = write!(text, "host: {}", url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        let _ = write!(text, ":{port}");
    }
    let _ = write!(text, "\r\nuser-agent: fishladder-load\r\naccept: */*\r\n{headers}\r\n");
    Ok(text.into_bytes())
}

fn host_and_port(url: &Url) -> Result<(&str, u16), Fault> {
    let known = matches!(url.scheme(), "http" | "https");
    let parts = url.host_str().zip(url.port_or_known_default()).filter(|_| known);
    parts.ok_or_else(|| Fault::Connect(format!("not an http(s) URL: {url:.120}")))
}

fn same_peer(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
