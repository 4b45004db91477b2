//! The multivariant playlist, written with m3u8-rs.

use std::collections::HashMap;
use std::sync::Arc;

use m3u8_rs::{AlternativeMedia, AlternativeMediaType, MasterPlaylist, QuotedOrUnquoted, Resolution, VariantStream};
use media::{RenditionId, TrackConfig};

use crate::bandwidth::Bandwidth;

/// One playable rendition as the multivariant playlist lists it.
#[derive(Clone, Debug)]
pub struct Variant {
    pub id: RenditionId,
    pub config: Arc<TrackConfig>,
    pub frame_rate_milli: Option<u32>,
    /// As declared ([`crate::Snapshot::declared`]).
    pub bandwidth: Bandwidth,
}

/// The multivariant playlist. Video variants by codec, H.264 first, since there are players that begin with the first variant
/// whatever its CODECS; those of a codec best first, as given. Every audio rendition is a group of its own. All video variants
/// go with the first group. A further group goes with the best video only, and declares at least the bit rate of its
/// counterpart: a player whose buffer runs dry steps down the list, and that step must never change the sound's codec,
/// which costs a stall of its own (seen with hls.js 1.7).
///
/// Last comes the first audio group by itself, for networks that carry no picture (AAS asks for one of at most 192 kbit/s).
/// Players that know what they are doing take it as the last resort (AVPlayer) or never (hls.js, Shaka).
///
/// Of one codec, a better picture never has the lower BANDWIDTH, or AVPlayer, which goes by that alone, would change up to a worse one. Pure
/// function of its input.
pub fn multivariant(video: &[Variant], audio: &[Variant]) -> String {
    let mut video: Vec<&Variant> = video.iter().collect();
    video.sort_by_key(|v| v.config.codec());
    let mut playlist = MasterPlaylist { version: Some(6), ..Default::default() };
    for rendition in audio.iter().filter(|_| !video.is_empty()) {
        playlist.alternatives.push(audio_group(rendition));
    }
    if video.is_empty() {
        playlist.variants.extend(audio.iter().map(|a| variant(a, None)));
    } else if audio.is_empty() {
        playlist.variants.extend(pictures(&video, None));
    } else {
        playlist.variants.extend(pictures(&video, audio.first()));
        for (best, group) in video.first().into_iter().flat_map(|best| audio.iter().skip(1).map(move |g| (best, g))) {
            let mut alternative = variant(best, Some(group));
            if let Some(counterpart) = playlist.variants.first() {
                alternative.bandwidth = alternative.bandwidth.max(counterpart.bandwidth + 1);
                alternative.average_bandwidth =
                    alternative.average_bandwidth.max(counterpart.average_bandwidth.map(|average| average + 1));
            }
            playlist.variants.push(alternative);
        }
        if let Some(group) = audio.first() {
            playlist.variants.push(VariantStream { audio: Some(group.id.to_string()), ..variant(group, None) });
        }
    }
    let mut text = Vec::with_capacity(1024);
    // Writing to memory cannot fail, and what is written is UTF-8.
    let _ = playlist.write_to(&mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn audio_group(rendition: &Variant) -> AlternativeMedia {
    let (name, channels) = match &*rendition.config {
        TrackConfig::Aac(c) => ("AAC", c.channels),
        TrackConfig::Opus(c) => ("Opus", c.channels),
        TrackConfig::H264(_) | TrackConfig::H265(_) | TrackConfig::Av1(_) => ("Audio", 2),
    };
    AlternativeMedia {
        media_type: AlternativeMediaType::Audio,
        uri: Some(playlist_uri(rendition)),
        group_id: rendition.id.to_string(),
        language: Some("und".to_owned()),
        name: name.to_owned(),
        default: true,
        autoselect: true,
        channels: Some(channels.to_string()),
        ..Default::default()
    }
}

fn pictures(video: &[&Variant], audio: Option<&Variant>) -> Vec<VariantStream> {
    let mut variants: Vec<_> = video.iter().map(|v| variant(v, audio)).collect();
    let (mut least, mut codec) = (0, None);
    for (variant, rendition) in variants.iter_mut().zip(video).rev() {
        // A player keeps to one codec.
        if codec.replace(rendition.config.codec()) != Some(rendition.config.codec()) {
            least = 0;
        }
        variant.bandwidth = variant.bandwidth.max(least);
        least = variant.bandwidth + 1;
    }
    variants
}

fn variant(rendition: &Variant, audio: Option<&Variant>) -> VariantStream {
    let mut codecs = rendition.config.rfc6381();
    let (mut peak, mut average) = (rendition.bandwidth.peak, rendition.bandwidth.average);
    if let Some(audio) = audio {
        codecs = format!("{codecs},{}", audio.config.rfc6381());
        peak += audio.bandwidth.peak;
        average += audio.bandwidth.average;
    }
    let resolution = rendition.config.display_size().map(|(width, height)| Resolution { width, height });
    VariantStream {
        uri: playlist_uri(rendition),
        bandwidth: peak.max(1),
        average_bandwidth: Some(average.max(1)),
        codecs: Some(codecs),
        resolution,
        frame_rate: rendition.frame_rate_milli.map(|milli| f64::from(milli) / 1000.0),
        audio: audio.map(|a| a.id.to_string()),
        other_attributes: None::<HashMap<String, QuotedOrUnquoted>>,
        ..Default::default()
    }
}

fn playlist_uri(rendition: &Variant) -> String {
    format!("{}/index.m3u8", rendition.id)
}
