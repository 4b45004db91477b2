//! A worker and nothing else: what the engine's tests and benches start as `engine-worker worker`.

fn main() -> std::process::ExitCode {
    engine::worker::run()
}
