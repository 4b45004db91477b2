//! The demo publisher: moving picture, burned-in clock and tone as RTP over loopback, like any other publisher's.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_rtp as gst_rtp;
use gstreamer_rtp::prelude::*;

use picture::Painter;

mod picture;

/// What `fishladder demo-publisher` takes.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub video_port: u16,
    pub audio_port: u16,
}

const VIDEO_TYPE: u8 = 96;
const AUDIO_TYPE: u8 = 97;
/// RFC 6051 3.3: the capture time in each packet, so that a receiver need not wait for the first sender report.
const NTP_64: &str = "urn:ietf:params:rtp-hdrext:ntp-64";
const NTP_64_ID: u32 = 1;
/// How long the tone lasts at each full second.
const BEEP: Duration = Duration::from_millis(100);

/// The SDP that the ingest must be given to receive the demo.
pub fn sdp(options: &DemoOptions) -> String {
    let DemoOptions { video_port, audio_port } = options;
    // RFC 8866; parameter sets travel in band before every IDR.
    format!(
        "v=0\r\n\
         o=- 0 0 IN IP4 127.0.0.1\r\n\
         s=Fishladder demo\r\n\
         c=IN IP4 127.0.0.1\r\n\
         t=0 0\r\n\
         m=video {video_port} RTP/AVP {VIDEO_TYPE}\r\n\
         a=rtpmap:{VIDEO_TYPE} H264/90000\r\n\
         a=fmtp:{VIDEO_TYPE} packetization-mode=1\r\n\
         a=framerate:30\r\n\
         a=extmap:{NTP_64_ID} {NTP_64}\r\n\
         m=audio {audio_port} RTP/AVP {AUDIO_TYPE}\r\n\
         a=rtpmap:{AUDIO_TYPE} opus/48000/2\r\n\
         a=fmtp:{AUDIO_TYPE} sprop-stereo=1\r\n\
         a=extmap:{NTP_64_ID} {NTP_64}\r\n"
    )
}

/// Publishes until killed.
pub fn run(options: DemoOptions) -> ExitCode {
    match publish(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo publisher: {e}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Build(#[from] gst::glib::Error),
    #[error("the pipeline does not start: {0}")]
    Start(#[from] gst::StateChangeError),
    #[error("{0} is missing; `fishladder doctor` tells what to install")]
    Missing(&'static str),
    #[error("{0}")]
    Failed(String),
}

fn publish(options: &DemoOptions) -> Result<(), DemoError> {
    gst::init()?;
    let pipeline = gst::parse::launch(&description(options))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| DemoError::Missing("a pipeline"))?;
    paint_frames(&pipeline)?;
    for name in ["video-pay", "audio-pay"] {
        let payloader = pipeline.by_name(name).ok_or(DemoError::Missing("a payloader"))?;
        stamp_capture_times(&payloader);
    }
    pipeline.set_state(gst::State::Paused)?;
    wait_for_a_full_second();
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or(DemoError::Missing("a bus"))?;
    let end = bus.timed_pop_filtered(None, &[gst::MessageType::Error, gst::MessageType::Eos]);
    let _ = pipeline.set_state(gst::State::Null);
    match end.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Error(e)) => Err(DemoError::Failed(e.error().to_string())),
        _ => Ok(()),
    }
}

fn description(options: &DemoOptions) -> String {
    let DemoOptions { video_port, audio_port } = options;
    let (width, height) = (picture::WIDTH, picture::HEIGHT);
    let (video_rtcp, audio_rtcp) = (u32::from(*video_port) + 1, u32::from(*audio_port) + 1);
    let encoder = if gst::ElementFactory::find("x264enc").is_some() {
        "x264enc tune=zerolatency speed-preset=veryfast bitrate=2500 vbv-buf-capacity=600 key-int-max=30 \
         option-string=scenecut=0 threads=2 ! video/x-h264,profile=high"
    } else {
        "openh264enc bitrate=2500000 gop-size=30 usage-type=camera scene-change-detection=false ! h264parse"
    };
    // Sender reports carry capture times, not sending times: only then do sound and picture line up.
    format!(
        "rtpbin name=rtp rtcp-sync-send-time=false \
         videotestsrc name=canvas is-live=true pattern=solid-color \
         ! video/x-raw,format=I420,width={width},height={height},framerate=30/1,colorimetry=bt709,interlace-mode=progressive \
         ! identity name=painted ! {encoder} \
         ! rtph264pay name=video-pay pt={VIDEO_TYPE} mtu=1200 config-interval=-1 aggregate-mode=zero-latency \
         ! rtp.send_rtp_sink_0 \
         rtp.send_rtp_src_0 ! udpsink host=127.0.0.1 port={video_port} sync=false async=false \
         rtp.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={video_rtcp} sync=false async=false \
         audiotestsrc is-live=true wave=ticks tick-interval=1000000000 freq=880 sine-periods-per-tick=88 \
         apply-tick-ramp=true volume=0.25 samplesperbuffer=480 \
         ! audio/x-raw,rate=48000,channels=2 ! opusenc bitrate=96000 frame-size=20 \
         ! rtpopuspay name=audio-pay pt={AUDIO_TYPE} \
         ! rtp.send_rtp_sink_1 \
         rtp.send_rtp_src_1 ! udpsink host=127.0.0.1 port={audio_port} sync=false async=false \
         rtp.send_rtcp_src_1 ! udpsink host=127.0.0.1 port={audio_rtcp} sync=false async=false"
    )
}

fn paint_frames(pipeline: &gst::Pipeline) -> Result<(), DemoError> {
    let pad = pipeline
        .by_name("painted")
        .and_then(|e| e.static_pad("sink"))
        .ok_or(DemoError::Missing("the identity element"))?;
    let painter = Painter::new();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let now = unix_ms();
            if let Ok(mut map) = buffer.make_mut().map_writable() {
                painter.paint(&mut map, now, u128::from(now % 1000) < BEEP.as_millis());
            }
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

fn stamp_capture_times(payloader: &gst::Element) {
    // Where the extension is not installed the sender reports alone must do; the SDP may announce what never comes.
    if let (Some(extension), Some(payloader)) =
        (gst_rtp::RTPHeaderExtension::create_from_uri(NTP_64), payloader.downcast_ref::<gst_rtp::RTPBasePayload>())
    {
        extension.set_id(NTP_64_ID);
        payloader.emit_by_name::<()>("add-extension", &[&extension]);
    }
}

/// Makes the tone sound when the burned-in clock shows a full second. Waiting is what is left: with a base time in the
/// future GStreamer 1.22's first video sender report is wrong by the 1000 hours that x264enc shifts its segment by.
fn wait_for_a_full_second() {
    std::thread::sleep(Duration::from_millis(1000 - unix_ms() % 1000));
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdp_names_both_ports_and_ends_lines_as_rfc_8866_asks() {
        let sdp = sdp(&DemoOptions { video_port: 5004, audio_port: 5006 });
        assert!(sdp.contains("m=video 5004 RTP/AVP 96\r\n") && sdp.contains("m=audio 5006 RTP/AVP 97\r\n"));
        assert!(
            sdp.lines().all(|l| l.get(1..2) == Some("=")) && sdp.matches("\r\n").count() == sdp.matches('\n').count()
        );
    }
}
