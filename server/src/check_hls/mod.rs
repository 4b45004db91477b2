//! `fishladder check-hls`: follows any server's HLS as a client for a while and says which rules it breaks.
//!
//! The rules are `packager::validate`'s, the same that the server holds its own playlists against. `follow` is one viewer of one
//! rendition, `report` what is printed.

mod client;
mod follow;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packager::validate::{Findings, Multivariant, Playlist, Rule, check_across};
use tokio::task::JoinSet;
use url::Url;

use client::{Connection, Network};
use follow::{Followed, Follower, Positions};
use report::Report;

/// Renditions that are followed at once; ladders have far fewer.
const RENDITIONS: usize = 32;

#[derive(clap::Args)]
pub struct Options {
    /// A multivariant or media playlist, http or https.
    url: Url,
    /// How long to follow it.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// As JSON, for programs.
    #[arg(long)]
    json: bool,
    /// A PEM file with the certificates to trust instead of the system's.
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// Success: no MUST was broken.
pub fn run(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(check(options)) {
        Ok(report) => {
            print!("{}", if options.json { report.json() } else { report.text() });
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What the multivariant playlist promises of a variant.
struct Promise {
    uri: String,
    url: Url,
    /// Media playlists of its audio group.
    audio: Vec<Url>,
    bandwidth: Option<u64>,
    codecs: Option<String>,
}

/// Err: there is nothing to follow.
async fn check(options: &Options) -> Result<Report, String> {
    let network = Arc::new(Network::new(options.ca.as_deref())?);
    let answer = Connection::new(network.clone()).get(&options.url, &[]).await?;
    if !answer.is_success() {
        return Err(format!("{}: status {}", options.url, answer.status));
    }
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let mut findings = Findings::default();
    let (mut targets, mut promises) = (Vec::new(), Vec::new());
    if Multivariant::is_one(&text) {
        follow::check_playlist_answer(&answer, false, &mut findings);
        (targets, promises) = promised(&Multivariant::read(&text, &mut findings), &answer.url, &mut findings);
    } else if text.starts_with("#EXTM3U") {
        targets.push((answer.url.path().to_owned(), answer.url.clone()));
    } else {
        return Err(format!("{}: this is no playlist", options.url));
    }
    let left_out = targets.split_off(targets.len().min(RENDITIONS)).len();
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let positions = Positions::default();
    let mut tasks = JoinSet::new();
    for (name, url) in &targets {
        let others = targets.iter().map(|(_, other)| other).filter(|other| *other != url).cloned().collect();
        let follower = Follower::new(name.clone(), url.clone(), others, &network, positions.clone());
        tasks.spawn(follower.run(until));
    }
    let mut followed = Vec::new();
    while let Some(done) = tasks.join_next().await {
        followed.push(done.map_err(|e| format!("a follower ended: {e}"))?);
    }
    followed.sort_by_key(|f| targets.iter().position(|(_, url)| *url == f.url));
    across(&followed, &mut findings);
    for promise in &promises {
        kept(promise, &followed, &mut findings);
    }
    for one in &mut followed {
        findings.absorb(std::mem::take(&mut one.findings), &one.name);
    }
    Ok(Report { url: options.url.clone(), seconds: options.seconds, findings, followed, left_out })
}

/// Media playlists by name, each once, and what is promised of them.
fn promised(read: &Multivariant<'_>, base: &Url, findings: &mut Findings) -> (Vec<(String, Url)>, Vec<Promise>) {
    let mut targets: Vec<(String, Url)> = Vec::new();
    let mut promises = Vec::new();
    let mut join = |uri: &str| {
        let joined = base.join(uri);
        findings.must(Rule::A1, joined.is_ok(), || format!("a URI cannot be read: {uri:.160}"));
        joined.ok()
    };
    let groups: Vec<_> = read.audio.iter().filter_map(|a| Some((a.group, a.uri?, join(a.uri?)?))).collect();
    for variant in &read.variants {
        let Some(url) = join(variant.uri) else { continue };
        let group = groups.iter().filter(|(group, ..)| Some(*group) == variant.audio);
        promises.push(Promise {
            uri: variant.uri.to_owned(),
            url: url.clone(),
            audio: group.map(|(.., url)| url.clone()).collect(),
            bandwidth: variant.bandwidth,
            codecs: variant.codecs.map(str::to_owned),
        });
        targets.push((variant.uri.to_owned(), url));
    }
    targets.extend(groups.into_iter().map(|(_, uri, url)| (uri.to_owned(), url)));
    let mut seen = Vec::new();
    targets.retain(|(_, url)| {
        let fresh = !seen.contains(url);
        seen.push(url.clone());
        fresh
    });
    (targets, promises)
}

/// The first rendition against each of the others.
fn across(followed: &[Followed], findings: &mut Findings) {
    let mut playlists =
        followed.iter().filter_map(|f| Some((f, Playlist::read(f.last.as_deref()?, &mut Findings::default())?)));
    let Some((first, leading)) = playlists.next() else { return };
    for (other, playlist) in playlists {
        check_across((&first.name, &leading), (&other.name, &playlist), findings);
    }
}

/// Whether a variant is what its line says.
fn kept(promise: &Promise, followed: &[Followed], findings: &mut Findings) {
    let find = |url: &Url| followed.iter().find(|f| f.url == *url);
    let Some(video) = find(&promise.url) else { return };
    // A variant of sound alone is the playlist of its own group.
    let audio: Vec<_> = promise.audio.iter().filter(|url| **url != promise.url).filter_map(find).collect();
    let peak = video.peak.saturating_add(audio.iter().map(|a| a.peak).max().unwrap_or(0));
    if let Some(bandwidth) = promise.bandwidth.filter(|_| video.peak > 0) {
        findings.should(Rule::A56, peak <= bandwidth.saturating_mul(11) / 10, || {
            format!("{} has segments of {peak} bit/s, BANDWIDTH is {bandwidth}", promise.uri)
        });
    }
    let Some(codecs) = &promise.codecs else { return };
    let listed: Vec<_> = codecs.split(',').map(|c| c.trim().to_ascii_lowercase()).collect();
    for codec in std::iter::once(video).chain(audio).flat_map(|f| &f.codecs) {
        let codec = codec.to_ascii_lowercase();
        // Of some codecs only the first letters are known.
        let found = listed.iter().any(|l| *l == codec || (!codec.contains('.') && l.split('.').next() == Some(&codec)));
        findings.must(Rule::B14, found, || format!("{} has the codec {codec}, CODECS is {codecs:?}", promise.uri));
    }
}
