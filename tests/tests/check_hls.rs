//! `fishladder check-hls` against our own server, and against one that replays playlists with a fault.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use e2e::clients::finish;
use e2e::have;
use e2e::publishers::{AAC, Ffmpeg};
use e2e::server::{Server, program, run};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Runs it and gives whether it succeeded, and its report.
async fn check(url: &str, seconds: u32) -> (bool, Value) {
    let mut command = tokio::process::Command::new(program());
    command.args(["check-hls", url, "--json", "--seconds", &seconds.to_string()]);
    let output = finish(command, Duration::from_secs(u64::from(seconds) + 60)).await;
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), report)
}

/// Rules of which a MUST, or a SHOULD, was broken.
fn broken<'a>(report: &'a Value, kind: &str) -> BTreeSet<&'a str> {
    let rules = report["rules"].as_array().unwrap().iter();
    rules.filter(|r| r[kind].as_u64().unwrap() > 0).map(|r| r["rule"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn our_own_server_breaks_no_rule() {
    if !have("ffmpeg") {
        return;
    }
    // A short window, so that segments leave it and delta updates come within the time.
    let server = Server::start(&["hls.window=12s", "hls.segment_target=1s"]).await;
    let publisher = Ffmpeg { audio: AAC, ..Ffmpeg::default() }.publish().await;
    let ladder = json!({ "passthrough": true, "audio_bitrate": 96_000,
        "rungs": [{ "height": 180, "bitrate": 200_000, "preset": "ultrafast" }] });
    server.put_sdp("show", &publisher.sdp, Some(ladder)).await;
    server.live("show", &["src", "v180", "aac"]).await;
    let (good, report) = check(&server.url("/live/show/index.m3u8"), 20).await;
    assert!(good, "{report:#}");
    assert_eq!(broken(&report, "faults"), BTreeSet::new(), "{report:#}");
    // A52: only with TLS. A10 and A29: the machine, and the publisher's rhythm.
    let mut warnings = broken(&report, "warnings");
    for known in ["A52", "A10", "A29"] {
        warnings.remove(known);
    }
    assert_eq!(warnings, BTreeSet::new(), "{report:#}");
    let renditions = report["renditions"].as_array().unwrap();
    assert!(renditions.len() >= 3, "{report:#}");
    for rendition in renditions {
        let count = |key: &str| rendition[key].as_u64().unwrap();
        assert!(count("parts") > 60 && count("segments") > 10, "{rendition:#}");
        assert!(count("blocking") + 1 == count("reloads") && count("delta_updates") > 20, "{rendition:#}");
        assert!(rendition["listed_to_last_byte_ms"]["p50"].as_i64().is_some(), "{rendition:#}");
    }
    // Everything that matters was really looked at.
    let checked: BTreeSet<_> =
        report["rules"].as_array().unwrap().iter().map(|r| r["rule"].as_str().unwrap()).collect();
    for rule in ["A3", "A5", "A6", "A8", "A9", "A14", "A23", "A26", "A33", "A34", "A35", "A36", "A37", "A38", "A39"] {
        assert!(checked.contains(rule), "{rule} was not checked");
    }
    for rule in ["A4", "A27", "A56", "A57", "A59", "B1", "B2", "B3", "B4", "B14"] {
        assert!(checked.contains(rule), "{rule} was not checked");
    }
    // What the server says of itself.
    let metrics = server.text("/metrics").await;
    assert!(!metrics.contains("fishladder_playlist_faults_total{"), "{metrics}");

    // A media playlist alone will do, and people get sentences.
    let output = run(&["check-hls", &server.url("/live/show/src/index.m3u8"), "--seconds", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("ok    A35"), "{text}");
}

#[tokio::test]
async fn what_is_no_playlist_is_an_error() {
    let server = Server::start(&[]).await;
    for path in ["/live/nobody/index.m3u8", "/healthz"] {
        let output = run(&["check-hls", &server.url(path), "--seconds", "1"]);
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: "), "{path}");
    }
    assert_eq!(run(&["check-hls", "http://127.0.0.1:1/x.m3u8", "--seconds", "1"]).status.code(), Some(1));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Doctored {
    Nothing,
    /// Nothing: parts are ranges of their segment.
    Ranged,
    /// Nothing: no parts and no blocking reload.
    Plain,
    /// EXT-X-MEDIA-SEQUENCE goes back by one, and what had been removed comes back.
    GoesBack,
    LongPart,
    LongSegment,
    /// For a second blocking reloads are answered at once, without what they ask for.
    Early,
    /// A listed segment has another duration later.
    Rewritten,
    /// A part that is listed is not there.
    Missing,
}

#[tokio::test]
async fn each_fault_of_a_doctored_server_is_told_by_its_rule() {
    let mut checks = Vec::new();
    for (doctored, expected) in [
        (Doctored::Nothing, None),
        (Doctored::Ranged, None),
        (Doctored::Plain, None),
        (Doctored::GoesBack, Some("A5")),
        (Doctored::LongPart, Some("A23")),
        (Doctored::LongSegment, Some("A3")),
        (Doctored::Early, Some("A35")),
        (Doctored::Rewritten, Some("A6")),
        (Doctored::Missing, Some("A11")),
    ] {
        checks.push(tokio::spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/index.m3u8", listener.local_addr().unwrap());
            let server = tokio::spawn(replay(listener, doctored));
            let (good, report) = check(&url, 4).await;
            server.abort();
            let expected: BTreeSet<_> = expected.into_iter().collect();
            assert_eq!(broken(&report, "faults"), expected, "{doctored:?}: {report:#}");
            assert_eq!(good, expected.is_empty(), "{doctored:?}: {report:#}");
            let media =
                report["renditions"][0][if doctored == Doctored::Plain { "segments" } else { "parts" }].as_u64();
            assert!(media.unwrap() >= 4, "{doctored:?}: {report:#}");
        }));
    }
    for check in checks {
        check.await.unwrap();
    }
}

/// A part lasts so long, and five make a segment.
const PART: Duration = Duration::from_millis(200);
const PARTS: u64 = 5;
/// Complete segments at the beginning, and in the list ever after.
const LISTED: u64 = 8;
/// The segment that has the fault.
const SICK: u64 = LISTED + 1;

/// Makes a part every 200 ms and answers for ever.
async fn replay(listener: TcpListener, doctored: Doctored) {
    let begun = Instant::now();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(stream, doctored, begun));
    }
}

/// One kept-alive connection.
async fn answer(mut stream: TcpStream, doctored: Doctored, begun: Instant) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        request.extend_from_slice(&buffer[..read]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
        let target = text.split(' ').nth(1).unwrap().to_owned();
        let (status, kind, body) = respond(&target, doctored, begun).await;
        let range = text.split_once("range: bytes=").and_then(|(_, r)| r.split("\r\n").next()?.split_once('-'));
        let (status, range, body) = match range.filter(|_| status == 200) {
            Some((start, end)) => {
                let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                (206, format!("content-range: bytes {start}-{end}/{}\r\n", body.len()), body[start..=end].to_owned())
            }
            None => (status, String::new(), body),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncache-control: max-age=1\r\n{range}\
             access-control-allow-origin: *\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn respond(target: &str, doctored: Doctored, begun: Instant) -> (u16, &'static str, String) {
    const PLAYLIST: &str = "application/vnd.apple.mpegurl";
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != "/index.m3u8" {
        let missing = doctored == Doctored::Missing && path == format!("/{SICK}.2.ts");
        // A part's name has two dots. No segment is compared with its parts that the playlist changes in any way.
        let parts = if path.matches('.').count() == 2 { 1 } else { PARTS };
        let known = path.ends_with(".ts") && !missing;
        return match known {
            true => (200, "video/mp2t", "ts..".repeat(usize::try_from(parts).unwrap())),
            false => (404, "text/plain", String::new()),
        };
    }
    let directive = |name: &str| query.split('&').find_map(|d| d.strip_prefix(name)?.parse::<u64>().ok());
    let made = || LISTED * PARTS + (begun.elapsed().as_millis() / PART.as_millis()) as u64;
    match (directive("_HLS_msn="), directive("_HLS_part=")) {
        (None, Some(_)) => return (400, "text/plain", String::new()),
        (Some(msn), _) if msn > made() / PARTS + 2 => return (400, "text/plain", String::new()),
        (Some(msn), part) if doctored != Doctored::Early || made() / PARTS != SICK => {
            // A player that has seen this much is shown one part more. The publisher's clock, not a pause of the test's.
            let wanted = msn * PARTS + part.map_or(PARTS, |p| p.min(PARTS) + 1);
            let at = PART * u32::try_from(wanted.saturating_sub(LISTED * PARTS)).unwrap();
            tokio::time::sleep_until((begun + at).into()).await;
        }
        _ => {}
    }
    (200, PLAYLIST, playlist(made(), doctored))
}

/// The playlist when so many parts have been made.
fn playlist(made: u64, doctored: Doctored) -> String {
    let open = made / PARTS;
    // For a part's time in the middle of a segment the list begins where it did before.
    let back = doctored == Doctored::GoesBack && open == SICK && made % PARTS == 3;
    let first = open - LISTED - u64::from(back && open > LISTED);
    if doctored == Doctored::Plain {
        let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
        for msn in first..open {
            writeln!(text, "#EXTINF:1.0,\n{msn}.ts").unwrap();
        }
        return text;
    }
    let mut text = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6,HOLD-BACK=3\n\
         #EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:{first}\n"
    );
    for msn in first..=open {
        let long = doctored == Doctored::LongSegment && msn == SICK;
        let parts = match msn == open {
            true => made % PARTS,
            false if long => 8,
            false => PARTS,
        };
        if parts == 0 {
            continue;
        }
        writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:{msn:02}.000Z").unwrap();
        let mut lasts = 0.0;
        for part in 0..parts {
            let duration = match doctored {
                Doctored::LongPart if msn == SICK && part == 2 => 0.21,
                _ => 0.2,
            };
            lasts += duration;
            let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
            let place = match doctored {
                Doctored::Ranged => format!("\"{msn}.ts\",BYTERANGE=\"4@{}\"", part * 4),
                _ => format!("\"{msn}.{part}.ts\""),
            };
            if msn + 3 >= open {
                writeln!(text, "#EXT-X-PART:DURATION={duration},URI={place}{independent}").unwrap();
            }
        }
        if msn < open {
            let lasts = match doctored {
                Doctored::Rewritten if msn == SICK && open > SICK + 1 => lasts - 0.001,
                _ => lasts,
            };
            writeln!(text, "#EXTINF:{lasts:.3},\n{msn}.ts").unwrap();
        }
    }
    let hint = match doctored {
        Doctored::Ranged => format!("\"{open}.ts\",BYTERANGE-START={}", made % PARTS * 4),
        _ => format!("\"{open}.{}.ts\"", made % PARTS),
    };
    writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI={hint}").unwrap();
    text
}
