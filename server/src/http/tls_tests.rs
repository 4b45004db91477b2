//! Tests of the exchange of certificates: which pair is served after what happened to the files, and what is said of it.
#![allow(clippy::unwrap_used)]

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

struct Files {
    dir: tempfile::TempDir,
    files: config::Tls,
    metrics: Metrics,
    now: SystemTime,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = config::Tls { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        let mut made = Self { dir, files, metrics: Metrics::default(), now: SystemTime::now() };
        made.write(&made.pair(-DAY_S, 90 * DAY_S));
        made.now += DAY;
        made
    }

    /// Certificate and key valid from and until so many seconds from now.
    fn pair(&self, from: i64, until: i64) -> (String, String) {
        let at = |offset: i64| {
            let by = Duration::from_secs(offset.unsigned_abs());
            if offset < 0 { self.now - by } else { self.now + by }
        };
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (at(from).into(), at(until).into());
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, (certificate, key): &(String, String)) {
        std::fs::write(&self.files.certificate, certificate).unwrap();
        std::fs::write(&self.files.key, key).unwrap();
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.render(&[], None).lines().any(|l| l == line)
    }
}

const DAY_S: i64 = 86_400;

/// The served leaf.
fn served(watcher: &Watcher) -> Vec<u8> {
    watcher.tls.served.pair.read().unwrap().leaf().to_vec()
}

fn leaf(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_new_pair_is_served_once_it_is_whole() {
    let f = Files::new();
    let mut w = Watcher::new(Arc::new(Tls::open(&f.files).unwrap()));
    let look = |w: &mut Watcher| w.look(false, f.now, &f.metrics);
    let old = served(&w);
    look(&mut w);
    look(&mut w);
    assert_eq!(served(&w), old);
    assert!(!f.metrics.render(&[], None).contains("certificate_reads_total{"));

    // The certificate comes first; its key is still the old one's.
    let new = f.pair(-DAY_S, 60 * DAY_S);
    std::fs::write(&f.files.certificate, &new.0).unwrap();
    look(&mut w);
    assert_eq!((served(&w), w.complaint.is_none()), (old.clone(), true), "not complained of while it changes");
    std::fs::write(&f.files.key, &new.1).unwrap();
    look(&mut w);
    look(&mut w);
    assert_eq!(served(&w), leaf(&new.0));
    assert!(f.counts("fishladder_tls_certificate_reads_total{outcome=\"exchanged\"} 1"));
    let end = format!("fishladder_tls_certificate_expiry_timestamp_seconds {}", w.tls.until());
    assert!(f.counts(&end), "{}", f.metrics.render(&[], None));
}

#[test]
fn links_that_point_elsewhere_and_files_put_in_place_are_seen() {
    let mut f = Files::new();
    // As certbot and Kubernetes have it: the path stays, a link on the way is exchanged.
    let at = |n: &str| f.dir.path().join(n);
    let (one, two) = (f.pair(-DAY_S, 60 * DAY_S), f.pair(-DAY_S, 61 * DAY_S));
    for (n, pair) in [("1", &one), ("2", &two)] {
        std::fs::create_dir(at(n)).unwrap();
        std::fs::write(at(n).join("c.pem"), &pair.0).unwrap();
        std::fs::write(at(n).join("k.pem"), &pair.1).unwrap();
    }
    std::os::unix::fs::symlink(at("1"), at("live")).unwrap();
    f.files = config::Tls { certificate: at("live").join("c.pem"), key: at("live").join("k.pem") };
    let mut w = Watcher::new(Arc::new(Tls::open(&f.files).unwrap()));
    assert_eq!(served(&w), leaf(&one.0));
    let at = |n: &str| f.dir.path().join(n);
    std::os::unix::fs::symlink(at("2"), at("next")).unwrap();
    std::fs::rename(at("next"), at("live")).unwrap();
    w.look(false, f.now, &f.metrics);
    w.look(false, f.now, &f.metrics);
    assert_eq!(served(&w), leaf(&two.0));
}

#[test]
fn what_does_not_fit_leaves_the_old_one_in_place_and_says_so_once() {
    let f = Files::new();
    let mut w = Watcher::new(Arc::new(Tls::open(&f.files).unwrap()));
    let old = served(&w);
    let good = f.pair(-DAY_S, 60 * DAY_S);
    let mut refused = 0;
    for (pair, why) in [
        ((good.0.clone(), f.pair(-DAY_S, DAY_S).1), "cannot be used"),
        (f.pair(-2 * DAY_S, -DAY_S), "expired 1 day ago"),
        (f.pair(5 * DAY_S, 6 * DAY_S), "not valid for another 5 days"),
        ((good.0[..200].to_owned(), good.1.clone()), "certificate"),
        ((good.0.clone(), String::new()), "no private key"),
        (("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), good.1.clone()), "damaged"),
    ] {
        f.write(&pair);
        refused += 1;
        // Also when told to look: SIGHUP is no reason to serve it.
        for _ in 0..3 {
            w.look(false, f.now, &f.metrics);
        }
        assert!(w.complaint.as_ref().is_some_and(|c| c.contains(why)), "{why}: {:?}", w.complaint);
        assert_eq!(served(&w), old, "{why}");
        assert!(f.counts(&format!("fishladder_tls_certificate_reads_total{{outcome=\"refused\"}} {refused}")), "{why}");
    }
    // Both gone, and back with a fit one.
    std::fs::remove_file(&f.files.key).unwrap();
    w.look(false, f.now, &f.metrics);
    w.look(false, f.now, &f.metrics);
    assert_eq!(served(&w), old);
    f.write(&good);
    w.look(true, f.now, &f.metrics);
    assert_eq!((served(&w), w.complaint.is_none()), (leaf(&good.0), true));
}

#[test]
fn its_end_is_told_in_time() {
    let f = Files::new();
    let mut w = Watcher::new(Arc::new(Tls::open(&f.files).unwrap()));
    let end = UNIX_EPOCH + Duration::from_secs(w.tls.until());
    assert_eq!(w.tls.warning(end - 15 * DAY), None);
    let nearly = w.tls.warning(end - 14 * DAY + Duration::from_secs(1)).unwrap();
    assert!(nearly.starts_with("the certificate expires in 13 days: renew /"), "{nearly}");
    assert!(w.tls.warning(end - Duration::from_secs(7000)).unwrap().contains("in 1 hour:"));
    assert!(w.tls.warning(end).unwrap().contains("expired 0 hours ago: players"));
    // Said once a day, and again after a renewal went by.
    w.look(false, end - 10 * DAY, &f.metrics);
    let first = w.reminded;
    assert!(first.is_some());
    w.look(false, end - 10 * DAY + Duration::from_secs(3600), &f.metrics);
    assert_eq!(w.reminded, first);
    w.look(false, end - 9 * DAY, &f.metrics);
    assert_eq!(w.reminded, Some(end - 9 * DAY));
    f.write(&f.pair(-DAY_S, 300 * DAY_S));
    w.look(true, end - 9 * DAY, &f.metrics);
    assert_eq!(w.reminded, None);
}

#[test]
fn bad_pairs_are_named_at_the_start_and_an_expired_one_is_served_with_a_warning() {
    let f = Files::new();
    let why = || Tls::open(&f.files).unwrap_err();
    let (certificate, key) = f.pair(-DAY_S, 60 * DAY_S);
    std::fs::write(&f.files.key, &f.pair(0, 1).1).unwrap();
    assert!(why().starts_with("http.tls: the certificate and key cannot be used"), "{}", why());
    std::fs::remove_file(&f.files.key).unwrap();
    assert!(why().starts_with("http.tls.key: cannot read"), "{}", why());
    std::fs::write(&f.files.key, &certificate).unwrap();
    assert!(why().starts_with("http.tls.key: there is no private key"), "{}", why());
    std::fs::write(&f.files.certificate, &key).unwrap();
    assert!(why().starts_with("http.tls.certificate: there is no certificate"), "{}", why());
    std::fs::remove_file(&f.files.certificate).unwrap();
    assert!(why().starts_with("http.tls.certificate: cannot read"), "{}", why());
    f.write(&f.pair(-9 * DAY_S, -2 * DAY_S));
    let warning = Tls::open(&f.files).unwrap().warning(f.now);
    assert_eq!(warning.unwrap(), "the certificate expired 2 days ago: players and browsers refuse it");
}
