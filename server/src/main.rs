//! The `fishladder` program.

mod channel;
mod check_hls;
mod config;
mod density;
mod doctor;
mod fleet;
mod http;
mod metrics;
mod plan;
mod serve;
mod shutdown;
mod sign;
mod supervisor;
mod watched;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Parser, Subcommand};
use media::ChannelName;

use crate::config::{Config, Fault};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Live streaming edge server: WHIP, RTP and RTSP in, an encoded ladder as HLS and Low-Latency HLS out.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server; without a file on the built-in defaults.
    Serve(ServeArguments),
    /// List everything that is wrong in a configuration file.
    CheckConfig { file: PathBuf },
    /// Print a path that lets viewers watch a channel until it expires; needs viewers.key_file in the configuration.
    Sign(SignArguments),
    /// Tell what this host has and lacks for decoding and encoding, and how to mend it; fails if anything is broken.
    Doctor {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Follow any server's HLS or Low-Latency HLS for a while and tell which rules it breaks; fails if it breaks a MUST.
    CheckHls(check_hls::Options),
    /// Tell how many GPUs a workload needs, and what a session costs on them.
    Plan(PlanArguments),
    /// Measure how many sessions of a ladder this machine holds in real time.
    Density(Box<density::Arguments>),
    /// Encode one session, or all of a device; started by the server.
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        device: bool,
        /// A simulated device's failure.
        #[arg(long, requires = "device")]
        fails_after_ms: Option<u64>,
    },
    /// Measure the GPUs once a second until standard input, a socket, closes; started by the server.
    #[command(hide = true)]
    Gauge,
    /// Publish the demo until standard input ends; started by `serve --demo`.
    #[command(hide = true)]
    DemoPublisher {
        #[arg(long)]
        video_port: u16,
        #[arg(long)]
        audio_port: u16,
    },
}

#[derive(clap::Args)]
struct ServeArguments {
    /// The configuration file (TOML); configs/fishladder.toml documents every key.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Override one key; may be repeated.
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
    /// Publish a moving test picture with a clock and a tone as the channel `demo`.
    #[arg(long)]
    demo: bool,
    /// Speak TLS with a self-signed certificate for this machine's names, kept for the next start; for development.
    #[arg(long)]
    dev_cert: bool,
}

#[derive(clap::Args)]
struct PlanArguments {
    /// What comes: ladders and sessions (TOML); configs/plan/workload.toml documents every key.
    #[arg(long)]
    workload: PathBuf,
    /// What there is: devices with counts and prices (TOML); configs/plan/fleet.toml documents every key.
    #[arg(long)]
    fleet: PathBuf,
    /// Write the charts there, as one HTML file.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Another draw of the same workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
struct SignArguments {
    /// The channel that may be watched; it need not exist yet.
    #[arg(long)]
    channel: ChannelName,
    /// How long, for example 90m or 12h.
    #[arg(long, value_parser = |text: &str| config::token_life(&text.into()))]
    expires: Duration,
    /// The server's configuration file, which names the key's file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Override one key; may be repeated.
    #[arg(long = "set", value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(a) => match Config::load(a.config.as_deref(), &a.set) {
            Ok(config) => serve::run(config, serve::Extras { demo: a.demo, dev_cert: a.dev_cert }),
            Err(faults) => report(&faults),
        },
        Command::CheckConfig { file } => match Config::load(Some(&file), &[]) {
            Ok(_) => {
                println!("{}: no faults", file.display());
                ExitCode::SUCCESS
            }
            Err(faults) => report(&faults),
        },
        Command::Sign(a) => match Config::load(a.config.as_deref(), &a.set) {
            Ok(config) => print_signed(&config, &a),
            Err(faults) => report(&faults),
        },
        Command::Doctor { json } => doctor::run(json),
        Command::CheckHls(a) => check_hls::run(&a),
        Command::Plan(a) => match plan::run(&a.workload, &a.fleet, a.html.as_deref(), a.seed) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(faults) => report(&faults),
        },
        Command::Density(a) => match density::run(&a) {
            Ok(code) => code,
            Err(faults) => {
                for fault in faults {
                    eprintln!("error: {fault}");
                }
                ExitCode::FAILURE
            }
        },
        Command::Worker { device: false, .. } => engine::worker::run(),
        Command::Worker { device: true, fails_after_ms } => {
            engine::worker::run_device(fails_after_ms.map(std::time::Duration::from_millis))
        }
        Command::Gauge => engine::gauge::run(),
        Command::DemoPublisher { video_port, audio_port } => {
            end_with_stdin();
            engine::demo::run(engine::demo::DemoOptions { video_port, audio_port })
        }
    }
}

fn print_signed(config: &Config, a: &SignArguments) -> ExitCode {
    let Some(keys) = sign::Keys::of(&config.viewers) else {
        eprintln!("error: viewers.key_file: is missing, so there is nothing to sign with");
        return ExitCode::FAILURE;
    };
    let token = keys.sign(&a.channel, SystemTime::now() + a.expires);
    println!("{}", sign::playlist_path(&token, &a.channel));
    ExitCode::SUCCESS
}

fn report(faults: &[Fault]) -> ExitCode {
    for fault in faults {
        eprintln!("error: {fault}");
    }
    eprintln!(
        "{} in the configuration",
        if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) }
    );
    ExitCode::FAILURE
}

/// Ends the process when standard input does: the server holds the other end, so the publisher cannot outlive it, not
/// even when the server is killed.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
}
