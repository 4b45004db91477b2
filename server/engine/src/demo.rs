//! The demo publisher.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub video_port: u16,
    pub audio_port: u16,
}
pub fn sdp(_options: &DemoOptions) -> String {
    String::new()
}
pub fn run(_options: DemoOptions) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
