//! A publisher's SDP offer, checked once: what is not an `Offer` gets a sentence that says why.
//!
//! Only what passed here reaches the WebRTC stack: it is given a description rewritten from these types.

use std::net::SocketAddr;

use media::TrackKind;

use super::WhipError;
use super::stun;
use super::tap::TRANSPORT_CC;

/// RFC 9143 §15.1: names the m-line in each packet.
pub const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

/// Browsers send about 6 KiB.
const MAX_OFFER: usize = 64 << 10;
/// A publisher needs two; rejected ones (port 0) may stand beside them.
const MAX_SECTIONS: usize = 8;
/// Each makes our agent send checks to it.
pub const MAX_CANDIDATES: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub sections: Vec<Section>,
    /// The offer bundles; a lone section need not.
    pub bundled: bool,
    pub ice: IceCredentials,
    pub ice_lite: bool,
    /// SHA-256 of the publisher's certificate as the offer writes it.
    pub fingerprint: String,
    pub setup: Setup,
    pub candidates: Vec<Candidate>,
    pub extmap_allow_mixed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub pwd: String,
}

/// The publisher's DTLS role (RFC 8842 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// `actpass` or `active`: we wait for its ClientHello.
    WillConnect,
    /// `passive` (FFmpeg 8.0): we connect.
    Waits,
}

/// One m= section, in the offer's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// `audio`, `video` or whatever a rejected section says.
    pub name: String,
    pub protocol: String,
    pub formats: String,
    pub mid: Option<String>,
    /// `None`: the offer itself rejects it with port 0.
    pub media: Option<Media>,
}

/// What we take of a section: one codec, as the publisher numbers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    pub kind: TrackKind,
    pub payload_type: u8,
    pub fmtp: Option<String>,
    /// Payload type of retransmissions (RFC 4588).
    pub rtx: Option<u8>,
    /// Of those we can give: `transport-cc`, `ccm fir`, `nack`, `nack pli`.
    pub feedback: Vec<&'static str>,
    pub mid_extension: Option<u8>,
    pub transport_cc: Option<u8>,
    pub reduced_size_rtcp: bool,
}

/// A remote ICE candidate that can be used: UDP, an address literal, component 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub address: SocketAddr,
    pub priority: u32,
}

impl Candidate {
    /// `candidate:…` (RFC 8839 §5.1); `None` for what is to be ignored: TCP, `.local` names (RFC 9725 §4.3.2).
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.strip_prefix("candidate:")?.split_ascii_whitespace();
        let (_foundation, component, transport) = (words.next()?, words.next()?, words.next()?);
        let (priority, ip, port) = (words.next()?, words.next()?, words.next()?);
        if component != "1" || !transport.eq_ignore_ascii_case("udp") || words.next()? != "typ" {
            return None;
        }
        let address = SocketAddr::new(ip.parse().ok()?, port.parse().ok()?);
        stun::plausible(address).then_some(Self { address, priority: priority.parse().ok()? })
    }

    /// As our ICE agent takes it. The type does not matter to checks; the priority does.
    pub fn to_sdp(self, foundation: usize) -> String {
        let Self { address, priority } = self;
        format!("candidate:{foundation} 1 udp {priority} {} {} typ host", address.ip(), address.port())
    }
}

impl Offer {
    pub fn parse(text: &str) -> Result<Self, WhipError> {
        if text.len() > MAX_OFFER {
            return Err(malformed(format!("it is longer than {} KiB", MAX_OFFER >> 10)));
        }
        let blocks = split(text)?;
        let (session, sections) = blocks.split_first().ok_or_else(|| malformed("it is empty"))?;
        if sections.len() > MAX_SECTIONS {
            return Err(unacceptable(format!("it has more than {MAX_SECTIONS} m= sections")));
        }
        let groups: Vec<&str> = session.attributes("group").filter_map(|g| g.strip_prefix("BUNDLE")).collect();

        let mut parsed = Vec::new();
        let mut active: Option<&Block> = None;
        for block in sections {
            let section = parse_section(block, session)?;
            if let Some(media) = &section.media {
                active.get_or_insert(block);
                if parsed.iter().any(|s: &Section| s.media.as_ref().is_some_and(|m| m.kind == media.kind)) {
                    // RFC 9725 §4.4.2
                    return Err(unacceptable(format!(
                        "it has more than one {} section; send one audio and one video track at most",
                        section.name
                    )));
                }
            }
            parsed.push(section);
        }
        let Some(active) = active else {
            return Err(unacceptable("it has neither an audio nor a video section"));
        };

        let live: Vec<&Section> = parsed.iter().filter(|s| s.media.is_some()).collect();
        let bundled = |s: &Section| {
            s.mid.as_deref().is_some_and(|mid| groups.iter().any(|g| g.split_ascii_whitespace().any(|m| m == mid)))
        };
        // Bundling is all that one transport for two sections allows (RFC 9725 §4.4.1).
        if live.len() > 1 && !live.iter().all(|s| bundled(s)) {
            return Err(unacceptable("its audio and video are not in one BUNDLE group"));
        }
        if let [a, b] = live.as_slice()
            && a.mid == b.mid
        {
            return Err(malformed("two m= sections have the same mid"));
        }
        let bundled = live.iter().all(|s| bundled(s));

        // OBS writes these attributes at session level, FFmpeg at media level.
        let find = |name| active.attributes(name).next().or_else(|| session.attributes(name).next());
        let ufrag = find("ice-ufrag").ok_or_else(|| malformed("a=ice-ufrag is missing"))?;
        let pwd = find("ice-pwd").ok_or_else(|| malformed("a=ice-pwd is missing"))?;
        // RFC 8839 §5.4
        if !ice_characters(ufrag, 4) || !ice_characters(pwd, 22) {
            return Err(malformed("a=ice-ufrag or a=ice-pwd is not as RFC 8839 has it"));
        }
        let setup = match find("setup") {
            Some("actpass" | "active") | None => Setup::WillConnect,
            Some("passive") => Setup::Waits,
            Some(other) => return Err(malformed(format!("a=setup:{} is unknown", shown(other)))),
        };
        let candidates = session
            .attributes("candidate")
            .chain(sections.iter().flat_map(|s| s.attributes("candidate")))
            .filter_map(|value| Candidate::parse(&format!("candidate:{value}")));
        let mut unique: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            if unique.len() < MAX_CANDIDATES && !unique.iter().any(|c| c.address == candidate.address) {
                unique.push(candidate);
            }
        }
        Ok(Self {
            bundled,
            ice: IceCredentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() },
            ice_lite: session.has("ice-lite"),
            fingerprint: fingerprint(active, session)?,
            setup,
            candidates: unique,
            extmap_allow_mixed: session.has("extmap-allow-mixed"),
            sections: parsed,
        })
    }

    pub fn media(&self) -> impl Iterator<Item = &Media> {
        self.sections.iter().filter_map(|s| s.media.as_ref())
    }
}

/// The lines of the session part or of one m= section.
struct Block<'a> {
    /// Value of the m= line; empty for the session part.
    head: &'a str,
    /// Names and values of the a= lines.
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Block<'a> {
    fn attributes(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.attributes.iter().filter(move |(n, _)| *n == name).map(|(_, value)| *value)
    }

    fn has(&self, name: &str) -> bool {
        self.attributes(name).next().is_some()
    }
}

/// RFC 8866 §5: lines of `type=value`, the session part first.
fn split(text: &str) -> Result<Vec<Block<'_>>, WhipError> {
    let mut blocks = vec![Block { head: "", attributes: Vec::new() }];
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let (kind, value) = match line.split_once('=') {
            Some((kind, value)) if kind.len() == 1 => (kind, value),
            _ => return Err(malformed(format!("line {} is not of the form x=value", number + 1))),
        };
        if number == 0 && line != "v=0" {
            return Err(malformed("it does not begin with v=0"));
        }
        if line.chars().any(|c| c.is_control()) {
            return Err(malformed(format!("line {} has control characters", number + 1)));
        }
        match kind {
            "m" => blocks.push(Block { head: value, attributes: Vec::new() }),
            "a" => {
                if let Some(block) = blocks.last_mut() {
                    block.attributes.push(value.split_once(':').unwrap_or((value, "")));
                }
            }
            _ => {}
        }
    }
    if text.lines().next() != Some("v=0") {
        return Err(malformed("it does not begin with v=0"));
    }
    Ok(blocks)
}

fn parse_section(block: &Block, session: &Block) -> Result<Section, WhipError> {
    let mut words = block.head.split_ascii_whitespace();
    let (Some(name), Some(port), Some(protocol)) = (words.next(), words.next(), words.next()) else {
        return Err(malformed("an m= line is incomplete"));
    };
    let port: u16 = port.parse().map_err(|_| malformed("an m= line has no port number"))?;
    let formats: Vec<&str> = words.collect();
    if !token(name) || !formats.iter().all(|f| token(f)) || !protocol.split('/').all(token) {
        return Err(malformed("an m= line has strange characters"));
    }
    let mid = block.attributes("mid").next();
    if mid.is_some_and(|mid| !token(mid) || mid.len() > 32) {
        return Err(malformed("a=mid is not a short token"));
    }
    let mut section = Section {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        formats: formats.join(" "),
        mid: mid.map(str::to_owned),
        media: None,
    };
    // Port 0 rejects, unless the section only rides along in a bundle (RFC 9143 §6).
    if port == 0 && !block.has("bundle-only") {
        return Ok(section);
    }
    let kind = match name {
        "audio" => TrackKind::Audio,
        "video" => TrackKind::Video,
        // RFC 9725 §4.4.3: no partial success, so a data channel refuses the whole offer.
        other => return Err(unacceptable(format!("it has an m={} section; only audio and video", shown(other)))),
    };
    // RFC 5764 §8, with FFmpeg's and older browsers' spellings.
    if !matches!(protocol, "UDP/TLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "RTP/SAVPF" | "TLS/RTP/SAVPF") {
        return Err(unacceptable(format!("its {name} section uses {}, not DTLS-SRTP", shown(protocol))));
    }
    for refused in ["recvonly", "inactive"] {
        let elsewhere = ["sendrecv", "sendonly"].iter().any(|d| block.has(d));
        if block.has(refused) || (session.has(refused) && !elsewhere) {
            return Err(unacceptable(format!("its {name} section is {refused}; a publisher sends")));
        }
    }
    section.media = Some(choose(block, &formats, kind)?);
    Ok(section)
}

/// The publisher's first choice among what we take.
fn choose(block: &Block, formats: &[&str], kind: TrackKind) -> Result<Media, WhipError> {
    let codecs: Vec<Offered> = formats.iter().filter_map(|format| Offered::read(block, format)).collect();
    let wanted = match kind {
        // Packetization mode 1 before 0: mode 0 makes encoders cut slices to fit packets.
        TrackKind::Video => codecs
            .iter()
            .find(|c| c.usable_h264("1"))
            .or_else(|| codecs.iter().find(|c| c.usable_h264("0")))
            .ok_or("H.264 (baseline, main or high profile, packetization-mode 0 or 1)"),
        TrackKind::Audio => {
            codecs.iter().find(|c| c.name.eq_ignore_ascii_case("opus") && c.clock == 48_000).ok_or("Opus")
        }
    };
    let chosen = wanted.map_err(|missing| {
        let mut names: Vec<String> = Vec::new();
        for codec in &codecs {
            let name = shown(codec.name).to_owned();
            if !names.contains(&name) && names.len() < 12 {
                names.push(name);
            }
        }
        let offered = if names.is_empty() { "no codec at all".to_owned() } else { names.join(", ") };
        let section = if kind == TrackKind::Video { "video" } else { "audio" };
        unacceptable(format!("its {section} section offers {offered}, but not {missing}"))
    })?;
    let rtx = codecs
        .iter()
        .find(|c| {
            let repairs = c.parameter("apt").and_then(|apt| apt.parse().ok());
            kind == TrackKind::Video && c.name.eq_ignore_ascii_case("rtx") && repairs == Some(chosen.payload_type)
        })
        .map(|c| c.payload_type);
    let own = chosen.payload_type.to_string();
    let feedback = ["transport-cc", "ccm fir", "nack", "nack pli"]
        .into_iter()
        .filter(|wanted| {
            (kind == TrackKind::Video || *wanted == "transport-cc")
                && block.attributes("rtcp-fb").any(|value| {
                    let (format, what) = value.split_once(' ').unwrap_or((value, ""));
                    (format == own || format == "*") && what.trim() == *wanted
                })
        })
        .collect();
    let extension = |uri: &str| {
        block.attributes("extmap").find_map(|value| {
            let mut words = value.split_ascii_whitespace();
            let id = words.next()?.split('/').next()?.parse::<u8>().ok()?;
            // RFC 8285 §5: 0 and, in one-byte headers, 15 are reserved.
            (words.next()? == uri && !matches!(id, 0 | 15)).then_some(id)
        })
    };
    Ok(Media {
        kind,
        payload_type: chosen.payload_type,
        fmtp: chosen.fmtp.map(str::to_owned),
        rtx,
        feedback,
        mid_extension: extension(MID),
        transport_cc: extension(TRANSPORT_CC),
        reduced_size_rtcp: block.has("rtcp-rsize"),
    })
}

/// One format of an m= section with its rtpmap and fmtp.
struct Offered<'a> {
    payload_type: u8,
    name: &'a str,
    clock: u32,
    fmtp: Option<&'a str>,
}

impl<'a> Offered<'a> {
    fn read(block: &Block<'a>, format: &str) -> Option<Self> {
        let payload_type: u8 = format.parse().ok().filter(|p| *p < 128)?;
        let of = |attribute| {
            block.attributes(attribute).find_map(|value| value.strip_prefix(format)?.strip_prefix(' ')).map(str::trim)
        };
        let (name, rest) = of("rtpmap")?.split_once('/')?;
        let clock = rest.split('/').next()?.parse().ok()?;
        Some(Self { payload_type, name, clock, fmtp: of("fmtp") })
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let pairs = self.fmtp?.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// RFC 6184 §8.1: profile_idc of baseline, main or high; absent means baseline, mode 0.
    fn usable_h264(&self, mode: &str) -> bool {
        let profile = self.parameter("profile-level-id").unwrap_or("420010");
        self.name.eq_ignore_ascii_case("H264")
            && self.clock == 90_000
            && self.parameter("packetization-mode").unwrap_or("0") == mode
            && profile.len() == 6
            && profile.get(..2).is_some_and(|idc| matches!(idc, "42" | "4d" | "4D" | "58" | "64"))
    }
}

/// RFC 8122 §5. Several hashes may stand side by side; SHA-256 is the one that must be there.
fn fingerprint(section: &Block, session: &Block) -> Result<String, WhipError> {
    let mut all = section.attributes("fingerprint").chain(session.attributes("fingerprint"));
    let value = all.find_map(|value| {
        let (hash, digest) = value.split_once(' ')?;
        hash.eq_ignore_ascii_case("sha-256").then_some(digest.trim())
    });
    let value = value.ok_or_else(|| unacceptable("it has no SHA-256 certificate fingerprint"))?;
    let octets = value.split(':').filter(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit())).count();
    if octets != 32 || value.len() != 95 {
        return Err(malformed("a=fingerprint is not a SHA-256 digest"));
    }
    Ok(value.to_ascii_uppercase())
}

/// RFC 8866 §9 token.
fn token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&b))
}

/// RFC 8839 §5.4: ice-char, at least `least` and at most 256.
pub fn ice_characters(word: &str, least: usize) -> bool {
    (least..=256).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

/// A word of the offer as a message may repeat it: short and plain.
fn shown(word: &str) -> &str {
    let end = word.bytes().take(24).take_while(|b| b.is_ascii_graphic()).count();
    word.get(..end).unwrap_or("")
}

fn malformed(why: impl Into<String>) -> WhipError {
    WhipError::Malformed(why.into())
}

fn unacceptable(why: impl Into<String>) -> WhipError {
    WhipError::Unacceptable(why.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::samples::{CHROME, FFMPEG, OBS};
    use super::*;

    fn refusal(text: &str) -> String {
        Offer::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn chromes_offer_gives_h264_over_vp8_and_opus() {
        let offer = Offer::parse(CHROME).unwrap();
        let [audio, video] = [&offer.sections[0], &offer.sections[1]].map(|s| s.media.clone().unwrap());
        assert_eq!((audio.kind, audio.payload_type), (TrackKind::Audio, 111));
        assert_eq!((video.kind, video.payload_type, video.rtx), (TrackKind::Video, 103, Some(104)));
        assert_eq!(video.feedback, ["transport-cc", "ccm fir", "nack", "nack pli"]);
        assert_eq!((video.transport_cc, video.mid_extension), (Some(3), Some(4)));
        assert_eq!(offer.setup, Setup::WillConnect);
        assert!(offer.candidates.is_empty(), ".local names are ignored");
    }

    #[test]
    fn session_level_attributes_are_enough() {
        let offer = Offer::parse(OBS).unwrap();
        assert_eq!(offer.ice.ufrag, "sDg7");
        assert_eq!(offer.media().count(), 2);
        assert_eq!(offer.candidates.len(), 1);
    }

    #[test]
    fn ffmpegs_passive_offer_with_one_section_is_taken() {
        let offer = Offer::parse(FFMPEG).unwrap();
        assert_eq!(offer.setup, Setup::Waits);
        assert_eq!(offer.sections.len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_a_sentence() {
        let without = CHROME.replace("H264", "VP9");
        assert_eq!(
            refusal(&without),
            "the SDP offer cannot be accepted: its video section offers VP8, rtx, VP9, but not H.264 (baseline, main or \
             high profile, packetization-mode 0 or 1)"
        );
        assert!(refusal(&CHROME.replace("opus/48000/2", "PCMU/8000")).contains("offers PCMU, red, but not Opus"));
        assert!(refusal(&CHROME.replace("a=sendonly", "a=recvonly")).contains("is recvonly"));
        assert!(refusal(&CHROME.replace("a=sendonly", "a=inactive")).contains("is inactive"));
        assert!(Offer::parse(&CHROME.replace("a=sendonly", "a=sendrecv")).is_ok());
        assert!(refusal(&CHROME.replace("BUNDLE 0 1", "BUNDLE 0")).contains("BUNDLE"));
        assert!(refusal(&CHROME.replace("sha-256", "sha-1")).contains("SHA-256"));
        let data = format!("{CHROME}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n");
        assert!(refusal(&data).contains("m=application"));
        let video = &CHROME[CHROME.find("m=video").unwrap()..];
        assert!(refusal(&format!("{CHROME}{video}")).contains("more than one video"));
        assert!(refusal("v=0\r\ns=-\r\n").contains("neither"));
        for text in ["", "hello", "v=0\r\nnonsense", "m=video 9 RTP/AVP 96", "v=1\r\n"] {
            assert!(matches!(Offer::parse(text), Err(WhipError::Malformed(_))), "{text}");
        }
        assert!(matches!(Offer::parse(&CHROME.replace("a=ice-pwd", "a=ice-pwn")), Err(WhipError::Malformed(_))));
    }

    #[test]
    fn a_section_that_the_offer_rejects_is_kept_as_such() {
        let offer = Offer::parse(&CHROME.replace("m=audio 9", "m=audio 0")).unwrap();
        assert_eq!(offer.sections[0].media, None);
        assert_eq!(offer.media().count(), 1);
    }

    #[test]
    fn candidates_that_are_no_use_are_ignored() {
        let udp = Candidate::parse("candidate:1 1 UDP 2122260223 192.0.2.7 54321 typ host generation 0").unwrap();
        assert_eq!(udp.address.to_string(), "192.0.2.7:54321");
        for bad in [
            "candidate:1 1 tcp 1 192.0.2.7 9 typ host tcptype active",
            "candidate:1 1 udp 1 0f2c3f0e.local 9 typ host",
            "candidate:1 2 udp 1 192.0.2.7 9 typ host",
            "candidate:1 1 udp 1 224.0.0.1 9 typ host",
            "candidate:1 1 udp 1 192.0.2.7 0 typ host",
            "candidate:",
            "",
        ] {
            assert_eq!(Candidate::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_panic(text in "\\PC{0,400}") {
            let _ = Offer::parse(&text);
        }

        /// Offers with a line cut, doubled or spoilt somewhere.
        #[test]
        fn spoilt_offers_are_answered_without_panic(
            line in 0usize..80, cut in 0usize..60, junk in "[ -~]{0,12}", how in 0u8..3,
        ) {
            let mut lines: Vec<String> = CHROME.lines().map(str::to_owned).collect();
            let line = line % lines.len();
            let at = cut.min(lines[line].len());
            match how {
                0 => lines[line].truncate(at),
                1 => { let copy = lines[line].clone(); lines.insert(line, copy) }
                _ => lines[line].insert_str(at, &junk),
            }
            let _ = Offer::parse(&lines.join("\r\n"));
        }
    }
}
