//! TLS: the certificate that is served, and its exchange for a newer one while the server runs.
//!
//! Operators' tools replace the files (certbot, cert-manager, `cp`); nobody needs to tell the server. A new pair is read and
//! checked whole before it replaces the old one; one that does not fit is named in the log, and the old one stays.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::metrics::Metrics;
use crate::watched::{Watched, follow};

/// From so long before the end on, the log and the page remind of it: certbot renews 30 days before, so that at 14 it has
/// failed for a while.
const REMIND: Duration = Duration::from_secs(14 * 86_400);
/// The reminder in the log comes this often.
const AGAIN: Duration = Duration::from_secs(86_400);
/// Longest file that is read; a chain with its key takes some 10 KB.
const MAX_FILE: u64 = 1024 * 1024;

/// A certificate with its key, as they are read from the files.
#[derive(Clone, Debug)]
pub struct Pair {
    key: Arc<CertifiedKey>,
    /// When it is valid, Unix seconds.
    from: u64,
    until: u64,
}

impl Pair {
    /// Reads both files; the key must be the certificate's. Err: a sentence for the operator.
    pub fn read(files: &config::Tls) -> Result<Self, String> {
        let shown = files.certificate.display();
        let text = read(&files.certificate).map_err(|e| format!("http.tls.certificate: cannot read {shown}: {e}"))?;
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("http.tls.certificate: {shown} is no PEM: {e}"))?;
        let Some(leaf) = chain.first() else {
            return Err(format!("http.tls.certificate: there is no certificate in {shown}"));
        };
        let (from, until) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
                .map_err(|e| format!("http.tls.certificate: the first one in {shown} is damaged: {e}"))?;
            let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
            (seconds(parsed.validity().not_before), seconds(parsed.validity().not_after))
        };
        let shown = files.key.display();
        let text = read(&files.key).map_err(|e| format!("http.tls.key: cannot read {shown}: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|e| format!("http.tls.key: there is no private key in {shown}: {e}"))?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|e| format!("http.tls: the certificate and key cannot be used: {e}"))?;
        Ok(Self { key: Arc::new(key), from, until })
    }

    /// Err: why no client would take it now.
    pub fn timely(&self, now: SystemTime) -> Result<(), String> {
        let now = seconds(now);
        if now >= self.until {
            Err(format!("the certificate expired {} ago", days(now - self.until)))
        } else if now < self.from {
            Err(format!("the certificate is not valid for another {}", days(self.from - now)))
        } else {
            Ok(())
        }
    }

    /// The leaf's DER.
    pub fn leaf(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], |leaf| leaf.as_ref())
    }

    /// Unix seconds.
    pub fn until(&self) -> u64 {
        self.until
    }
}

/// What the listener, the page and the one who watches the files share.
#[derive(Debug)]
pub struct Tls {
    files: config::Tls,
    served: Arc<Served>,
    config: Arc<rustls::ServerConfig>,
}

impl Tls {
    /// Err: a sentence for the operator. A certificate out of its time is served all the same, with a warning: publishers and
    /// channels must not wait for its renewal, which is taken without a restart.
    pub fn open(files: &config::Tls) -> Result<Self, String> {
        let pair = Pair::read(files)?;
        let served = Arc::new(Served { until: AtomicU64::new(pair.until), pair: RwLock::new(pair) });
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("http.tls: {e}"))?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        // Apple's players take low latency from HTTP/2 only.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets the server keeps no memory of: rustls's own would be good for 256 viewers. Keys change every 6 hours, and a
        // ticket outlives an exchange of the certificate, as a connection does.
        config.ticketer =
            ring::Ticketer::new().map_err(|e| format!("http.tls: the system gives no random numbers: {e}"))?;
        // No early data: whoever recorded it could send it again, and WHIP and the API change things.
        config.max_early_data_size = 0;
        Ok(Self { files: files.clone(), served, config: Arc::new(config) })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }

    /// When the served certificate ends, Unix seconds.
    pub fn until(&self) -> u64 {
        self.served.until.load(Ordering::Relaxed)
    }

    /// What an operator should know of the served certificate now; None: nothing.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        let pair = self.served.pair.read().unwrap_or_else(PoisonError::into_inner);
        match pair.timely(now) {
            Err(why) => Some(format!("{why}: players and browsers refuse it")),
            Ok(()) => {
                let left = pair.until.saturating_sub(seconds(now));
                (left < REMIND.as_secs()).then(|| {
                    format!("the certificate expires in {}: renew {}", days(left), self.files.certificate.display())
                })
            }
        }
    }

    /// Follows changes of the files, and SIGHUP where `on_hangup`, until `closing` turns true.
    pub async fn follow(self: Arc<Self>, on_hangup: bool, metrics: Arc<Metrics>, closing: watch::Receiver<bool>) {
        let look = |(watcher, metrics): &mut (Watcher, Arc<Metrics>), at_once| {
            watcher.look(at_once, SystemTime::now(), metrics);
        };
        follow((Watcher::new(self), metrics), look, "the certificate's files", on_hangup, closing).await;
    }
}

/// The one place that handshakes take the certificate from.
#[derive(Debug)]
struct Served {
    pair: RwLock<Pair>,
    /// The pair's, so that a scrape takes no lock.
    until: AtomicU64,
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

/// Decides what a changed pair is worth. Apart from `Tls::follow` for the tests' sake: time and signals are arguments.
struct Watcher {
    tls: Arc<Tls>,
    files: Watched,
    /// The last pair was not fit, for this reason.
    complaint: Option<String>,
    reminded: Option<SystemTime>,
}

impl Watcher {
    fn new(tls: Arc<Tls>) -> Self {
        let files = Watched::new(vec![tls.files.certificate.clone(), tls.files.key.clone()]);
        Self { tls, files, complaint: None, reminded: None }
    }

    fn look(&mut self, at_once: bool, now: SystemTime, metrics: &Metrics) {
        if self.files.is_due(at_once, self.complaint.is_some()) {
            self.exchange(at_once, now, metrics);
        }
        metrics.certificate(self.tls.until());
        let warning = self.tls.warning(now);
        let due = self.reminded.is_none_or(|last| now.duration_since(last).is_ok_and(|ago| ago >= AGAIN));
        match warning {
            Some(warning) if due => {
                tracing::warn!("{warning}");
                self.reminded = Some(now);
            }
            Some(_) => {}
            None => self.reminded = None,
        }
    }

    fn exchange(&mut self, asked: bool, now: SystemTime, metrics: &Metrics) {
        let fit = Pair::read(&self.tls.files).and_then(|new| {
            let same = new.leaf() == self.tls.served.pair.read().unwrap_or_else(PoisonError::into_inner).leaf();
            // The same one again may be out of its time: it is served already.
            if same { Ok((new, true)) } else { new.timely(now).map(|()| (new, false)) }
        });
        match fit {
            Ok((_, true)) => {
                self.complaint = None;
                if asked {
                    tracing::info!("SIGHUP: the certificate is the one that is served already");
                }
            }
            Ok((new, false)) => {
                self.complaint = None;
                let valid_for = days(new.until.saturating_sub(seconds(now)));
                self.tls.served.until.store(new.until, Ordering::Relaxed);
                *self.tls.served.pair.write().unwrap_or_else(PoisonError::into_inner) = new;
                metrics.certificate_read("exchanged");
                tracing::info!(valid_for, "the certificate was exchanged; open connections keep the old one");
            }
            Err(why) => {
                if asked || self.complaint.as_ref() != Some(&why) {
                    metrics.certificate_read("refused");
                    tracing::error!("the new certificate is not used, the old one stays: {why}");
                }
                self.complaint = Some(why);
            }
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn days(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600) {
        (0, 1) => "1 hour".to_owned(),
        (0, hours) => format!("{hours} hours"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
