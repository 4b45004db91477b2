//! Real publishers: ffmpeg, GStreamer, aiortc, and an RTSP camera.

use std::process::Command;

use crate::clients::{Client, VENV_PYTHON, script, system_python};
use crate::server::{free_rtp_port, free_tcp_port};
use crate::{root, until};

/// What ffmpeg sends as RTP.
#[derive(Clone)]
pub struct Ffmpeg<'a> {
    pub size: &'a str,
    /// Frames from key frame to key frame.
    pub gop: u32,
    pub audio: &'a [&'a str],
    pub video_options: &'a [&'a str],
}

impl Default for Ffmpeg<'_> {
    fn default() -> Self {
        Self { size: "640x360", gop: 30, audio: OPUS, video_options: &["-preset", "ultrafast"] }
    }
}

pub const OPUS: &[&str] = &["-c:a", "libopus", "-b:a", "64k"];
pub const AAC: &[&str] = &["-c:a", "aac", "-b:a", "96k"];

/// A running publisher, and the SDP that describes what it sends.
pub struct RtpPublisher {
    pub client: Client,
    pub sdp: String,
    pub ports: (u16, u16),
}

impl Ffmpeg<'_> {
    /// Sends a moving picture and a tone as RTP to free ports of the loopback.
    pub async fn publish(&self) -> RtpPublisher {
        self.publish_to(free_rtp_port(), free_rtp_port()).await
    }

    pub async fn publish_to(&self, video: u16, audio: u16) -> RtpPublisher {
        let folder = tempfile::tempdir().unwrap();
        let sdp_file = folder.path().join("stream.sdp");
        let gop = self.gop.to_string();
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error"]);
        command.args(["-re", "-f", "lavfi", "-i", &format!("testsrc2=size={}:rate=30", self.size)]);
        command.args(["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
        command.args(["-map", "0:v", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-b:v", "600k", "-threads", "1"]);
        command.args(["-g", &gop, "-keyint_min", &gop, "-sc_threshold", "0"]).args(self.video_options);
        command.args(["-f", "rtp", &format!("rtp://127.0.0.1:{video}")]);
        command.args(["-map", "1:a", "-ac", "2", "-ar", "48000"]).args(self.audio);
        command.args(["-f", "rtp", &format!("rtp://127.0.0.1:{audio}")]);
        command.arg("-sdp_file").arg(&sdp_file);
        let client = Client::spawn(command);
        let sdp = until("ffmpeg's SDP", || async {
            let text = std::fs::read_to_string(&sdp_file).ok()?;
            // Complete once the last attribute of the audio section is there.
            text.split_once("m=audio").is_some_and(|(_, audio)| audio.contains("a=rtpmap")).then_some(text)
        })
        .await;
        RtpPublisher { client, sdp, ports: (video, audio) }
    }
}

/// What GStreamer sends as RTP, in the usual way: rtpbin with sender reports.
pub fn gstreamer_publish(video: u16, audio: u16) -> RtpPublisher {
    let pipeline = format!(
        "rtpbin name=rtp \
         videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=600 key-int-max=30 ! rtph264pay config-interval=-1 pt=96 \
         ! rtp.send_rtp_sink_0 rtp.send_rtp_src_0 ! udpsink host=127.0.0.1 port={video} \
         rtp.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={} sync=false async=false \
         audiotestsrc is-live=true volume=0.1 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay pt=97 \
         ! rtp.send_rtp_sink_1 rtp.send_rtp_src_1 ! udpsink host=127.0.0.1 port={audio} \
         rtp.send_rtcp_src_1 ! udpsink host=127.0.0.1 port={} sync=false async=false",
        video + 1,
        audio + 1
    );
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace());
    // Parameter sets come in band only, as an encoder's operator would paste it.
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=gst\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video {video} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n\
         m=audio {audio} RTP/AVP 97\r\na=rtpmap:97 OPUS/48000/2\r\n"
    );
    RtpPublisher { client: Client::spawn(command), sdp, ports: (video, audio) }
}

/// A WebRTC publisher that is not a browser: aiortc sends a moving picture and a tone by WHIP.
pub fn aiortc_publish(whip_url: &str) -> Client {
    let mut command = Command::new(root().join(VENV_PYTHON));
    command.arg(script("whip_publish.py")).arg(whip_url);
    Client::spawn(command)
}

/// An RTSP camera with H.264 and AAC that asks for digest authentication.
pub struct Camera {
    pub client: Client,
    /// With user and password.
    pub url: String,
    pub port: u16,
}

pub const CAMERA_PASSWORD: &str = "correct-horse";

pub fn camera() -> Camera {
    camera_on(free_tcp_port())
}

pub fn camera_on(port: u16) -> Camera {
    let mut command = Command::new(system_python());
    command.arg(script("rtsp_camera.py")).args([&port.to_string(), "operator", CAMERA_PASSWORD]);
    let url = format!("rtsp://operator:{CAMERA_PASSWORD}@127.0.0.1:{port}/live");
    Camera { client: Client::spawn(command), url, port }
}
