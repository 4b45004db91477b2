//! One camera: its URL without the secrets, and how it is asked for its streams.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream as _;
use media::TrackKind;
use retina::client::Credentials;
use retina::codec::ParametersRef;
use url::Url;

use super::{
    BadUrl, InitialTimestampPolicy, PacketItem, PlayOptions, Playing, Session, SessionGroup, SessionOptions,
    SetupOptions, UnknownRtcpSsrcPolicy,
};
use crate::depacketize::aac;
use crate::rtp::{TrackFormat, TrackSpec};

pub struct Source {
    /// Without user name and password.
    url: Url,
    credentials: Option<Credentials>,
}

impl Source {
    pub fn new(url: &Url) -> Result<Self, BadUrl> {
        match url.scheme() {
            "rtsp" => {}
            "rtsps" => return Err(BadUrl("rtsps:// (RTSP over TLS) is not supported; use rtsp://".into())),
            other => return Err(BadUrl(format!("the scheme is {other}://, not rtsp://"))),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BadUrl("it has no host".into()));
        }
        let mut bare = url.clone();
        let fault = |()| BadUrl("its user name or password cannot be read".into());
        bare.set_username("").map_err(fault)?;
        bare.set_password(None).map_err(fault)?;
        bare.set_fragment(None);
        let credentials = (!url.username().is_empty()).then(|| Credentials {
            username: percent_decoded(url.username()),
            password: percent_decoded(url.password().unwrap_or("")),
        });
        Ok(Self { url: bare, credentials })
    }

    /// As logs may show it: cameras take secrets in the query too.
    pub fn shown(&self) -> String {
        let mut url = self.url.clone();
        if url.query().is_some() {
            url.set_query(Some("…"));
        }
        url.into()
    }

    /// DESCRIBE, SETUP of the first usable video and audio, PLAY. Gives each track with its stream's index.
    pub async fn connect(
        &self,
        group: Arc<SessionGroup>,
    ) -> Result<(Session<Playing>, Vec<(usize, TrackSpec)>), String> {
        let options = SessionOptions::default()
            .creds(self.credentials.clone())
            .session_group(group)
            .user_agent(concat!("fishladder/", env!("CARGO_PKG_VERSION")).to_owned());
        let mut session = Session::describe(self.url.clone(), options).await.map_err(|e| sentence(&e))?;
        let mut tracks: Vec<(usize, TrackSpec)> = Vec::new();
        let mut unusable = Vec::new();
        for (i, stream) in session.streams().iter().enumerate() {
            let format = format(stream.encoding_name(), stream.parameters());
            let spec = format.map(|format| TrackSpec {
                payload_type: stream.rtp_payload_type(),
                rtx_payload_type: None,
                format,
                clock_rate: stream.clock_rate_hz(),
                ssrc: None,
            });
            match spec {
                Some(spec) if !tracks.iter().any(|(_, t)| t.kind() == spec.kind()) => tracks.push((i, spec)),
                Some(_) => {}
                // Names from a camera go into a sentence: short and plain.
                None => {
                    unusable.push(stream.encoding_name().chars().filter(|c| c.is_ascii_graphic()).take(16).collect())
                }
            }
        }
        if tracks.is_empty() {
            let unusable: Vec<String> = unusable.into_iter().take(8).collect();
            return Err(format!("the camera offers {}, but neither H.264 nor AAC", list(&unusable)));
        }
        for (i, _) in &tracks {
            session.setup(*i, SetupOptions::default()).await.map_err(|e| sentence(&e))?;
        }
        let play = PlayOptions::default()
            // E6: RTP-Info is often missing or wrong; timestamps are read from the packets themselves.
            .initial_timestamp(InitialTimestampPolicy::Permissive)
            .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::DropPackets);
        let session = session.play(play).await.map_err(|e| sentence(&e))?;
        // Video before audio, whatever the camera's order.
        tracks.sort_by_key(|(_, spec)| spec.kind() != TrackKind::Video);
        Ok((session, tracks))
    }
}

/// The next packet of a playing session.
pub async fn next(session: &mut Session<Playing>) -> Option<Result<PacketItem, retina::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *session).poll_next(cx)).await
}

/// The part of a retina error that says what is wrong, without ports and times, which differ each time.
pub fn sentence(error: &retina::Error) -> String {
    match error.status_code() {
        Some(401) => "the camera refuses the user name or password (401)".to_owned(),
        Some(404) => "the camera knows no such path (404)".to_owned(),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or("");
            first.chars().filter(|c| !c.is_control()).take(300).collect()
        }
    }
}

fn format(encoding: &str, parameters: Option<ParametersRef>) -> Option<TrackFormat> {
    match (encoding, parameters) {
        ("h264", Some(ParametersRef::Video(video))) => {
            Some(TrackFormat::H264 { parameter_sets: parameter_sets(video.extra_data()).unwrap_or_default() })
        }
        // In-band parameter sets will do.
        ("h264", None) => Some(TrackFormat::H264 { parameter_sets: Vec::new() }),
        ("mpeg4-generic", Some(ParametersRef::Audio(audio))) => {
            let config = aac::parse_config(Bytes::copy_from_slice(audio.extra_data())).ok()?;
            // RFC 3640 §3.3.6, AAC-hbr: the only mode that retina lets pass.
            Some(TrackFormat::Aac { config, size_length: 13, index_length: 3, index_delta_length: 3 })
        }
        _ => None,
    }
}

/// SPS and PPS out of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1).
fn parameter_sets(avcc: &[u8]) -> Option<Vec<Bytes>> {
    let mut sets = Vec::new();
    let mut at = 5;
    for mask in [0x1f, 0xff] {
        let count = avcc.get(at)? & mask;
        at += 1;
        for _ in 0..count {
            let size = usize::from(u16::from_be_bytes(avcc.get(at..at + 2)?.try_into().ok()?));
            sets.push(Bytes::copy_from_slice(avcc.get(at + 2..at + 2 + size)?));
            at += 2 + size;
        }
    }
    Some(sets)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// RFC 3986 §2.1; a lone `%` stands for itself, as browsers have it.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).filter(|_| *first == b'%');
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn source(url: &str) -> Result<Source, BadUrl> {
        Source::new(&url.parse().unwrap())
    }

    #[test]
    fn credentials_leave_the_url_and_are_decoded() {
        let s = source("rtsp://us%40er:p%3Ass%@camera:8554/live?token=secret").unwrap();
        let credentials = s.credentials.clone().unwrap();
        assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("us@er", "p:ss%"));
        assert_eq!(s.url.as_str(), "rtsp://camera:8554/live?token=secret");
        assert!(!s.shown().contains("secret"));
        assert!(source("rtsp://camera/").unwrap().credentials.is_none());
    }

    #[test]
    fn other_schemes_are_refused_in_a_sentence() {
        let refusal = |url| source(url).err().unwrap().to_string();
        assert_eq!(refusal("rtsps://u:p@camera/"), "RTSP URL: rtsps:// (RTSP over TLS) is not supported; use rtsp://");
        assert_eq!(refusal("http://camera/"), "RTSP URL: the scheme is http://, not rtsp://");
    }

    #[test]
    fn parameter_sets_are_read_and_short_records_refused() {
        let record = [1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 2, 0x67, 0x64, 1, 0, 1, 0x68];
        let sets = parameter_sets(&record).unwrap();
        assert_eq!(sets, [Bytes::from_static(&[0x67, 0x64]), Bytes::from_static(&[0x68])]);
        for end in 0..record.len() {
            assert_eq!(parameter_sets(&record[..end]), None);
        }
    }
}
