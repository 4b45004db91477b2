//! Debian's nginx with the configuration that we ship, as a cache in front of a server.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::clients::Client;
use crate::server::{free_tcp_port, signal};
use crate::viewer::Viewer;
use crate::{root, until};

/// Where Debian puts it, which is not in everyone's PATH.
pub const NGINX: &str = "/usr/sbin/nginx";

/// A running cache; derefs to a [`Viewer`] through it. Everything it writes lies in a folder of its own.
pub struct Cache {
    viewer: Viewer,
    client: Client,
    folder: tempfile::TempDir,
}

/// One line of the cache's log.
#[derive(Debug)]
pub struct Logged {
    pub uri: String,
    pub status: u16,
    /// HIT, MISS, EXPIRED, …
    pub outcome: String,
    /// How many times the origin was asked for this answer.
    pub asked: usize,
}

impl Cache {
    /// Starts it in front of `origin`, a base URL, with this file of configs/nginx.
    pub async fn start(configuration: &str, origin: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let port = free_tcp_port();
        let mut site = std::fs::read_to_string(root().join("configs/nginx").join(configuration)).unwrap();
        for (shipped, ours) in [
            ("server 127.0.0.1:8080;", format!("server {};", origin.trim_start_matches("http://"))),
            ("listen 80;", format!("listen 127.0.0.1:{port};")),
            ("/var/cache/fishladder-playlists", format!("{here}/playlists")),
            ("/var/cache/fishladder-media", format!("{here}/media")),
        ] {
            assert_eq!(site.matches(shipped).count(), 1, "{shipped}");
            site = site.replace(shipped, &ours);
        }
        std::fs::write(folder.path().join("site.conf"), site).unwrap();
        // Only root may have workers of another user, and then they could not read this folder.
        let user = if std::fs::metadata(folder.path()).unwrap().uid() == 0 { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
            .collect();
        let main = format!(
            "{user} daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n{temporary}\
             log_format asked '$request_uri $status $upstream_cache_status $upstream_status';\n\
             access_log {here}/access.log asked;\n\
             include {here}/site.conf;\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, main).unwrap();
        let mut command = Command::new(NGINX);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).arg("-e").arg(folder.path().join("error.log"));
        let client = Client::spawn(command);
        let viewer = Viewer::new(format!("http://127.0.0.1:{port}"));
        let mut cache = Self { viewer, client, folder };
        let http = reqwest::Client::new();
        let url = cache.url("/");
        let client = &mut cache.client;
        until("nginx to answer", || {
            assert!(client.is_running(), "nginx has ended");
            let request = http.get(&url).send();
            async move { request.await.ok() }
        })
        .await;
        cache
    }

    /// Everything that it answered so far.
    pub fn log(&self) -> Vec<Logged> {
        let text = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
            let (uri, status, outcome) = (word().to_owned(), word().parse().unwrap(), word().to_owned());
            // One status for each time it asked; `-` where it did not.
            Logged { uri, status, outcome, asked: words.filter(|w| *w != "-").count() }
        };
        text.lines().map(parse).collect()
    }

    /// How many times the origin was asked for each URI of `/live`.
    pub fn asked(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for line in self.log().into_iter().filter(|l| l.uri.starts_with("/live/")) {
            *counts.entry(line.uri).or_default() += line.asked;
        }
        counts
    }

    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl std::ops::Deref for Cache {
    type Target = Viewer;

    fn deref(&self) -> &Viewer {
        &self.viewer
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- nginx's errors\n{}", self.errors());
        }
        // Its workers outlive a master that is killed.
        signal(self.client.pid(), Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.client.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
