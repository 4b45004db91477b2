//! The engine's child processes and nothing else: what its tests and benches start as `engine-worker worker [--device]`
//! and `engine-worker demo VIDEO_PORT AUDIO_PORT`.

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker"] => engine::worker::run(),
        ["worker", "--device"] => engine::worker::run_device(None),
        ["worker", "--device", fails] => match fails.strip_prefix("--fails-after-ms=").map(str::parse) {
            Some(Ok(ms)) => engine::worker::run_device(Some(Duration::from_millis(ms))),
            _ => ExitCode::FAILURE,
        },
        ["demo", video, audio] => match (video.parse(), audio.parse()) {
            (Ok(video_port), Ok(audio_port)) => engine::demo::run(engine::demo::DemoOptions { video_port, audio_port }),
            _ => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}
