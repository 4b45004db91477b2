//! Session descriptions (RFC 8866) of raw RTP publishers: strict, small, and every refusal names its line.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::depacketize::aac;
use crate::rtp::{SdpError, TrackFormat, TrackSpec};

/// What an SDP says about a publisher.
#[derive(Clone, Debug)]
pub struct Description {
    /// At most one video and one audio track, at least one of both.
    pub media: Vec<Media>,
}

#[derive(Clone, Debug)]
pub struct Media {
    pub spec: TrackSpec,
    /// Where RTP is to arrive: a local or a multicast address.
    pub address: SocketAddr,
    pub rtcp: Rtcp,
    /// The only sources to take packets from (RFC 4570); empty: any.
    pub sources: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rtcp {
    /// a=rtcp-mux (RFC 5761)
    Muxed,
    /// The next port, or what a=rtcp says (RFC 3605).
    At(SocketAddr),
    /// The port is taken by the other track.
    None,
}

/// Far above any real description.
const MAX_BYTES: usize = 64 << 10;
const MAX_LINES: usize = 1000;

pub fn parse(text: &str) -> Result<Description, SdpError> {
    if text.len() > MAX_BYTES {
        return Err(error(1, "the SDP is larger than 64 KiB"));
    }
    let mut sections: Vec<Section> = Vec::new();
    let mut session = Section::default();
    let mut version = false;
    let mut last_line = 1;
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        if index == MAX_LINES {
            return Err(error(line, "the SDP has more than 1,000 lines"));
        }
        let raw = raw.trim_end();
        // ffmpeg prints `SDP:` in front of what it writes to its standard output.
        if raw.is_empty() || (raw == "SDP:" && !version) {
            continue;
        }
        last_line = line;
        let (kind, value) = match raw.split_once('=') {
            Some((kind, value)) if kind.len() == 1 => (kind, value),
            _ => return Err(error(line, "not of the form <letter>=<value>")),
        };
        if !version {
            if (kind, value) != ("v", "0") {
                return Err(error(line, "an SDP begins with v=0"));
            }
            version = true;
            continue;
        }
        match kind {
            "m" => sections.push(Section { media: Some((line, value)), ..Section::default() }),
            "c" => sections.last_mut().unwrap_or(&mut session).connection = Some((line, connection(line, value)?)),
            "a" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                sections.last_mut().unwrap_or(&mut session).attributes.push((line, name, value.trim()));
            }
            "v" => return Err(error(line, "v= stands twice")),
            "o" | "s" | "i" | "u" | "e" | "p" | "b" | "t" | "r" | "z" | "k" => {}
            _ => return Err(error(line, &format!("unknown line type {kind:?}"))),
        }
    }
    if !version {
        return Err(error(1, "the SDP is empty"));
    }
    let mut media: Vec<Media> = Vec::new();
    for section in &sections {
        let Some(new) = read_media(section, &session)? else { continue };
        let line = section.media.map_or(last_line, |(line, _)| line);
        if media.iter().any(|m| m.spec.kind() == new.spec.kind()) {
            return Err(error(line, "only one video and one audio track are supported"));
        }
        if media.iter().any(|m| m.address.port() == new.address.port()) {
            return Err(error(line, "two m= lines share a port: give each its own"));
        }
        media.push(new);
    }
    if media.is_empty() {
        return Err(error(last_line, "there is no m= line with a port"));
    }
    // Ports one apart: what would be one track's RTCP is the other's RTP.
    let ports: Vec<u16> = media.iter().map(|m| m.address.port()).collect();
    for m in &mut media {
        if matches!(m.rtcp, Rtcp::At(at) if ports.contains(&at.port())) {
            m.rtcp = Rtcp::None;
        }
    }
    Ok(Description { media })
}

#[derive(Default)]
struct Section<'a> {
    media: Option<(usize, &'a str)>,
    connection: Option<(usize, IpAddr)>,
    attributes: Vec<(usize, &'a str, &'a str)>,
}

impl<'a> Section<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = (usize, &'a str)> {
        self.attributes.iter().filter(move |(_, n, _)| *n == name).map(|(line, _, value)| (*line, *value))
    }

    /// The value of `a=name:<payload type> value`.
    fn of_payload(&self, name: &str, payload_type: u8) -> Option<(usize, &'a str)> {
        self.all(name).find_map(|(line, value)| {
            let (pt, rest) = value.split_once(' ')?;
            (pt.trim().parse() == Ok(payload_type)).then_some((line, rest.trim()))
        })
    }
}

fn error(line: usize, problem: &str) -> SdpError {
    SdpError { line, problem: problem.to_owned() }
}

/// `IN IP4 239.1.2.3/127/1`, `IN IP6 ::1`.
fn connection(line: usize, value: &str) -> Result<IpAddr, SdpError> {
    let mut words = value.split_whitespace();
    let (Some("IN"), Some(family @ ("IP4" | "IP6")), Some(address)) = (words.next(), words.next(), words.next()) else {
        return Err(error(line, "c= must be IN IP4 or IN IP6 and an address"));
    };
    let address = address.split('/').next().unwrap_or(address);
    let ip: IpAddr = address
        .parse()
        .map_err(|_| error(line, &format!("{address:?} is not an IP address; names are not looked up")))?;
    if ip.is_ipv4() != (family == "IP4") {
        return Err(error(line, &format!("{address} is not an {family} address")));
    }
    Ok(ip)
}

fn read_media(section: &Section, session: &Section) -> Result<Option<Media>, SdpError> {
    let Some((line, value)) = section.media else { return Ok(None) };
    let words: Vec<&str> = value.split_whitespace().collect();
    let [kind, port, protocol, formats @ ..] = &words[..] else {
        return Err(error(line, "m= needs a medium, a port, a protocol and formats"));
    };
    let port = port.split('/').next().unwrap_or(port);
    let port: u16 = port.parse().map_err(|_| error(line, &format!("{port:?} is not a port")))?;
    if port == 0 {
        // RFC 3264 §6: a medium that is not sent.
        return Ok(None);
    }
    let video = match *kind {
        "video" => true,
        "audio" => false,
        other => return Err(error(line, &format!("medium {other:?} is not supported: only video and audio are"))),
    };
    if !matches!(*protocol, "RTP/AVP" | "RTP/AVPF") {
        return Err(error(line, &format!("protocol {protocol:?} is not supported: only RTP/AVP and RTP/AVPF are")));
    }
    let Some((_, ip)) = section.connection.or(session.connection) else {
        return Err(error(line, "there is no c= line for this medium"));
    };
    let mut refusal = error(line, "the m= line names no format");
    let mut spec = None;
    for format in formats {
        let payload_type: u8 = match format.parse() {
            Ok(pt) if pt < 128 => pt,
            _ => return Err(error(line, &format!("{format:?} is not a payload type"))),
        };
        match read_format(section, line, payload_type, video) {
            Ok(found) => {
                spec = Some(found);
                break;
            }
            Err(e) => refusal = e,
        }
    }
    let Some(mut spec) = spec else { return Err(refusal) };
    for (_, value) in section.all("ssrc") {
        // Only as a hint; senders that change it are followed.
        if spec.ssrc.is_none() {
            spec.ssrc = value.split_whitespace().next().and_then(|v| v.parse().ok());
        }
    }
    let address = SocketAddr::new(ip, port);
    let rtcp = if section.all("rtcp-mux").next().is_some() {
        Rtcp::Muxed
    } else if let Some((line, value)) = section.all("rtcp").next() {
        let mut words = value.splitn(2, ' ');
        let port = words.next().and_then(|p| p.parse().ok());
        let port: u16 = port.ok_or_else(|| error(line, "a=rtcp needs a port"))?;
        let ip = words.next().map_or(Ok(ip), |rest| connection(line, rest))?;
        if port == address.port() { Rtcp::Muxed } else { Rtcp::At(SocketAddr::new(ip, port)) }
    } else {
        port.checked_add(1).map_or(Rtcp::None, |next| Rtcp::At(SocketAddr::new(ip, next)))
    };
    let mut sources = Vec::new();
    for (line, value) in session.all("source-filter").chain(section.all("source-filter")) {
        sources.extend(source_filter(line, value, ip)?);
    }
    Ok(Some(Media { spec, address, rtcp, sources }))
}

/// RFC 4570 §3: `incl IN IP4 <destination or *> <source> ...`.
fn source_filter(line: usize, value: &str, destination: IpAddr) -> Result<Vec<IpAddr>, SdpError> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let ["incl", "IN", "IP4" | "IP6" | "*", to, sources @ ..] = &words[..] else {
        return Err(error(line, "a=source-filter must be incl IN, a family, a destination and sources"));
    };
    if *to != "*" && to.parse() != Ok(destination) {
        return Ok(vec![]);
    }
    if sources.is_empty() || sources.len() > 16 {
        return Err(error(line, "a=source-filter needs 1 to 16 sources"));
    }
    let read = |s: &&str| s.parse().map_err(|_| error(line, &format!("{s:?} is not an IP address")));
    sources.iter().map(read).collect()
}

fn read_format(section: &Section, media_line: usize, payload_type: u8, video: bool) -> Result<TrackSpec, SdpError> {
    let Some((line, map)) = section.of_payload("rtpmap", payload_type) else {
        let codec = match payload_type {
            0 => "PCMU",
            3 => "GSM",
            8 => "PCMA",
            9 => "G722",
            10 | 11 => "L16",
            14 => "MPEG audio",
            26 => "JPEG",
            31 => "H261",
            32 => "MPEG video",
            33 => "MPEG-TS",
            34 => "H263",
            _ => return Err(error(media_line, &format!("payload type {payload_type} has no a=rtpmap"))),
        };
        return Err(error(
            media_line,
            &format!("payload type {payload_type} is {codec}, which is not supported: send H264, opus or AAC"),
        ));
    };
    let mut parts = map.split('/');
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let clock_rate: u32 = parts
        .next()
        .and_then(|r| r.parse().ok())
        .filter(|r| (1_000..=192_000).contains(r))
        .ok_or_else(|| error(line, "a=rtpmap needs a clock rate"))?;
    let (fmtp_line, fmtp) = section.of_payload("fmtp", payload_type).unwrap_or((line, ""));
    let parameters: Vec<(String, &str)> = fmtp
        .split(';')
        .filter_map(|p| p.trim().split_once('='))
        .map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim()))
        .collect();
    let get = |name: &str| parameters.iter().find(|(k, _)| k == name).map(|(_, v)| *v);
    let format = match (name.as_str(), video) {
        ("h264", true) => {
            if clock_rate != 90_000 {
                return Err(error(line, "H264's clock rate is 90000"));
            }
            if !matches!(get("packetization-mode"), None | Some("0" | "1")) {
                return Err(error(fmtp_line, "only packetization modes 0 and 1 are supported"));
            }
            let mut parameter_sets = Vec::new();
            for set in get("sprop-parameter-sets").unwrap_or("").split(',').filter(|s| !s.is_empty()) {
                let set = base64(set).ok_or_else(|| error(fmtp_line, "sprop-parameter-sets is not base64"))?;
                if parameter_sets.len() == 32 {
                    return Err(error(fmtp_line, "sprop-parameter-sets has more than 32 sets"));
                }
                parameter_sets.push(Bytes::from(set));
            }
            TrackFormat::H264 { parameter_sets }
        }
        ("opus", false) => {
            // RFC 7587 §7: always 48000/2, whatever is inside.
            if clock_rate != 48_000 {
                return Err(error(line, "opus' clock rate is 48000"));
            }
            TrackFormat::Opus { channels: 2 }
        }
        ("mpeg4-generic", false) => aac_format(fmtp_line, get)?,
        (other, _) => {
            let medium = if video { "video: send H264" } else { "audio: send opus or mpeg4-generic (AAC)" };
            return Err(error(line, &format!("{:?} is not supported for {medium}", printable(other))));
        }
    };
    Ok(TrackSpec { payload_type, rtx_payload_type: None, format, clock_rate, ssrc: None })
}

/// RFC 3640 §4.1.
fn aac_format<'a>(line: usize, get: impl Fn(&str) -> Option<&'a str>) -> Result<TrackFormat, SdpError> {
    let mode = get("mode").unwrap_or("").to_ascii_lowercase();
    if !matches!(mode.as_str(), "aac-hbr" | "aac-lbr") {
        return Err(error(line, "mpeg4-generic needs mode=AAC-hbr (or AAC-lbr)"));
    }
    let number = |name: &str| -> Result<u8, SdpError> {
        match get(name) {
            None => Ok(0),
            Some(v) => v
                .parse()
                .ok()
                .filter(|n| *n <= 16)
                .ok_or_else(|| error(line, &format!("{name} must be a number of bits up to 16"))),
        }
    };
    for unused in [
        "ctsdeltalength",
        "dtsdeltalength",
        "randomaccessindication",
        "streamstateindication",
        "auxiliarydatasizelength",
    ] {
        if number(unused)? != 0 {
            return Err(error(line, &format!("{unused} is not supported")));
        }
    }
    let size_length = number("sizelength")?;
    if size_length == 0 {
        return Err(error(line, "sizelength is missing"));
    }
    let hex = get("config").ok_or_else(|| error(line, "config= (the AudioSpecificConfig) is missing"))?;
    let asc = hex_bytes(hex.trim_matches('"')).ok_or_else(|| error(line, "config= is not hexadecimal"))?;
    let config = aac::parse_config(asc.into()).map_err(|problem| error(line, problem))?;
    Ok(TrackFormat::Aac {
        config,
        size_length,
        index_length: number("indexlength")?,
        index_delta_length: number("indexdeltalength")?,
    })
}

/// At most 40 harmless characters of something from outside, for a message.
fn printable(s: &str) -> String {
    s.chars().take(40).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn hex_bytes(s: &str) -> Option<Vec<u8>> {
    if s.is_empty() || !s.len().is_multiple_of(2) || s.len() > 512 || !s.is_ascii() {
        return None;
    }
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(s.get(i..i + 2)?, 16).ok()).collect()
}

/// RFC 4648 §4, padding optional.
fn base64(s: &str) -> Option<Vec<u8>> {
    let s = s.trim_end_matches('=');
    let mut out = Vec::with_capacity(s.len() * 3 / 4);
    let (mut bits, mut n) = (0u32, 0);
    for c in s.bytes() {
        let v = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(v);
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// What ffmpeg 5.1 writes for `-f rtp` with two outputs.
    const FFMPEG: &str = "SDP:\nv=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=No Name\r\nt=0 0\r\na=tool:libavformat LIBAVFORMAT_VERSION\r\n\
        m=video 15004 RTP/AVP 96\r\nc=IN IP4 127.0.0.1\r\nb=AS:500\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z/QADZGbKCg/YCIAAAMAAgAAAwB4HihTLA==,aOvjxEhE; profile-level-id=F4000D\r\n\
        m=audio 15006 RTP/AVP 97\r\nc=IN IP4 127.0.0.1\r\nb=AS:69\r\na=rtpmap:97 MPEG4-GENERIC/44100/1\r\n\
        a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=120856E500\r\n\r\n";

    #[test]
    fn ffmpegs_description_is_read_as_it_is() {
        let d = parse(FFMPEG).unwrap();
        let [video, audio] = &d.media[..] else { panic!() };
        assert_eq!(video.address.to_string(), "127.0.0.1:15004");
        assert_eq!(video.rtcp, Rtcp::At("127.0.0.1:15005".parse().unwrap()));
        let TrackFormat::H264 { parameter_sets } = &video.spec.format else { panic!() };
        assert_eq!(parameter_sets.len(), 2);
        assert_eq!(parameter_sets[0][..4], [0x67, 0xf4, 0x00, 0x0d]);
        let TrackFormat::Aac { config, size_length: 13, index_length: 3, index_delta_length: 3 } = &audio.spec.format
        else {
            panic!()
        };
        assert_eq!((config.sample_rate, config.channels), (44_100, 1));
        assert_eq!(audio.spec.clock_rate, 44_100);
    }

    #[test]
    fn mux_rtcp_and_filters_are_honoured_and_o_is_optional() {
        let d = parse(
            "v=0\ns=x\nc=IN IP4 239.1.2.3/32\na=source-filter: incl IN IP4 239.1.2.3 10.0.0.1\n\
             m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\na=rtcp:7000 IN IP4 10.0.0.9\na=ssrc:77 cname:x\n\
             m=audio 5006 RTP/AVPF 8 97\na=rtpmap:97 OPUS/48000/2\na=rtcp-mux\n",
        )
        .unwrap();
        assert_eq!(d.media[0].rtcp, Rtcp::At("10.0.0.9:7000".parse().unwrap()));
        assert_eq!(d.media[0].sources, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(d.media[0].spec.ssrc, Some(77));
        assert_eq!(d.media[1].rtcp, Rtcp::Muxed);
        assert_eq!(d.media[1].spec.payload_type, 97);
    }

    #[test]
    fn neighbouring_ports_leave_no_room_for_rtcp() {
        let d = parse(
            "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n\
             m=audio 5005 RTP/AVP 97\na=rtpmap:97 opus/48000/2\n",
        )
        .unwrap();
        assert_eq!(d.media[0].rtcp, Rtcp::None);
        assert_eq!(d.media[1].rtcp, Rtcp::At("127.0.0.1:5006".parse().unwrap()));
    }

    #[test]
    fn every_refusal_names_its_line() {
        let video = "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n";
        for (sdp, line, word) in [
            (String::new(), 1, "empty"),
            ("hello".into(), 1, "<letter>"),
            ("s=x".into(), 1, "v=0"),
            ("v=0\nx=1".into(), 2, "unknown line"),
            ("v=0\ns=x".into(), 2, "no m="),
            ("v=0\nc=IN IP4 example.com".into(), 2, "not an IP"),
            ("v=0\nc=IN IP6 1.2.3.4".into(), 2, "not an IP6"),
            ("v=0\nm=video 5004 RTP/AVP 96".into(), 2, "no c="),
            ("v=0\nc=IN IP4 127.0.0.1\nm=video 99999 RTP/AVP 96".into(), 3, "not a port"),
            ("v=0\nc=IN IP4 127.0.0.1\nm=video 5004 UDP/TLS/RTP/SAVPF 96".into(), 3, "protocol"),
            ("v=0\nc=IN IP4 127.0.0.1\nm=application 5004 RTP/AVP 96".into(), 3, "medium"),
            ("v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0".into(), 3, "PCMU"),
            ("v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 33".into(), 3, "MPEG-TS"),
            (video.into(), 3, "no a=rtpmap"),
            (format!("{video}a=rtpmap:96 H265/90000"), 4, "h265"),
            (format!("{video}a=rtpmap:96 H264/8000"), 4, "90000"),
            (format!("{video}a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=2"), 5, "modes"),
            (format!("{video}a=rtpmap:96 H264/90000\na=fmtp:96 sprop-parameter-sets=!"), 5, "base64"),
            (format!("{video}a=rtpmap:96 H264/90000\na=source-filter: excl"), 5, "source-filter"),
            (format!("{video}a=rtpmap:96 H264/90000\nm=video 5008 RTP/AVP 96\na=rtpmap:96 H264/90000"), 5, "only one"),
            (format!("{video}a=rtpmap:96 H264/90000\nm=audio 5004 RTP/AVP 97\na=rtpmap:97 opus/48000/2"), 5, "share"),
            (
                "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 97\na=rtpmap:97 mpeg4-generic/44100\na=fmtp:97 mode=AAC-hbr;sizelength=13".into(),
                5,
                "config",
            ),
        ] {
            let e = parse(&sdp).unwrap_err();
            assert_eq!(e.line, line, "{sdp}: {e}");
            assert!(e.problem.contains(word), "{sdp}: {e}");
        }
        assert_eq!(parse(&"a=x\n".repeat(5000).replacen("a=x", "v=0", 1)).unwrap_err().line, 1001);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(s in "\\PC{0,200}") {
            let _ = parse(&s);
        }

        #[test]
        fn damaged_descriptions_never_panic(cut in 0usize..700, at in 0usize..700, with in "\\PC") {
            let mut s: String = FFMPEG.chars().take(cut).collect();
            if at <= s.len() && s.is_char_boundary(at) {
                s.insert_str(at, &with);
            }
            let _ = parse(&s);
        }
    }
}
