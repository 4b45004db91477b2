//! The engine's child processes and nothing else: what its tests and benches start as `engine-worker worker` and
//! `engine-worker demo VIDEO_PORT AUDIO_PORT`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker"] => engine::worker::run(),
        ["demo", video, audio] => match (video.parse(), audio.parse()) {
            (Ok(video_port), Ok(audio_port)) => engine::demo::run(engine::demo::DemoOptions { video_port, audio_port }),
            _ => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}
