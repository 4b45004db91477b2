//! The SDP answer as the publisher gets it, and the offer as our WebRTC stack gets it: both written from the checked
//! offer, so neither says anything that was not looked at.

use std::fmt::Write;
use std::net::SocketAddr;

use media::TrackKind;

use super::offer::{IceCredentials, MID, Media, Offer, Section, Setup};
use super::tap::TRANSPORT_CC;

/// Our half of the negotiation.
pub struct Local<'a> {
    pub ice: &'a IceCredentials,
    /// `sha-256 AB:CD:…` of our certificate.
    pub fingerprint: &'a str,
    pub candidates: &'a [SocketAddr],
    /// Origin's session number (RFC 8866 §5.2).
    pub session: u64,
}

/// RFC 9725 §4.2 with RFC 9429 §5.3: one section for each of the offer, in its order, with its payload types.
pub fn answer(offer: &Offer, local: &Local) -> String {
    let mut sdp = format!("v=0\r\no=- {} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", local.session);
    if offer.bundled {
        line(&mut sdp, format_args!("a=group:BUNDLE {}", mids(offer)));
    }
    if offer.extmap_allow_mixed {
        line(&mut sdp, format_args!("a=extmap-allow-mixed"));
    }
    line(&mut sdp, format_args!("a=msid-semantic: WMS"));
    for section in &offer.sections {
        let Section { name, protocol, mid, .. } = section;
        let Some(media) = &section.media else {
            line(&mut sdp, format_args!("m={name} 0 {protocol} {}", section.formats));
            line(&mut sdp, format_args!("c=IN IP4 0.0.0.0"));
            if let Some(mid) = mid {
                line(&mut sdp, format_args!("a=mid:{mid}"));
            }
            line(&mut sdp, format_args!("a=inactive"));
            continue;
        };
        let mut formats = media.payload_type.to_string();
        if let Some(rtx) = media.rtx {
            let _ = write!(formats, " {rtx}");
        }
        line(&mut sdp, format_args!("m={name} 9 {protocol} {formats}"));
        line(&mut sdp, format_args!("c=IN IP4 0.0.0.0"));
        line(&mut sdp, format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
        for (i, address) in local.candidates.iter().enumerate() {
            line(&mut sdp, format_args!("a={}", host_candidate(i, *address)));
        }
        // Nothing trickles from here (RFC 9725 §4.3.2); Firefox waits without this line.
        line(&mut sdp, format_args!("a=end-of-candidates"));
        line(&mut sdp, format_args!("a=ice-ufrag:{}", local.ice.ufrag));
        line(&mut sdp, format_args!("a=ice-pwd:{}", local.ice.pwd));
        line(&mut sdp, format_args!("a=ice-options:trickle"));
        line(&mut sdp, format_args!("a=fingerprint:{}", local.fingerprint));
        let setup = match offer.setup {
            Setup::WillConnect => "passive",
            Setup::Waits => "active",
        };
        line(&mut sdp, format_args!("a=setup:{setup}"));
        if let Some(mid) = mid {
            line(&mut sdp, format_args!("a=mid:{mid}"));
        }
        line(&mut sdp, format_args!("a=recvonly"));
        line(&mut sdp, format_args!("a=rtcp-mux"));
        line(&mut sdp, format_args!("a=rtcp-mux-only"));
        if media.reduced_size_rtcp {
            line(&mut sdp, format_args!("a=rtcp-rsize"));
        }
        write_codec(&mut sdp, media);
    }
    sdp
}

/// The offer for our own stack: one codec a section, ICE and DTLS in each section, every section sending.
pub fn for_stack(offer: &Offer) -> String {
    let mut sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".to_owned();
    let live = || offer.sections.iter().enumerate().filter_map(|(i, s)| Some((i, s, s.media.as_ref()?)));
    let names: Vec<String> = live().map(|(i, s, _)| mid_of(s, i)).collect();
    line(&mut sdp, format_args!("a=group:BUNDLE {}", names.join(" ")));
    if offer.ice_lite {
        line(&mut sdp, format_args!("a=ice-lite"));
    }
    for (i, section, media) in live() {
        line(&mut sdp, format_args!("m={} 9 UDP/TLS/RTP/SAVPF {}", section.name, media.payload_type));
        line(&mut sdp, format_args!("c=IN IP4 0.0.0.0"));
        line(&mut sdp, format_args!("a=ice-ufrag:{}", offer.ice.ufrag));
        line(&mut sdp, format_args!("a=ice-pwd:{}", offer.ice.pwd));
        line(&mut sdp, format_args!("a=fingerprint:sha-256 {}", offer.fingerprint));
        let setup = match offer.setup {
            Setup::WillConnect => "active",
            Setup::Waits => "passive",
        };
        line(&mut sdp, format_args!("a=setup:{setup}"));
        line(&mut sdp, format_args!("a=mid:{}", mid_of(section, i)));
        line(&mut sdp, format_args!("a=sendonly"));
        line(&mut sdp, format_args!("a=rtcp-mux"));
        let rtpmap = rtpmap(media.kind);
        line(&mut sdp, format_args!("a=rtpmap:{} {rtpmap}", media.payload_type));
        // The stack wants an SSRC for each section. Which it is does not matter: the tap takes all of them.
        line(&mut sdp, format_args!("a=ssrc:{} cname:publisher", i + 1));
    }
    sdp
}

/// A candidate of ours: host type (RFC 8839 §5.1), preferred in the order given (RFC 8445 §5.1.2.1).
pub fn host_candidate(index: usize, address: SocketAddr) -> String {
    let local_preference = 65_535_u32.saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
    let priority = (126 << 24) + (local_preference << 8) + 255;
    format!("candidate:{} 1 udp {priority} {} {} typ host", index + 1, address.ip(), address.port())
}

fn mid_of(section: &Section, index: usize) -> String {
    section.mid.clone().unwrap_or_else(|| index.to_string())
}

fn mids(offer: &Offer) -> String {
    let live = offer.sections.iter().filter(|s| s.media.is_some()).filter_map(|s| s.mid.as_deref());
    live.collect::<Vec<_>>().join(" ")
}

fn rtpmap(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "H264/90000",
        TrackKind::Audio => "opus/48000/2",
    }
}

fn write_codec(sdp: &mut String, media: &Media) {
    let payload_type = media.payload_type;
    if let Some(id) = media.mid_extension {
        line(sdp, format_args!("a=extmap:{id} {MID}"));
    }
    if let Some(id) = media.transport_cc {
        line(sdp, format_args!("a=extmap:{id} {TRANSPORT_CC}"));
    }
    line(sdp, format_args!("a=rtpmap:{payload_type} {}", rtpmap(media.kind)));
    for feedback in &media.feedback {
        line(sdp, format_args!("a=rtcp-fb:{payload_type} {feedback}"));
    }
    match media.kind {
        // RFC 7587 §7.1: what we would like to get.
        TrackKind::Audio => {
            line(sdp, format_args!("a=fmtp:{payload_type} minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1"));
        }
        // RFC 6184 §8.2.2: profile and mode must come back as offered.
        TrackKind::Video => {
            if let Some(fmtp) = &media.fmtp {
                line(sdp, format_args!("a=fmtp:{payload_type} {fmtp}"));
            }
        }
    }
    if let Some(rtx) = media.rtx {
        line(sdp, format_args!("a=rtpmap:{rtx} rtx/90000"));
        line(sdp, format_args!("a=fmtp:{rtx} apt={payload_type}"));
    }
}

fn line(sdp: &mut String, text: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = write!(sdp, "{text}\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::samples::{CHROME, FFMPEG};
    use super::*;

    fn answered(text: &str) -> String {
        let ice = IceCredentials { ufrag: "abcd".into(), pwd: "0123456789012345678901".into() };
        let candidates = ["192.0.2.1:8189".parse().unwrap(), "127.0.0.1:8189".parse().unwrap()];
        let local = Local { ice: &ice, fingerprint: "sha-256 AA:BB", candidates: &candidates, session: 7 };
        answer(&Offer::parse(text).unwrap(), &local)
    }

    #[test]
    fn the_answer_to_chrome_line_by_line() {
        let transport = "a=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=candidate:1 1 udp 2130706431 192.0.2.1 8189 typ host\r\n\
             a=candidate:2 1 udp 2130706175 127.0.0.1 8189 typ host\r\na=end-of-candidates\r\n\
             a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=ice-options:trickle\r\n\
             a=fingerprint:sha-256 AA:BB\r\na=setup:passive\r\n";
        let expected = format!(
            "v=0\r\no=- 7 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n\
             a=msid-semantic: WMS\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n{transport}a=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n\
             a=rtcp-mux-only\r\na=rtcp-rsize\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
             a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
             a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 103 104\r\nc=IN IP4 0.0.0.0\r\n{transport}a=mid:1\r\na=recvonly\r\n\
             a=rtcp-mux\r\na=rtcp-mux-only\r\na=rtcp-rsize\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
             a=rtpmap:103 H264/90000\r\na=rtcp-fb:103 transport-cc\r\na=rtcp-fb:103 ccm fir\r\n\
             a=rtcp-fb:103 nack\r\na=rtcp-fb:103 nack pli\r\n\
             a=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
             a=rtpmap:104 rtx/90000\r\na=fmtp:104 apt=103\r\n"
        );
        assert_eq!(answered(CHROME), expected);
    }

    #[test]
    fn a_rejected_section_keeps_its_place_and_a_passive_client_gets_an_active_server() {
        let rejected = answered(&CHROME.replace("m=audio 9", "m=audio 0"));
        assert!(rejected.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111 63\r\n"), "{rejected}");
        assert!(rejected.contains("a=group:BUNDLE 1\r\n"));
        assert!(answered(FFMPEG).contains("a=setup:active\r\n"));
    }
}
