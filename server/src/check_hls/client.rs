//! HTTP as `check-hls` needs it: one request at a time on a kept connection, HTTP/1.1 or HTTP/2 as the server chooses, each
//! moment noted.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderMap, LOCATION, USER_AGENT};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

const CONNECT: Duration = Duration::from_secs(10);
/// A server may hold a request for three target durations.
const ANSWER: Duration = Duration::from_secs(60);
/// Playlists and segments above this are refused.
const BODY: usize = 64 * 1024 * 1024;
const REDIRECTS: usize = 5;

/// Where systems keep the certificates that they trust: Debian, Fedora, Alpine and others.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What all connections share.
pub struct Network {
    tls: TlsConnector,
}

impl Network {
    /// `ca`: a PEM file with the certificates to trust, instead of the system's. Err: a sentence.
    pub fn new(ca: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(file) => {
                let read = CertificateDer::pem_file_iter(file).map_err(|e| format!("{}: {e}", file.display()))?;
                roots.add_parsable_certificates(read.flatten());
                if roots.is_empty() {
                    return Err(format!("{}: there is no certificate in it", file.display()));
                }
            }
            // None of them there: only https will not work.
            None => {
                let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
                let files = named.into_iter().chain(SYSTEM_ROOTS.iter().map(Into::into));
                if let Some(read) = files.filter_map(|f| CertificateDer::pem_file_iter(f).ok()).next() {
                    roots.add_parsable_certificates(read.flatten());
                }
            }
        }
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn open(&self, url: &Url) -> Result<Sender, String> {
        let host = url.host_str().ok_or("the URL has no host")?.trim_matches(['[', ']']);
        let port = url.port_or_known_default().ok_or("the URL has no port")?;
        let failed = |e: std::io::Error| format!("{host}:{port}: {e}");
        let late = |_| format!("{host}:{port}: no connection within {CONNECT:?}");
        let tcp = timeout(CONNECT, TcpStream::connect((host, port))).await.map_err(late)?.map_err(failed)?;
        // Only a matter of speed.
        let _ = tcp.set_nodelay(true);
        match url.scheme() {
            "http" => handshake(tcp, false).await,
            "https" => {
                let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("{host}: {e}"))?;
                let tls = timeout(CONNECT, self.tls.connect(name, tcp)).await.map_err(late)?.map_err(failed)?;
                let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                handshake(tls, h2).await
            }
            other => Err(format!("{other} is neither http nor https")),
        }
    }
}

/// An answer that has come completely.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Behind redirects.
    pub url: Url,
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub sent: Instant,
    pub first_byte: Instant,
    pub last_byte: Instant,
    /// Wall clock at the last byte.
    pub at: SystemTime,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// From the request to the beginning of the answer's body.
    pub fn held(&self) -> Duration {
        self.first_byte - self.sent
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// One kept-alive connection to whatever host the last request went to.
pub struct Connection {
    network: Arc<Network>,
    open: Option<(Url, Sender)>,
}

impl Connection {
    pub fn new(network: Arc<Network>) -> Self {
        Self { network, open: None }
    }

    /// Fetches, following redirects. Err: a sentence.
    pub async fn get(&mut self, url: &Url, headers: &[(&'static str, String)]) -> Result<Answer, String> {
        let sent = Instant::now();
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let answer = timeout(ANSWER, self.once(&url, headers, sent)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs())));
            let answer = answer.map_err(|e| format!("{url}: {e}"))?;
            let moved = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            match answer.headers.get(LOCATION).and_then(|l| l.to_str().ok()).filter(|_| moved) {
                Some(location) => url = url.join(location).map_err(|e| format!("{location}: {e}"))?,
                None => return Ok(answer),
            }
        }
        Err(format!("{url}: more than {REDIRECTS} redirects"))
    }

    async fn once(&mut self, url: &Url, headers: &[(&'static str, String)], sent: Instant) -> Result<Answer, String> {
        let (mut sender, kept) = match self.open.take() {
            Some((peer, sender)) if same_peer(&peer, url) && sender.is_usable() => (sender, true),
            _ => (self.network.open(url).await?, false),
        };
        let response = match sender.send(request(url, headers, sender.is_h2())?).await {
            // The server may have closed a kept connection at the moment when it was used.
            Err(_) if kept => {
                sender = self.network.open(url).await?;
                sender.send(request(url, headers, sender.is_h2())?).await?
            }
            other => other?,
        };
        let (head, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        let mut first_byte = None;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(said)?.into_data() {
                first_byte.get_or_insert_with(Instant::now);
                if bytes.len() + data.len() > BODY {
                    return Err(format!("the answer has more than {BODY} bytes"));
                }
                bytes.extend_from_slice(&data);
            }
        }
        let last_byte = Instant::now();
        self.open = Some((url.clone(), sender));
        Ok(Answer {
            url: url.clone(),
            status: head.status.as_u16(),
            version: head.version,
            headers: head.headers,
            body: bytes.freeze(),
            sent,
            first_byte: first_byte.unwrap_or(last_byte),
            last_byte,
            at: SystemTime::now(),
        })
    }
}

enum Sender {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    fn is_usable(&self) -> bool {
        match self {
            Self::H1(s) => !s.is_closed(),
            Self::H2(s) => !s.is_closed(),
        }
    }

    fn is_h2(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String> {
        match self {
            Self::H1(s) => {
                s.ready().await.map_err(said)?;
                s.send_request(request).await.map_err(said)
            }
            Self::H2(s) => {
                s.ready().await.map_err(said)?;
                s.send_request(request).await.map_err(said)
            }
        }
    }
}

/// Connections run as tasks of their own; they end when their sender is dropped.
async fn handshake<S>(stream: S, h2: bool) -> Result<Sender, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    if h2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(said)?;
        tokio::spawn(connection);
        Ok(Sender::H2(sender))
    } else {
        let (sender, connection) = http1::handshake(io).await.map_err(said)?;
        tokio::spawn(connection);
        Ok(Sender::H1(sender))
    }
}

fn request(url: &Url, headers: &[(&'static str, String)], h2: bool) -> Result<Request<Empty<Bytes>>, String> {
    let mut builder = Request::get(if h2 { whole(url) } else { path(url) })
        .header(USER_AGENT, concat!("fishladder-check/", env!("CARGO_PKG_VERSION")));
    if !h2 {
        builder = builder.header(HOST, url.authority().rsplit('@').next().unwrap_or_default());
    }
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    builder.body(Empty::new()).map_err(said)
}

fn path(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

fn whole(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.authority().rsplit('@').next().unwrap_or_default(), path(url))
}

fn same_peer(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default()) == (b.scheme(), b.host_str(), b.port_or_known_default())
}

fn said(e: impl Display) -> String {
    e.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::server::conn::auto;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// `/moved` leads to `/here`, everything else says its version and query.
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let moved = request.uri().path() == "/moved";
        let builder =
            if moved { Response::builder().status(302).header(LOCATION, "/here?x=1") } else { Response::builder() };
        let text = format!("{:?} {}", request.version(), request.uri().query().unwrap_or_default());
        Ok(builder.body(Full::new(text.into())).unwrap())
    }

    async fn serve(protocols: &[&[u8]]) -> (tempfile::NamedTempFile, Url) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(tls), service_fn(answer)).await;
                });
            }
        });
        (file, Url::parse(&format!("https://localhost:{port}/moved")).unwrap())
    }

    #[tokio::test]
    async fn https_is_spoken_as_the_server_chooses_and_redirects_are_followed() {
        for (protocols, said) in
            [(&[b"h2".as_slice(), b"http/1.1"][..], "HTTP/2.0 x=1"), (&[b"http/1.1"], "HTTP/1.1 x=1")]
        {
            let (ca, url) = serve(protocols).await;
            let mut connection = Connection::new(Arc::new(Network::new(Some(ca.path())).unwrap()));
            let answer = connection.get(&url, &[]).await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (200, said.as_bytes()));
            assert_eq!(answer.url.path(), "/here");
        }
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_trusts_is_refused() {
        let (_, url) = serve(&[b"h2"]).await;
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), other.cert.pem()).unwrap();
        let mut connection = Connection::new(Arc::new(Network::new(Some(file.path())).unwrap()));
        assert!(connection.get(&url, &[]).await.unwrap_err().contains("certificate"));
        assert!(Network::new(Some(Path::new("/dev/null"))).is_err());
    }
}
