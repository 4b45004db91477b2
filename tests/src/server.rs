//! The program under test, on ports of its own.

use std::net::{TcpListener, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::until;
use crate::viewer::Viewer;

/// A running server; derefs to a [`Viewer`] of it. Killed on drop; its log is printed when the test fails.
pub struct Server {
    viewer: Viewer,
    command: Command,
    child: Child,
    folder: tempfile::TempDir,
}

/// The program: FISHLADDER_BIN, or the release build.
pub fn program() -> PathBuf {
    let path = std::env::var_os("FISHLADDER_BIN").map(PathBuf::from);
    path.unwrap_or_else(|| crate::root().join("target/release/fishladder"))
}

/// Runs a command of the program that is to end by itself; exit status 124 when it did not.
pub fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(program()).args(arguments).stdin(Stdio::null());
    without_tokens(&mut command).output().unwrap()
}

/// An even port, another one with each call. It lies below those that the kernel gives to sockets that ask for any, so that none of
/// them has taken it by the time that it is used.
fn even_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let pair = (std::process::id().wrapping_mul(97).wrapping_add(call)) % 10_000;
    12_000 + 2 * u16::try_from(pair).unwrap()
}

pub fn free_tcp_port() -> u16 {
    loop {
        let port = even_port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An even port whose successor is free too, for RTP and RTCP.
pub fn free_rtp_port() -> u16 {
    loop {
        let port = even_port();
        let pair = (UdpSocket::bind(("127.0.0.1", port)), UdpSocket::bind(("127.0.0.1", port + 1)));
        if let (Ok(_), Ok(_)) = pair {
            return port;
        }
    }
}

/// What the tests start a server with.
#[derive(Default)]
pub struct Options<'a> {
    /// `key=value`, each for a `--set`.
    pub settings: &'a [&'a str],
    /// Behind `serve`.
    pub arguments: &'a [&'a str],
    pub environment: &'a [(&'a str, &'a str)],
}

impl Server {
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_with(Options { settings, ..Options::default() }).await
    }

    pub async fn start_with(options: Options<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_tcp_port();
        let udp = free_rtp_port();
        let mut command = Command::new(program());
        without_tokens(&mut command).arg("serve").args(options.arguments);
        command.args(["--set", &format!("http.listen=127.0.0.1:{port}")]);
        command.args(["--set", &format!("whip.udp_listen=127.0.0.1:{udp}")]);
        for setting in options.settings {
            command.args(["--set", setting]);
        }
        command.envs(options.environment.iter().copied());
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program().display()));
        let viewer = Viewer::new(format!("http://127.0.0.1:{port}"));
        let mut server = Self { viewer, command, child, folder };
        server.ready().await;
        server
    }

    /// Waits until the process has ended, however it did, and starts it anew on the same ports.
    pub async fn start_again(&mut self) {
        self.ended().await;
        self.child = self.command.spawn().unwrap();
        self.ready().await;
    }

    async fn ready(&mut self) {
        let ready = self.url("/readyz");
        let http = reqwest::Client::new();
        let child = &mut self.child;
        until("the server to be ready", || {
            assert!(matches!(child.try_wait(), Ok(None)), "the server has ended");
            let request = http.get(&ready).send();
            async move { request.await.ok().filter(|r| r.status().is_success()) }
        })
        .await;
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of this server that may outlive the borrow.
    pub fn viewer(&self) -> Viewer {
        self.viewer.clone()
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Process ids of the server's children whose command line has the word `word`.
    pub fn children(&self, word: &str) -> Vec<u32> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if parent_of(&entry.path()) == Some(self.pid()) && line.split(|b| *b == 0).any(|w| w == word.as_bytes()) {
                found.push(pid);
            }
        }
        found
    }

    /// SIGTERM, and how the process ended.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        signal(self.pid(), nix::sys::signal::Signal::SIGTERM);
        self.ended().await
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        let child = &mut self.child;
        until("the server to end", || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        })
        .await
    }
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// The tests say themselves what the environment holds.
fn without_tokens(command: &mut Command) -> &mut Command {
    command.env_remove("FISHLADDER_PUBLISH_TOKEN").env_remove("FISHLADDER_ADMIN_TOKEN").env_remove("RUST_LOG")
}

fn parent_of(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // The name before the last parenthesis may contain anything; state and parent follow.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

impl Deref for Server {
    type Target = Viewer;

    fn deref(&self) -> &Viewer {
        &self.viewer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the server's log\n{}", self.log());
        }
    }
}
