//! TLS as operators meet it: the development certificate, an exchange while the server runs, and words for who errs.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use e2e::server::{free_tcp_port, program, run, signal};
use e2e::{have, until};
use nix::sys::signal::Signal;

/// The program with its log in `folder`; killed on drop.
struct Tls {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

impl Tls {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let port = free_tcp_port();
        let log = folder.join("log");
        let mut command = Command::new(program());
        command.arg("serve").args(arguments).args(["--set", "whip.udp_listen=127.0.0.1:0"]);
        command.args(["--set", &format!("http.listen=127.0.0.1:{port}")]);
        command.env("XDG_STATE_HOME", folder).env_remove("STATE_DIRECTORY").stdin(Stdio::null());
        let child = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        Self { child, port, log }
    }

    /// What curl makes of a path, with the protocol's version in the last line; None while it does not get an answer.
    fn curl(&self, scheme: &str, path: &str, trusted: &Path) -> Option<String> {
        let url = format!("{scheme}://localhost:{}{path}", self.port);
        let out = Command::new("curl")
            .args(["-s", "-w", "\n%{http_version}", "--cacert"])
            .args([trusted.as_os_str(), url.as_ref()])
            .output()
            .unwrap();
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
    }

    async fn reached(&self, trusted: &Path) -> String {
        until("an answer over TLS", || async { self.curl("https", "/api/v1/server", trusted) }).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn ended(&mut self) {
        until("the server to end", || {
            let ended = self.child.try_wait().unwrap();
            async move { ended }
        })
        .await;
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

#[tokio::test]
async fn a_development_certificate_takes_one_flag_and_is_kept() {
    if !have("curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("fishladder/dev-cert.crt");
    let mut prints = Vec::new();
    for _ in 0..2 {
        let mut server = Tls::start(folder.path(), &["--dev-cert"]);
        let said = server.reached(&trusted).await;
        assert!(said.contains(r#""tls":true,"http2":true,"warnings":[]"#) && said.ends_with("\n2"), "{said}");
        let told = server.curl("http", "/", &trusted).unwrap();
        assert!(told.contains("https://") && told.contains("400"), "{told}");
        let log = server.log();
        prints.push(log.lines().find_map(|l| Some(l.split_once("fingerprint: ")?.1.to_owned())).unwrap());
        // The terminal that it ran in was closed.
        signal(server.child.id(), Signal::SIGHUP);
        server.ended().await;
    }
    assert_eq!(prints[0], prints[1]);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    if !have("curl") || !have("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let renew = |days: &str| {
        let out = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=t"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-days", days, "-keyout"])
            .args([key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
    };
    renew("9");
    let set = [format!("http.tls.certificate={}", certificate.display()), format!("http.tls.key={}", key.display())];
    let server = Tls::start(folder.path(), &["--set", &set[0], "--set", &set[1]]);
    let said = server.reached(&certificate).await;
    assert!(said.contains("the certificate expires in "), "{said}");
    // Told by a signal; the server goes on, and is the same process.
    renew("90");
    signal(server.child.id(), Signal::SIGHUP);
    assert!(server.reached(&certificate).await.contains(r#""warnings":[]"#));
    // Not told at all.
    renew("80");
    assert!(server.reached(&certificate).await.contains(r#""warnings":[]"#));
    // A broken one is named, and the old one stays.
    std::fs::copy(&certificate, folder.path().join("good.pem")).unwrap();
    std::fs::write(&certificate, "-----BEGIN").unwrap();
    until("a complaint", || async { server.log().contains("the old one stays").then_some(()) }).await;
    server.reached(&folder.path().join("good.pem")).await;
}

#[test]
fn what_cannot_be_is_said() {
    let said = |out: Output| (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned());
    let files = ["--set", "http.tls.certificate=/nowhere/c.pem", "--set", "http.tls.key=/nowhere/k.pem"];
    let (code, text) = said(run(&[&["serve", "--set", "http.listen=127.0.0.1:0"], &files[..]].concat()));
    assert!(code == Some(1) && text.contains("http.tls.certificate: cannot read /nowhere/c.pem"), "{text}");
    let (code, text) = said(run(&[&["serve", "--dev-cert", "--set", "http.listen=127.0.0.1:0"], &files[..]].concat()));
    assert!(code == Some(1) && text.contains("--dev-cert and http.tls exclude each other"), "{text}");
}
