//! Tests of TLS over real sockets: versions by ALPN, exchange of the certificate, resumption, cleartext on the TLS port.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::{Pair, Tls};
use super::wire_tests::*;
use super::*;
use crate::config;

struct Files {
    _dir: tempfile::TempDir,
    tls: config::Tls,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tls = config::Tls { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        let files = Self { _dir: dir, tls };
        files.renew();
        files
    }

    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&self.tls.certificate, made.cert.pem()).unwrap();
        std::fs::write(&self.tls.key, made.signing_key.serialize_pem()).unwrap();
    }

    /// A client that trusts the certificate as it is now.
    fn client(&self, alpn: &[&str]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls_pki_types::CertificateDer::from_pem_file(&self.tls.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
        config.enable_early_data = true;
        Arc::new(config)
    }
}

async fn connect(s: &Server, client: &Arc<rustls::ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(s.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    soon(tokio_rustls::TlsConnector::from(client.clone()).connect(name, stream)).await
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(HEALTH.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.ends_with("ok\n") {
        let mut buffer = [0; 1024];
        let n = soon(stream.read(&mut buffer)).await.unwrap();
        assert!(n > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a52_both_versions_are_offered_by_alpn() {
    let files = Files::new();
    let tls = Tls::open(&files.tls).unwrap();
    let s = server(Limits { header: SHORT, ..LIMITS }, Some(tls.acceptor())).await;
    let stream = connect(&s, &files.client(&["h2", "http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost/readyz").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(soon(sender.send_request(request)).await.unwrap().status(), 200);
    for alpn in [&["http/1.1"][..], &[]] {
        let mut stream = connect(&s, &files.client(alpn)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), alpn.first().map(|a| a.as_bytes()));
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    // Neither: no protocol is guessed.
    assert!(connect(&s, &files.client(&["spdy/3"])).await.is_err());
    // A handshake that does not go on is cut off.
    let mut silent = TcpStream::connect(s.address).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    until(|| s.counts("fishladder_http_timeouts_total{reason=\"handshake\"} 1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchanged_certificate_is_for_new_connections() {
    let files = Files::new();
    let tls = Arc::new(Tls::open(&files.tls).unwrap());
    let s = server(LIMITS, Some(tls.acceptor())).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let following = tokio::spawn(tls.clone().follow(false, s.metrics.clone(), stopped));
    let before = files.client(&[]);
    let mut old = connect(&s, &before).await.unwrap();
    ask(&mut old).await;
    files.renew();
    until(|| s.counts("fishladder_tls_certificate_reads_total{outcome=\"exchanged\"} 1")).await;
    let new = connect(&s, &files.client(&[])).await.unwrap();
    let shown = new.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    assert_eq!(shown, Pair::read(&files.tls).unwrap().leaf());
    // The open one goes on, and knows the old one.
    ask(&mut old).await;
    assert_ne!(old.get_ref().1.peer_certificates().unwrap()[0].to_vec(), shown);
    stop.send(true).unwrap();
    soon(following).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_resume_and_no_early_data_is_taken() {
    let files = Files::new();
    let tls = Tls::open(&files.tls).unwrap();
    let s = server(LIMITS, Some(tls.acceptor())).await;
    let client = files.client(&["http/1.1"]);
    let mut first = connect(&s, &client).await.unwrap();
    assert_eq!(first.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    // The tickets come before the answer.
    ask(&mut first).await;
    // The server remembers nothing, so that many other clients in between are no matter.
    for _ in 0..300 {
        connect(&s, &files.client(&[])).await.unwrap();
    }
    let mut second = connect(&s, &client).await.unwrap();
    assert_eq!(second.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    assert!(!second.get_ref().1.is_early_data_accepted() && second.get_mut().1.early_data().is_none());
    ask(&mut second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleartext_on_the_tls_port_is_told_so() {
    let files = Files::new();
    let tls = Tls::open(&files.tls).unwrap();
    let s = server(LIMITS, Some(tls.acceptor())).await;
    for request in [HEALTH, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /", &format!("POST / HTTP/1.1\r\n{HEALTH:9000}")] {
        let text = match request {
            // One that waits for an answer before it closes its side.
            HEALTH => answer(&mut s.raw(request).await).await,
            _ => {
                let mut stream = s.raw(request).await;
                stream.shutdown().await.unwrap();
                rest(&mut stream).await
            }
        };
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("https://"), "{request}: {text}");
    }
    until(|| s.counts("fishladder_http_refused_connections_total{reason=\"cleartext\"} 4")).await;
    until(|| s.metrics.connections() == 0).await;
    // What is neither gets TLS's own answer.
    let text = rest(&mut s.raw("\u{1}\u{2}\u{3}\r\n\r\n").await).await;
    assert!(!text.contains("HTTP"), "{text}");
}
