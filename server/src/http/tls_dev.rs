//! The development certificate (`serve --dev-cert`): self-signed for this machine's names, kept, so that browsers need to be
//! told of it once.
//!
//! It is a leaf and no authority: whoever trusts it trusts this key for these names, and nothing that the key might sign.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;

use super::tls::Pair;
use crate::config;

/// Apple's systems take no server certificate that is valid for longer than 398 days.
const LIFE: Duration = Duration::from_secs(397 * 86_400);
/// Made anew at a start when less is left.
const LEFT: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug)]
pub struct DevCertificate {
    /// Certificate and key, in one file that is exchanged as a whole.
    pub files: config::Tls,
    /// The certificate alone, for those who are to trust it.
    pub public: PathBuf,
    /// SHA-256 of the certificate, as browsers show it.
    pub fingerprint: String,
    pub names: BTreeSet<String>,
    /// False: the one of an earlier start.
    pub new: bool,
}

/// The kept certificate where it fits, or else a new one. Err: a sentence for the operator.
pub fn ensure(folder: &Path, names: BTreeSet<String>, now: SystemTime) -> Result<DevCertificate, String> {
    let both = folder.join("dev-cert.pem");
    let public = folder.join("dev-cert.crt");
    let files = config::Tls { certificate: both.clone(), key: both.clone() };
    let fits = |pair: &Pair| {
        let end = UNIX_EPOCH + Duration::from_secs(pair.until());
        pair.timely(now).is_ok() && end > now + LEFT && names_of(pair.leaf()).is_some_and(|has| names.is_subset(&has))
    };
    let kept = Pair::read(&files).ok().filter(fits);
    let new = kept.is_none();
    let pair = match kept {
        Some(pair) => pair,
        None => {
            let text = make(&names, now).map_err(|e| format!("--dev-cert: cannot make a certificate: {e}"))?;
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .and_then(|()| write(&both, &text, 0o600))
                .map_err(|e| format!("--dev-cert: cannot write {}: {e}", both.display()))?;
            Pair::read(&files)?
        }
    };
    let text = pem(pair.leaf());
    if std::fs::read_to_string(&public).ok().as_ref() != Some(&text) {
        write(&public, &text, 0o644).map_err(|e| format!("--dev-cert: cannot write {}: {e}", public.display()))?;
    }
    Ok(DevCertificate { files, public, fingerprint: fingerprint(pair.leaf()), names, new })
}

/// Where it is kept: systemd's state folder, or the user's (XDG base directory specification).
pub fn folder(environment: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, String> {
    let given = |name| environment(name).filter(|folder| folder.is_absolute());
    // systemd lists several with colons between them.
    let of_service = environment("STATE_DIRECTORY").and_then(|list| std::env::split_paths(&list).next());
    of_service
        .filter(|folder| folder.is_absolute())
        .or_else(|| given("XDG_STATE_HOME").map(|state| state.join("fishladder")))
        .or_else(|| given("HOME").map(|home| home.join(".local/state/fishladder")))
        .ok_or_else(|| "--dev-cert: no folder to keep it in: HOME and XDG_STATE_HOME are not set".to_owned())
}

/// The names under which this machine is reached: `localhost`, the loopback addresses, the host's own name (with `.local`,
/// as phones on the same network find it) and the address listened on where it is a certain one.
pub fn names(listen: SocketAddr, host: &str) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let host = host.trim().to_ascii_lowercase();
    let label = |l: &str| !l.is_empty() && l.len() < 64 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if host.len() < 200 && host.split('.').all(label) {
        if !host.contains('.') {
            names.insert(format!("{host}.local"));
        }
        names.insert(host);
    }
    let ip = listen.ip().to_canonical();
    if !ip.is_unspecified() {
        names.insert(ip.to_string());
    }
    names
}

/// The name that the kernel has for this host; empty where it tells none.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

/// Key and certificate in PEM.
fn make(names: &BTreeSet<String>, now: SystemTime) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Fishladder development");
    // An hour for clocks that differ.
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + LIFE - Duration::from_secs(3600)).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok(key.serialize_pem() + &params.self_signed(&key)?.pem())
}

/// The names and addresses that a certificate is for.
fn names_of(leaf: &[u8]) -> Option<BTreeSet<String>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
            v4.or_else(|| <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok()).map(|ip| ip.to_string())
        }
        _ => None,
    };
    Some(names.value.general_names.iter().filter_map(name).collect())
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (n, c) in text.chars().enumerate() {
        if n > 0 && n % 64 == 0 {
            out.push('\n');
        }
        out.push(c);
    }
    out + "\n-----END CERTIFICATE-----\n"
}

fn fingerprint(der: &[u8]) -> String {
    let bytes: Vec<String> = Sha256::digest(der).iter().map(|b| format!("{b:02X}")).collect();
    bytes.join(":")
}

/// Writes beside and renames, so that nobody reads half a file.
fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    // One that a killed process of the same id left; its mode may be another.
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn listen() -> SocketAddr {
        "0.0.0.0:8443".parse().unwrap()
    }

    #[test]
    fn it_is_kept_until_it_no_longer_fits() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        let now = SystemTime::now();
        let first = ensure(&folder, names(listen(), "studio"), now).unwrap();
        assert!(first.new && Pair::read(&first.files).unwrap().timely(now).is_ok());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&first.files.key)), (0o700, 0o600));
        // What is handed out holds no key.
        let public = std::fs::read_to_string(&first.public).unwrap();
        assert!(public.contains("BEGIN CERTIFICATE") && !public.contains("PRIVATE"), "{public}");
        assert!(std::fs::read_to_string(&first.files.key).unwrap().replace('\r', "").contains(&public));

        let second = ensure(&folder, names(listen(), "studio"), now).unwrap();
        assert_eq!((second.new, &second.fingerprint), (false, &first.fingerprint));
        assert_eq!(first.fingerprint.len(), 95);
        // Another name, the end near, a damaged file: made anew.
        let renamed = ensure(&folder, names(listen(), "stage"), now).unwrap();
        assert!(renamed.new && renamed.fingerprint != first.fingerprint);
        assert!(ensure(&folder, names(listen(), "stage"), now + LIFE - LEFT).unwrap().new);
        std::fs::write(&renamed.files.key, "-----BEGIN").unwrap();
        assert!(ensure(&folder, names(listen(), "stage"), now).unwrap().new);
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn names_are_those_that_the_machine_is_reached_by() {
        let of = |listen: &str, host| names(listen.parse().unwrap(), host).into_iter().collect::<Vec<_>>();
        assert_eq!(of("127.0.0.1:1", "Studio\n"), ["127.0.0.1", "::1", "localhost", "studio", "studio.local"]);
        assert_eq!(of("0.0.0.0:1", "a.example"), ["127.0.0.1", "::1", "a.example", "localhost"]);
        assert_eq!(of("192.168.7.9:1", "b c"), ["127.0.0.1", "192.168.7.9", "::1", "localhost"]);
        let dir = tempfile::tempdir().unwrap();
        let wanted = names("[2001:db8::7]:1".parse().unwrap(), "studio");
        let made = ensure(dir.path(), wanted.clone(), SystemTime::now()).unwrap();
        assert_eq!(names_of(Pair::read(&made.files).unwrap().leaf()), Some(wanted));
    }

    #[test]
    fn a_folder_must_be_there() {
        let of = |set: &[(&str, &str)]| {
            folder(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(of(&[("HOME", "/h"), ("STATE_DIRECTORY", "/s")]).unwrap(), Path::new("/s"));
        assert_eq!(of(&[("HOME", "/h"), ("STATE_DIRECTORY", "/s/a:/s/b")]).unwrap(), Path::new("/s/a"));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")]).unwrap(), Path::new("/x/fishladder"));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_STATE_HOME", "")]).unwrap(), Path::new("/h/.local/state/fishladder"));
        assert!(of(&[]).unwrap_err().contains("HOME"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let why = ensure(&dir.path().join("file"), names(listen(), "a"), SystemTime::now()).unwrap_err();
        assert!(why.starts_with("--dev-cert: cannot write"), "{why}");
    }
}
