//! Multivariant playlists and their rules (bis 4.4.6).

use super::read::{attribute, attributes};
use super::{Findings, Rule};

/// EXT-X-STREAM-INF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantLine<'a> {
    pub uri: &'a str,
    /// Bits a second.
    pub bandwidth: Option<u64>,
    pub average_bandwidth: Option<u64>,
    pub codecs: Option<&'a str>,
    pub resolution: Option<&'a str>,
    pub frame_rate: Option<&'a str>,
    pub audio: Option<&'a str>,
}

/// EXT-X-MEDIA of type AUDIO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioGroup<'a> {
    pub group: &'a str,
    /// None: the sound is in the variants themselves.
    pub uri: Option<&'a str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multivariant<'a> {
    pub variants: Vec<VariantLine<'a>>,
    pub audio: Vec<AudioGroup<'a>>,
}

impl<'a> Multivariant<'a> {
    /// Tells multivariant from media playlists (bis 4.1).
    pub fn is_one(text: &str) -> bool {
        text.lines().any(|l| l.starts_with("#EXT-X-STREAM-INF:"))
    }

    /// Reads it and notes what is wrong with it.
    pub fn read(text: &'a str, findings: &mut Findings) -> Self {
        findings.must(Rule::A1, text.starts_with("#EXTM3U"), || "the first line is not #EXTM3U".to_owned());
        let mut read = Self::default();
        // Group, name and whether it is the default, of each EXT-X-MEDIA.
        let mut members: Vec<(&str, &str, bool)> = Vec::new();
        let mut pending = None;
        for line in text.lines().map(str::trim_end) {
            if let Some(list) = line.strip_prefix("#EXT-X-MEDIA:") {
                read.media(list, &mut members, findings);
            } else if let Some(list) = line.strip_prefix("#EXT-X-STREAM-INF:") {
                findings.must(Rule::A1, pending.is_none(), || "EXT-X-STREAM-INF without a URI".to_owned());
                pending = Some(list);
            } else if !line.starts_with('#')
                && !line.is_empty()
                && let Some(list) = pending.take()
            {
                read.variants.push(variant(list, line));
            }
        }
        findings.must(Rule::A1, pending.is_none(), || "EXT-X-STREAM-INF without a URI".to_owned());
        // Sorted, so that equal ones lie side by side.
        members.sort_unstable();
        let twice = members.windows(2).find(|w| matches!(w, [a, b] if (a.0, a.1) == (b.0, b.1)));
        findings.must(Rule::A59, twice.is_none(), || "two members of a group have one name".to_owned());
        let mut defaults: Vec<&str> = members.iter().filter(|m| m.2).map(|m| m.0).collect();
        let count = defaults.len();
        defaults.dedup();
        findings.must(Rule::A59, defaults.len() == count, || "a group has two defaults".to_owned());
        for variant in &read.variants {
            check_variant(variant, &read.audio, findings);
        }
        read
    }

    fn media(&mut self, list: &'a str, members: &mut Vec<(&'a str, &'a str, bool)>, findings: &mut Findings) {
        let value = |name| attribute(list, name);
        let (kind, group, name) = (value("TYPE"), value("GROUP-ID"), value("NAME"));
        findings.must(Rule::A59, kind.is_some() && group.is_some() && name.is_some(), || {
            format!("EXT-X-MEDIA without TYPE, GROUP-ID or NAME: {list:.120}")
        });
        let (Some("AUDIO"), Some(group), Some(name)) = (kind, group, name) else { return };
        findings.should(Rule::A59, value("LANGUAGE").is_some(), || format!("{group} has no LANGUAGE"));
        findings.should(Rule::A59, value("CHANNELS").is_some(), || format!("{group} has no CHANNELS"));
        members.push((group, name, value("DEFAULT") == Some("YES")));
        self.audio.push(AudioGroup { group, uri: value("URI") });
    }
}

fn variant<'a>(list: &'a str, uri: &'a str) -> VariantLine<'a> {
    let mut variant = VariantLine { uri, ..VariantLine::default() };
    for (key, value) in attributes(list) {
        match key {
            "BANDWIDTH" => variant.bandwidth = value.parse().ok(),
            "AVERAGE-BANDWIDTH" => variant.average_bandwidth = value.parse().ok(),
            "CODECS" => variant.codecs = Some(value),
            "RESOLUTION" => variant.resolution = Some(value),
            "FRAME-RATE" => variant.frame_rate = Some(value),
            "AUDIO" => variant.audio = Some(value),
            _ => {}
        }
    }
    variant
}

fn check_variant(variant: &VariantLine<'_>, audio: &[AudioGroup<'_>], findings: &mut Findings) {
    let uri = variant.uri;
    findings.must(Rule::A56, variant.bandwidth.is_some_and(|b| b > 0), || format!("{uri} has no BANDWIDTH"));
    let average = variant.average_bandwidth;
    findings.should(Rule::A56, average.is_some(), || format!("{uri} has no AVERAGE-BANDWIDTH"));
    if let (Some(peak), Some(average)) = (variant.bandwidth, average) {
        findings.must(Rule::A56, average <= peak, || format!("{uri} has AVERAGE-BANDWIDTH above BANDWIDTH"));
    }
    findings.must(Rule::A57, variant.codecs.is_some_and(|c| !c.is_empty()), || format!("{uri} has no CODECS"));
    let is_video = variant.codecs.is_none_or(|codecs| codecs.split(',').any(|c| is_video(c.trim())));
    if is_video {
        let size = variant.resolution.and_then(|r| r.split_once('x'));
        let readable = size.is_some_and(|(w, h)| w.parse::<u32>().is_ok() && h.parse::<u32>().is_ok());
        findings.must(Rule::A57, readable, || format!("{uri} has no RESOLUTION"));
        findings.must(Rule::A57, variant.frame_rate.is_some(), || format!("{uri} has no FRAME-RATE"));
    }
    if let Some(group) = variant.audio {
        let found = audio.iter().any(|a| a.group == group);
        findings.must(Rule::A59, found, || format!("{uri} names the group {group}, which is not there"));
    }
}

fn is_video(codec: &str) -> bool {
    ["avc1", "avc3", "hvc1", "hev1", "dvh1", "dvhe", "av01", "vp08", "vp09"].iter().any(|c| codec.starts_with(c))
}
