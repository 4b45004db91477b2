//! What the tests ask over HTTP: the API's side, and a Low-Latency HLS client that checks what it is given.

use std::time::Duration;

use serde_json::{Value, json};

use crate::playlist::Playlist;
use crate::until;

/// One client of a server; cheap to clone.
#[derive(Clone)]
pub struct Viewer {
    base: String,
    http: reqwest::Client,
}

impl Viewer {
    pub fn new(base: String) -> Self {
        let http = reqwest::Client::builder().gzip(false).timeout(Duration::from_secs(30)).build().unwrap();
        Self { base, http }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), self.url(path))
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.request("GET", path).send().await.unwrap_or_else(|e| panic!("GET {path}: {e:?}"))
    }

    pub async fn text(&self, path: &str) -> String {
        let response = self.get(path).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "GET {path}: {status} {text}");
        text
    }

    pub async fn put(&self, channel: &str, body: &Value) -> reqwest::Response {
        let request = self.request("PUT", &format!("/api/v1/channels/{channel}"));
        request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap()
    }

    /// Makes or changes a channel; anything but success fails the test.
    pub async fn put_source(&self, channel: &str, source: Value, ladder: Option<Value>) {
        let response = self.put(channel, &json!({ "source": source, "ladder": ladder })).await;
        let status = response.status();
        assert!(status.is_success(), "PUT {channel}: {status} {}", response.text().await.unwrap());
    }

    pub async fn put_sdp(&self, channel: &str, sdp: &str, ladder: Option<Value>) {
        self.put_source(channel, json!({ "rtp": { "sdp": sdp } }), ladder).await;
    }

    pub async fn status(&self, channel: &str) -> Option<Value> {
        let response = self.get(&format!("/api/v1/channels/{channel}")).await;
        if !response.status().is_success() {
            return None;
        }
        Some(response.json().await.unwrap())
    }

    /// Waits until the channel is in this state, and gives its status.
    pub async fn state(&self, channel: &str, state: &str) -> Value {
        until(&format!("{channel} to be {state}"), || async {
            self.status(channel).await.filter(|s| s["state"] == state)
        })
        .await
    }

    /// Waits until the channel is live and the multivariant playlist names these renditions.
    pub async fn live(&self, channel: &str, renditions: &[&str]) {
        self.state(channel, "live").await;
        until(&format!("{channel} to list {renditions:?}"), || async {
            let response = self.get(&format!("/live/{channel}/index.m3u8")).await;
            let uris = media_uris(&response.text().await.unwrap());
            renditions.iter().all(|r| uris.contains(&format!("{r}/index.m3u8"))).then_some(())
        })
        .await;
    }

    pub async fn playlist(&self, channel: &str, rendition: &str, query: &str) -> Playlist {
        Playlist::parse(&self.text(&format!("/live/{channel}/{rendition}/index.m3u8{query}")).await)
    }

    /// Follows a rendition as hls.js does, blocking reload after blocking reload, until so many new parts have been
    /// seen: each playlist is checked by itself and against the one before, and every part is fetched.
    pub async fn follow(&self, channel: &str, rendition: &str, parts: usize) -> Playlist {
        let others = media_uris(&self.text(&format!("/live/{channel}/index.m3u8")).await).len() - 1;
        let mut playlist = self.playlist(channel, rendition, "").await;
        let mut seen = 0;
        while seen < parts {
            let (msn, part) = playlist.next();
            let next = self.playlist(channel, rendition, &format!("?_HLS_msn={msn}&_HLS_part={part}")).await;
            next.check();
            next.check_after(&playlist);
            assert_eq!(next.reports.len(), others, "A33\n{}", next.text);
            for part in next.parts_after(&playlist) {
                seen += 1;
                if !part.gap {
                    let response = self.get(&format!("/live/{channel}/{rendition}/{}", part.uri)).await;
                    assert_eq!(response.status(), 200, "{rendition}/{}", part.uri);
                    assert!(!response.bytes().await.unwrap().is_empty(), "{rendition}/{}", part.uri);
                }
            }
            playlist = next;
        }
        playlist
    }

    /// Follows several renditions at once and checks that they are in step; gives their last playlists in the same order.
    pub async fn follow_all(&self, channel: &str, renditions: &[&str], parts: usize) -> Vec<Playlist> {
        let mut tasks = Vec::new();
        for rendition in renditions {
            let (viewer, channel, rendition) = (self.clone(), channel.to_owned(), (*rendition).to_owned());
            tasks.push(tokio::spawn(async move { viewer.follow(&channel, &rendition, parts).await }));
        }
        let mut all = Vec::new();
        for task in tasks {
            match task.await {
                Ok(playlist) => all.push(playlist),
                Err(e) => std::panic::resume_unwind(e.into_panic()),
            }
        }
        for other in &all[1..] {
            all[0].check_in_step(other);
        }
        all
    }
}

/// Media playlists that a multivariant playlist names, in order of their names.
pub fn media_uris(multivariant: &str) -> Vec<String> {
    let streams = multivariant.lines().filter(|l| l.ends_with("/index.m3u8")).map(str::to_owned);
    let media = multivariant.lines().filter(|l| l.starts_with("#EXT-X-MEDIA:"));
    let groups = media.filter_map(|l| crate::playlist::attribute(l, "URI").map(str::to_owned));
    let mut all: Vec<_> = streams.chain(groups).collect();
    all.sort();
    all.dedup();
    all
}
