//! The program under test, on ports of its own.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::playlist::Playlist;
use crate::until;

pub struct Server {
    pub base: String,
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
    http: reqwest::Client,
}

/// The program: FISHLADDER_BIN, or the release build.
pub fn program() -> PathBuf {
    let path = std::env::var_os("FISHLADDER_BIN").map(PathBuf::from);
    path.unwrap_or_else(|| crate::root().join("target/release/fishladder"))
}

pub fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An even port whose successor is free too, for RTP and RTCP.
pub fn free_rtp_port() -> u16 {
    loop {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() & !1;
        let pair = (UdpSocket::bind(("127.0.0.1", port)), UdpSocket::bind(("127.0.0.1", port + 1)));
        if let (Ok(_), Ok(_)) = pair {
            return port;
        }
    }
}

impl Server {
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, &[]).await
    }

    /// `settings` are `key=value`; `arguments` come behind `serve`.
    pub async fn start_with(settings: &[&str], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let port = free_tcp_port();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program());
        command.arg("serve").args(arguments);
        command.args(["--set", &format!("http.listen=127.0.0.1:{port}")]);
        command.args(["--set", &format!("whip.udp_listen=127.0.0.1:{udp}")]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let file = std::fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program().display()));
        let http = reqwest::Client::builder().gzip(false).build().unwrap();
        let server = Self { base: format!("http://127.0.0.1:{port}"), child, log, _folder: folder, http };
        until("the server to be ready", || async {
            server.http.get(server.url("/readyz")).send().await.ok().filter(|r| r.status().is_success())
        })
        .await;
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub async fn put(&self, channel: &str, body: &Value) -> reqwest::Response {
        let request = self.http.put(self.url(&format!("/api/v1/channels/{channel}")));
        request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap()
    }

    pub async fn put_sdp(&self, channel: &str, sdp: &str, ladder: Option<Value>) {
        let mut body = json!({ "source": { "rtp": { "sdp": sdp } } });
        if let Some(ladder) = ladder {
            body["ladder"] = ladder;
        }
        let response = self.put(channel, &body).await;
        let status = response.status();
        assert!(status.is_success(), "PUT {channel}: {status} {}", response.text().await.unwrap());
    }

    pub async fn status(&self, channel: &str) -> Option<Value> {
        let response = self.get(&format!("/api/v1/channels/{channel}")).await;
        if !response.status().is_success() {
            return None;
        }
        Some(serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    /// Waits until the channel is live with these renditions.
    pub async fn live(&self, channel: &str, renditions: &[&str]) {
        until(&format!("{channel} to be live with {renditions:?}"), || async {
            let status = self.status(channel).await?;
            let present: Vec<_> = status["renditions"].as_array()?.iter().filter_map(|r| r["id"].as_str()).collect();
            (status["state"] == "live" && renditions.iter().all(|r| present.contains(r))).then_some(())
        })
        .await;
    }

    pub async fn playlist(&self, channel: &str, rendition: &str, query: &str) -> Playlist {
        let response = self.get(&format!("/live/{channel}/{rendition}/index.m3u8{query}")).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{rendition}{query}: {status} {text}\n{}", self.log());
        Playlist::parse(&text)
    }

    /// Follows a rendition with blocking reloads until `parts` new parts were seen, checking each playlist against the one
    /// before and fetching every part.
    pub async fn follow(&self, channel: &str, rendition: &str, parts: usize) -> Playlist {
        let mut playlist = self.playlist(channel, rendition, "").await;
        for _ in 0..parts {
            let (msn, part) = playlist.next();
            let next = self.playlist(channel, rendition, &format!("?_HLS_msn={msn}&_HLS_part={part}")).await;
            next.check();
            next.check_after(&playlist);
            if let Some(newest) = next.newest_part().filter(|p| !p.gap) {
                let response = self.get(&format!("/live/{channel}/{rendition}/{}", newest.uri)).await;
                assert_eq!(response.status(), 200, "{}", newest.uri);
                assert!(!response.bytes().await.unwrap().is_empty());
            }
            playlist = next;
        }
        playlist
    }

    /// Process ids of the server's children whose command line names `word`.
    pub fn children(&self, word: &str) -> Vec<u32> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if parent == Some(self.pid()) && String::from_utf8_lossy(&line).split('\0').any(|w| w == word) {
                found.push(pid);
            }
        }
        found
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
