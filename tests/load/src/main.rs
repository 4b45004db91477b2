//! `fishladder-load`: thousands of Low-Latency HLS viewers in one process, against any server.
//!
//! The follower (follow.rs), playlists, HTTP/1 answers and what is measured are pure; viewer.rs and net.rs are the shell.

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;
use url::Url;

mod abuse;
mod added;
mod follow;
mod hold;
mod http1;
mod net;
mod playlist;
mod process;
mod tally;
mod viewer;

use crate::net::Network;
use crate::tally::{PublishClock, Tally};
use crate::viewer::{Options, Shared};

/// A generator that takes less of the machine leaves more of it to the server that it measures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Load and latency of a Low-Latency HLS server: each viewer follows video and audio with blocking reloads, fetches each
/// part when it is listed, and checks that nothing is missing or changes. Exit code 1: something went wrong for a viewer.
#[derive(Debug, Parser)]
#[command(name = "fishladder-load", version)]
struct Arguments {
    /// A multivariant or media playlist.
    url: Url,
    /// Viewers at the same time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    viewers: u32,
    /// Seconds over which the viewers come.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    ramp: u64,
    /// Seconds that are measured, after all have come.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Which variant of the multivariant playlist, from 0.
    #[arg(long, default_value_t = 0)]
    variant: usize,
    /// One connection for each rendition, where reloads and parts take turns; two else, as browsers have.
    #[arg(long)]
    one_connection: bool,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
    /// The server's process: its CPU time and memory are reported too.
    #[arg(long)]
    pid: Option<u32>,
    /// Certificates to trust for https.
    #[arg(long, default_value = "/etc/ssl/certs/ca-certificates.crt")]
    ca: PathBuf,
    /// Instead of viewers: so many blocking reloads held at once, and what each costs the server's memory.
    #[arg(long, requires = "pid", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hold: Option<u32>,
    /// Seconds after which the memory must be back.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    freed_within: u64,
    /// Instead of viewers: relay an RTP publisher's H.264 from one loopback UDP port to another (RTCP on the next ones),
    /// and report how long after its last packet each frame is at a viewer. FROM:TO; for passthrough renditions.
    #[arg(long, conflicts_with_all = ["hold", "abuse"])]
    added: Option<added::Relay>,
    /// Measure twice, the second time beside such clients (loopback and private addresses only).
    #[arg(long, value_enum, conflicts_with = "hold")]
    abuse: Option<abuse::Kind>,
    /// How many of them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    abusers: u32,
    /// Requests or connections a second of each, at most.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    abuse_rate: u32,
}

/// After the last viewer has come, before the measurement: they fetch what is behind the live end.
const SETTLE: Duration = Duration::from_secs(2);

/// So long the relay waits for the stream behind it.
const STARTS: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("fishladder-load: {why}");
            ExitCode::from(2)
        }
    }
}

/// Ok: whether all went well. Err: why nothing could be measured.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let each = if arguments.one_connection { 2 } else { 4 };
    let honest = arguments.hold.map_or(u64::from(arguments.viewers) * each, u64::from);
    let abusers = if arguments.abuse.is_some() { u64::from(arguments.abusers) * 2 } else { 0 };
    process::allow_files(honest + abusers + 64)?;
    let thread = Thread::new(arguments)?;
    if let Some(relay) = arguments.added {
        return thread.block_on(added(&thread, arguments, relay));
    }
    if arguments.hold.is_some() { thread.block_on(hold(&thread, arguments)) } else { load(&thread, arguments) }
}

/// What every thread of viewers begins with.
struct Thread {
    clock: Arc<Mutex<PublishClock>>,
    roots: Arc<rustls::RootCertStore>,
    start: (Instant, SystemTime),
    options: Options,
}

impl Thread {
    fn new(arguments: &Arguments) -> Result<Self, String> {
        let empty = rustls::RootCertStore::empty();
        let roots = if arguments.url.scheme() == "https" { net::roots(&arguments.ca)? } else { empty };
        let options = Options {
            url: arguments.url.clone(),
            variant: arguments.variant,
            one_connection: arguments.one_connection,
            media: true,
        };
        let start = (Instant::now(), SystemTime::now());
        Ok(Self { clock: Arc::default(), roots: Arc::new(roots), start, options })
    }

    fn shared(&self, media: bool) -> Rc<Shared> {
        let options = Options { media, ..self.options.clone() };
        Rc::new(Shared::new(Network::new(self.roots.clone()), self.clock.clone(), self.start, options))
    }

    fn again(&self) -> Self {
        let (clock, roots) = (self.clock.clone(), self.roots.clone());
        Self { clock, roots, start: self.start, options: self.options.clone() }
    }

    fn block_on<T>(&self, future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("cannot start the runtime: {e}"))?;
        LocalSet::new().block_on(&runtime, future)
    }
}

async fn hold(thread: &Thread, arguments: &Arguments) -> Result<bool, String> {
    let (Some(requests), Some(pid)) = (arguments.hold, arguments.pid) else {
        return Err("--hold needs --pid".to_owned());
    };
    let shared = thread.shared(false);
    let plan = hold::Plan {
        requests: requests as usize,
        pid,
        ramp: Duration::from_secs(arguments.ramp),
        time: Duration::from_secs(arguments.seconds),
        freed_within: Duration::from_secs(arguments.freed_within),
    };
    let report = hold::run(&shared, &plan).await?;
    let tally = shared.next_phase();
    // Between an answer and the next request one is not held; a tenth of them at once means that they never all were.
    let fine = tally.errors() == 0 && report.fewest == report.requests && report.freed.is_some();
    if arguments.json {
        let mut value = report.json();
        value["errors"] = json!(tally.faults);
        println!("{value:#}");
        return Ok(fine);
    }
    println!("held requests          {}", report.requests);
    println!("server RSS before      {} KiB", report.before);
    println!("server RSS while held  {} KiB: {} bytes for each", report.held, report.each());
    match report.freed {
        Some(freed) => {
            println!("server RSS after       {} KiB, {:.2} s after the clients", report.after, freed.as_secs_f64())
        }
        None => println!("server RSS after       {} KiB: not freed", report.after),
    }
    print_faults(&tally);
    Ok(fine)
}

async fn added(thread: &Thread, arguments: &Arguments, relay: added::Relay) -> Result<bool, String> {
    let time = Duration::from_secs(arguments.seconds);
    let report = added::run(&thread.shared(true), relay, STARTS, time).await.map_err(|fault| fault.detail())?;
    if arguments.json {
        println!("{:#}", report.json());
        return Ok(report.is_fine());
    }
    println!("  {:<42}{:>10}{:>9}{:>9}{:>9}{:>9}", "milliseconds", "count", "p50", "p95", "p99", "max");
    println!("  {:<42}{}", "last packet of a frame to its part", report.added.row());
    println!("  part target {} ms; frames that did not pass the relay: {}", report.part_target / 1000, report.unknown);
    Ok(report.is_fine())
}

/// A measured span of time.
struct Phase {
    tally: Tally,
    time: Duration,
    own_cpu: Duration,
    server: Option<Server>,
    watching: usize,
}

/// What the server used.
struct Server {
    cpu: Duration,
    rss_kib: u64,
}

fn load(thread: &Thread, arguments: &Arguments) -> Result<bool, String> {
    let control = thread.again();
    // Ends with the process.
    std::thread::spawn(move || {
        let shared = control.shared(false);
        // Its faults are those of every viewer, which count them.
        control.block_on(async {
            viewer::viewer(shared).await;
            Ok(())
        })
    });
    let phases = thread.block_on(async {
        let shared = thread.shared(true);
        let mut viewers = JoinSet::new();
        let ramp = Duration::from_secs(arguments.ramp);
        for number in 0..arguments.viewers {
            let (shared, wait) = (shared.clone(), ramp / arguments.viewers * number);
            viewers.spawn_local(async move {
                sleep(wait).await;
                viewer::viewer(shared).await;
            });
        }
        sleep(ramp + SETTLE).await;
        // Faults while they came count as any other.
        let joining = shared.next_phase();
        let mut calm = measure(&shared, arguments).await?;
        for (kind, count) in joining.faults {
            *calm.tally.faults.entry(kind).or_default() += count;
        }
        calm.tally.examples.extend(joining.examples);
        let Some(kind) = arguments.abuse else { return Ok((calm, None)) };
        let plan = abuse::Plan {
            kind,
            clients: arguments.abusers as usize,
            rate: arguments.abuse_rate,
            time: SETTLE + Duration::from_secs(arguments.seconds),
        };
        let other = thread.again();
        let (done, outcomes) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let shared = other.shared(false);
            let outcomes = other.block_on(async { abuse::run(&shared, &plan).await.map_err(|f| f.detail()) });
            // The receiver is gone when the measurement has failed.
            let _ = done.send(outcomes);
        });
        sleep(SETTLE).await;
        let early = shared.next_phase();
        let mut abused = measure(&shared, arguments).await?;
        for (kind, count) in early.faults {
            *abused.tally.faults.entry(kind).or_default() += count;
        }
        let outcomes = outcomes.await.map_err(|_| "the abusers ended".to_owned())??;
        Ok((calm, Some((abused, outcomes))))
    });
    let (calm, abused) = phases?;
    let mut fine = is_fine(&calm, arguments);
    if let Some((phase, _)) = &abused {
        fine &= is_fine(phase, arguments);
    }
    if arguments.json {
        let mut value = json!({ "viewers": arguments.viewers, "fine": fine, "load": phase_json(&calm) });
        if let Some((phase, outcomes)) = &abused {
            value["abused"] = phase_json(phase);
            value["abuse"] = json!(outcomes);
            value["p99_moved_percent"] = json!(moved(&calm, phase));
        }
        println!("{value:#}");
        return Ok(fine);
    }
    print_phase(&format!("{} viewers", arguments.viewers), &calm);
    if let Some((phase, outcomes)) = &abused {
        print_phase(&format!("{} viewers beside {} abusers", arguments.viewers, arguments.abusers), phase);
        println!("abusers saw         {outcomes:?}");
        if let Some(percent) = moved(&calm, phase) {
            println!("honest p99 moved    {percent:+.1} % (publish to last byte of the part)");
        }
    }
    Ok(fine)
}

async fn measure(shared: &Shared, arguments: &Arguments) -> Result<Phase, String> {
    let server_cpu = || arguments.pid.map(process::cpu).transpose();
    let (begun, own, server) = (Instant::now(), process::own_cpu(), server_cpu()?);
    // A server that ends while it is measured is a finding, not a reason to keep silent.
    sleep(Duration::from_secs(arguments.seconds)).await;
    let time = begun.elapsed();
    let tally = shared.next_phase();
    let used = server_cpu().ok().flatten().zip(server).map(|(after, before)| after.saturating_sub(before));
    let rss = arguments.pid.and_then(|pid| process::rss(pid).ok());
    let server = used.zip(rss).map(|(cpu, rss_kib)| Server { cpu, rss_kib });
    Ok(Phase { tally, time, own_cpu: process::own_cpu().saturating_sub(own), server, watching: shared.watching.get() })
}

/// No faults, everybody watches, and parts came.
fn is_fine(phase: &Phase, arguments: &Arguments) -> bool {
    phase.tally.errors() == 0 && phase.watching == arguments.viewers as usize && phase.tally.part.count() > 0
}

/// By how many percent the p99 of publish to last byte moved.
fn moved(calm: &Phase, abused: &Phase) -> Option<f64> {
    let (before, after) = (calm.tally.part.quantile(990)?, abused.tally.part.quantile(990)?);
    Some((after as f64 / before.max(1) as f64 - 1.0) * 100.0)
}

fn phase_json(phase: &Phase) -> Value {
    let seconds = phase.time.as_secs_f64();
    let tally = &phase.tally;
    json!({
        "seconds": seconds, "watching": phase.watching, "requests": tally.requests, "bytes": tally.bytes,
        "requests_per_second": tally.requests as f64 / seconds, "reconnects": tally.reconnects,
        "publish_to_part": tally.part.json(), "publish_to_playlist": tally.listing.json(),
        "date_to_part": tally.dated.json(), "request_to_part": tally.fetch.json(),
        "errors": tally.errors(), "errors_by_kind": tally.faults, "examples": tally.examples,
        "own_cpu_cores": phase.own_cpu.as_secs_f64() / seconds,
        "server_cpu_cores": phase.server.as_ref().map(|s| s.cpu.as_secs_f64() / seconds),
        "server_rss_kib": phase.server.as_ref().map(|s| s.rss_kib),
    })
}

fn print_phase(title: &str, phase: &Phase) {
    let seconds = phase.time.as_secs_f64();
    let tally = &phase.tally;
    println!("{title}, {seconds:.0} s, {} of them watching at the end", phase.watching);
    println!("  {:<42}{:>10}{:>9}{:>9}{:>9}{:>9}", "milliseconds", "count", "p50", "p95", "p99", "max");
    println!("  {:<42}{}", "publish to last byte of the part", tally.part.row());
    println!("  {:<42}{}", "publish to last byte of the playlist", tally.listing.row());
    println!("  {:<42}{}", "end by PROGRAM-DATE-TIME to last byte", tally.dated.row());
    println!("  {:<42}{}", "request of the part to its last byte", tally.fetch.row());
    let rate = |n: u64| n as f64 / seconds;
    println!(
        "  requests/s {:.0}, Mbit/s {:.1}, reconnects {}",
        rate(tally.requests),
        rate(tally.bytes) * 8e-6,
        tally.reconnects
    );
    println!("  CPU of this program: {:.2} cores", phase.own_cpu.as_secs_f64() / seconds);
    if let Some(server) = &phase.server {
        let cores = server.cpu.as_secs_f64() / seconds;
        println!("  the server: {cores:.2} cores, {} MiB resident", server.rss_kib / 1024);
    }
    print_faults(tally);
}

fn print_faults(tally: &Tally) {
    println!("  errors {}", tally.errors());
    for (kind, count) in &tally.faults {
        println!("    {kind}: {count}");
    }
    for example in &tally.examples {
        println!("    e.g. {example}");
    }
}
