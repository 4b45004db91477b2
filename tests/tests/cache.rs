//! A real cache in front: however many viewers there are, the origin is asked once for each object.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use e2e::cache::{Cache, NGINX};
use e2e::have;
use e2e::playlist::{Playlist, attribute};
use e2e::publishers::Ffmpeg;
use e2e::server::{Server, run};
use e2e::viewer::Viewer;
use serde_json::json;

const VIEWERS: usize = 200;
const PARTS: usize = 16;

fn have_all() -> bool {
    have("ffmpeg") && have(NGINX)
}

/// Follows by blocking reloads and fetches each part, as a player does; gives the URIs that it asked for. Reads of each
/// playlist only the hint, so that two hundred of them leave the machine something to do.
async fn follow(viewer: Viewer, channel: String, parts: usize) -> HashSet<String> {
    let mut asked = HashSet::new();
    let folder = format!("/live/{channel}/src");
    fetch(&viewer, format!("/live/{channel}/index.m3u8"), &mut asked).await;
    let mut playlist = fetch(&viewer, format!("{folder}/index.m3u8"), &mut asked).await;
    for _ in 0..parts {
        let hint = playlist.lines().find(|l| l.starts_with("#EXT-X-PRELOAD-HINT")).unwrap();
        let part = attribute(hint, "URI").unwrap().to_owned();
        let (msn, index) = part.trim_end_matches(".m4s").split_once('.').unwrap();
        let next = fetch(&viewer, format!("{folder}/index.m3u8?_HLS_msn={msn}&_HLS_part={index}"), &mut asked).await;
        // It may have turned out that the segment had ended, and the next one's first part came instead.
        if next.lines().any(|l| l.starts_with("#EXT-X-PART:") && attribute(l, "URI") == Some(&part)) {
            fetch(&viewer, format!("{folder}/{part}"), &mut asked).await;
        }
        playlist = next;
    }
    asked
}

async fn fetch(viewer: &Viewer, uri: String, asked: &mut HashSet<String>) -> String {
    let text = viewer.text(&uri).await;
    asked.insert(uri);
    text
}

/// Answers of the server to requests of this class that it counts in its metrics.
async fn answered(server: &Server, class: &str) -> usize {
    let text = server.text("/metrics").await;
    let prefix = format!("fishladder_http_requests_total{{class=\"{class}\"");
    let lines = text.lines().filter(|l| l.starts_with(&prefix));
    lines.map(|l| l.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

#[tokio::test]
async fn two_hundred_viewers_cost_the_origin_one_request_per_object() {
    if !have_all() {
        return;
    }
    // Long parts: two hundred viewers, the cache and the server share a small machine.
    let server = Server::start(&["hls.part_target=500ms"]).await;
    let cache = Cache::start("fishladder.conf", server.base()).await;
    let publisher = Ffmpeg::default().publish().await;
    server.put_sdp("show", &publisher.sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src"]).await;
    // What the cache passes on is right in itself, and from playlist to playlist.
    cache.follow("show", "src", 6).await;

    let before = (answered(&server, "playlist").await, answered(&server, "part").await);
    let begun = Instant::now();
    let crowd: Vec<_> =
        (0..VIEWERS).map(|_| tokio::spawn(follow(Viewer::clone(&cache), "show".to_owned(), PARTS))).collect();
    let mut uris = HashSet::new();
    for viewer in crowd {
        uris.extend(viewer.await.unwrap());
    }
    let took = begun.elapsed();
    let after = (answered(&server, "playlist").await, answered(&server, "part").await);

    let asked = cache.asked();
    let mut renewed = 0;
    for (uri, times) in &asked {
        if uri.ends_with("index.m3u8") {
            // Fresh for a second: asked for again by the first one to come later.
            assert!(*times as u64 <= took.as_secs() + 10, "{times} times {uri}");
            renewed += times;
        } else {
            assert!(*times <= 1, "{times} times {uri}");
        }
    }
    assert!(uris.iter().all(|uri| asked.contains_key(uri)), "the log lacks requests");
    let held = uris.iter().filter(|u| u.contains("_HLS_msn")).count();
    let parts = uris.iter().filter(|u| u.ends_with(".m4s")).count();
    assert!(held >= PARTS && parts >= PARTS - 2, "{uris:?}");
    // The origin's own count says the same.
    assert!(after.0 - before.0 <= held + renewed, "{} playlists asked for, {held} + {renewed}", after.0 - before.0);
    assert!(after.1 - before.1 <= parts, "{} parts asked for, {parts}", after.1 - before.1);
    let answers = cache.log().len();
    let origin: usize = asked.values().sum();
    println!("{answers} answers to {VIEWERS} viewers in {took:?} cost the origin {origin}");
    assert!(answers > VIEWERS * PARTS && origin * 20 < answers, "{origin} of {answers}");
    assert_eq!(cache.errors(), "");
}

/// What is no part of an object's name neither splits nor defeats the cache, and cached answers are whole.
#[tokio::test]
async fn a_cached_object_is_the_same_for_everyone() {
    if !have_all() {
        return;
    }
    let server = Server::start(&[]).await;
    let cache = Cache::start("fishladder.conf", server.base()).await;
    let publisher = Ffmpeg::default().publish().await;
    server.put_sdp("show", &publisher.sdp, Some(json!("passthrough"))).await;
    server.live("show", &["src"]).await;
    let playlist = server.playlist("show", "src", "").await;
    let newest = playlist.newest().unwrap();
    let segment = format!("/live/show/src/{}.m4s", newest.msn);
    let direct = server.get(&segment).await;
    let etag = direct.headers()["etag"].to_str().unwrap().to_owned();
    let whole = direct.bytes().await.unwrap();

    // Queries, ranges, conditions: one request to the origin.
    for query in ["", "?session=1", "?CMCD=sid%3D%22a%22", "?_HLS_msn=1"] {
        let response = cache.get(&format!("{segment}{query}")).await;
        assert_eq!(response.headers()["cache-control"], "public, max-age=3600, immutable");
        assert!(response.bytes().await.unwrap() == whole, "{query}");
    }
    let with = async |name: &str, value: &str| cache.request("GET", &segment).header(name, value).send().await.unwrap();
    let ranged = with("range", "bytes=10-19").await;
    assert_eq!((ranged.status().as_u16(), ranged.headers()["etag"].to_str().unwrap()), (206, etag.as_str()));
    assert!(ranged.bytes().await.unwrap() == whole[10..20]);
    assert_eq!(with("range", "bytes=99999999-").await.status(), 416);
    assert_eq!(with("if-none-match", &etag).await.status(), 304);
    let asked: usize = cache.asked().iter().filter(|(uri, _)| uri.starts_with(&segment)).map(|(_, n)| n).sum();
    assert_eq!(asked, 1, "{:?}", cache.log());

    // One copy for who takes gzip and who does not, and for every session's own query.
    let (msn, part) = playlist.next();
    let query = format!("?_HLS_msn={msn}&_HLS_part={part}");
    let mut texts = Vec::new();
    for (encoding, odd) in [("gzip", ""), ("identity", "&sid=2"), ("gzip, deflate, br", "&sid=3"), ("", "&sid=4")] {
        let request = cache.request("GET", &format!("/live/show/src/index.m3u8{query}{odd}"));
        let response = request.header("accept-encoding", encoding).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().contains_key("content-encoding"), encoding.starts_with("gzip"), "{encoding}");
        let length = response.bytes().await.unwrap();
        texts.push(length);
    }
    assert!(texts[0] == texts[2] && texts[1] == texts[3] && texts[0].len() < texts[1].len());
    Playlist::parse(std::str::from_utf8(&texts[1]).unwrap()).check();
    let asked: usize = cache.asked().iter().filter(|(uri, _)| uri.contains(&query)).map(|(_, n)| n).sum();
    assert_eq!(asked, 1, "{:?}", cache.log());

    // Errors: what is missing is remembered for a moment, what is malformed is not.
    for (path, status, outcomes) in [
        ("/live/nobody/index.m3u8", 404, ["MISS", "HIT"]),
        ("/live/show/src/1.m4s", 404, ["MISS", "HIT"]),
        ("/live/show/src/index.m3u8?_HLS_msn=x", 400, ["MISS", "MISS"]),
    ] {
        for outcome in outcomes {
            let response = cache.get(path).await;
            assert_eq!(
                (response.status().as_u16(), response.headers()["x-cache"].to_str().unwrap()),
                (status, outcome)
            );
        }
    }
    for closed in ["/api/v1/channels", "/metrics", "/whip/show", "/"] {
        assert_eq!(cache.get(closed).await.status(), 404, "{closed}");
    }
    assert_eq!(cache.errors(), "");
}

/// With a token of its own for each viewer the cache keeps one copy, and lets nobody in whom the origin would not.
#[tokio::test]
async fn viewers_with_tokens_of_their_own_share_what_is_cached() {
    if !have_all() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let setting = format!("viewers.key_file={}", key.display());
    let server = Server::start(&[&setting]).await;
    let cache = Cache::start("fishladder-per-viewer.conf", server.base()).await;
    // `~TOKEN`; each life another token.
    let token = |channel: &str, life: &str| {
        let output = run(&["sign", "--channel", channel, "--expires", life, "--set", &setting]);
        let path = String::from_utf8(output.stdout).unwrap();
        path.split('/').nth(2).unwrap().to_owned()
    };
    let (first, second, other) = (token("show", "1h"), token("show", "2h"), token("other", "1h"));
    assert!(first != second);
    let publisher = Ffmpeg::default().publish().await;
    server.put_sdp("show", &publisher.sdp, Some(json!("passthrough"))).await;
    e2e::until("the multivariant playlist", || async {
        server.get(&format!("/live/{first}/show/index.m3u8")).await.status().is_success().then_some(())
    })
    .await;

    // Both follow through the cache; what they ask for is fetched once.
    let channels = [format!("{first}/show"), format!("{second}/show")];
    let (a, b) = tokio::join!(
        follow(Viewer::clone(&cache), channels[0].clone(), 8),
        follow(Viewer::clone(&cache), channels[1].clone(), 8)
    );
    assert!(a.is_disjoint(&b));
    let asked = cache.asked();
    let mut objects: HashMap<String, usize> = HashMap::new();
    for (uri, times) in &asked {
        let (_, object) = uri.split_once("/show/").unwrap();
        *objects.entry(object.to_owned()).or_default() += times;
    }
    let once = objects.iter().filter(|(object, _)| !object.ends_with("index.m3u8"));
    assert!(once.clone().count() >= 14 && once.clone().all(|(_, n)| *n <= 1), "{objects:?}");
    assert!(once.clone().any(|(object, _)| object.ends_with(".m4s")), "{objects:?}");

    // What is cached is given to nobody else: another channel's token, none, a spoilt one, and paths that mean another
    // channel once they are put in order.
    let spoilt = first.replace("~A", "~B");
    let expired = token("show", "1s");
    e2e::until("the token to expire", || async {
        (server.get(&format!("/live/{expired}/show/access")).await.status() == 403).then_some(())
    })
    .await;
    // The newest of each kind is fresh for longer than this test takes.
    let newest = |kind: &str| objects.keys().filter(|object| object.contains(kind)).max().unwrap();
    for object in [newest(".m4s"), newest("_HLS_msn")] {
        assert!(raw(&cache, &format!("/live/{second}/show/{object}")).starts_with("HTTP/1.1 200"));
        for path in [
            format!("/live/show/{object}"),
            format!("/live/{other}/show/{object}"),
            format!("/live/{spoilt}/show/{object}"),
            format!("/live/{expired}/show/{object}"),
            format!("/live/{other}/other/../show/{object}"),
            format!("/live/{other}/other/%2e%2e/show/{object}"),
            format!("/live/{other}/other%2f..%2fshow/{object}"),
            format!("/live/{other}/other/../../show/{object}"),
            format!("/live//{other}//show/{object}"),
            format!("/live/~/show/{object}"),
            format!("/live/{other}%2f/show/{object}"),
            format!("/live/{first}%20/show/{object}"),
            format!("/live/{first}%0d%0a/show/{object}"),
            format!("/fishladder-access/../live/show/{object}"),
        ] {
            let answer = raw(&cache, &path);
            assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
            assert!(answer.contains("Access-Control-Allow-Origin: *"), "{path}: {answer}");
        }
    }
    assert!(raw(&cache, "/fishladder-access").starts_with("HTTP/1.1 404"));
    assert_eq!(cache.errors(), "");
}

/// Status line and headers of a path that a URL library would put in order first.
fn raw(cache: &Cache, path: &str) -> String {
    let mut socket = TcpStream::connect(cache.base().trim_start_matches("http://")).unwrap();
    socket.write_all(format!("HEAD {path} HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}
