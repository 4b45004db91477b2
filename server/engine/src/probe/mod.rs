//! What this host has: for `fishladder doctor` and for refusing to start a ladder that cannot run.
//!
//! [`examine`] checks what a ladder on the CPU needs, [`diagnose`] the GPUs too. Facts are gathered in one place
//! (`gather`), judged in another (`traps`), so that every trap is tested without the hardware.

pub(crate) mod devices;
mod driver;
mod facts;
mod gather;
mod traps;

use std::path::PathBuf;

use gstreamer as gst;
use serde::Serialize;

use crate::backend::realize::{has, software_encoders};
use crate::backend::{Codec, DeviceElements, SoftwareEncoder};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Not a fault.
    pub ok: bool,
    pub level: Level,
    /// Stays the same from version to version; for programs.
    pub code: &'static str,
    pub subject: String,
    pub detail: String,
    /// A command, or commands joined by `&&`, that mends it.
    pub remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Worth knowing; nothing fails because of it.
    Note,
    /// Something that is there does not work.
    Fault,
}

/// A GPU that ladders can run on, and what its driver says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    pub elements: DeviceElements,
    pub name: Option<String>,
    /// NVIDIA: the UUID; VA: the render node. What [`crate::OnDevice`] takes.
    pub id: Option<String>,
    pub pci: Option<String>,
    pub driver: Option<String>,
    /// MiB.
    pub memory_total: Option<u64>,
    pub memory_used: Option<u64>,
    /// Encoder sessions of all processes.
    pub encoder_sessions: Option<u32>,
    /// MHz.
    pub max_video_clock: Option<u32>,
    pub mig: bool,
}

/// The oldest GStreamer that has all we use (`videoconvertscale` came with it); Debian 12's.
const FLOOR: (u32, u32) = (1, 22);

/// What for, which elements, and the Debian package that has them. Any one of `any_of` is enough, the first is best.
struct Need {
    what: &'static str,
    any_of: &'static [&'static str],
    package: &'static str,
}

const NEEDS: &[Need] = &[
    Need { what: "pipelines", any_of: &["queue"], package: "libgstreamer1.0-0" },
    Need { what: "pipelines", any_of: &["tee"], package: "libgstreamer1.0-0" },
    Need { what: "pipelines", any_of: &["capsfilter"], package: "libgstreamer1.0-0" },
    Need { what: "units in", any_of: &["appsrc"], package: "gstreamer1.0-plugins-base" },
    Need { what: "units out", any_of: &["appsink"], package: "gstreamer1.0-plugins-base" },
    Need { what: "H.264 decoding", any_of: &["avdec_h264"], package: "gstreamer1.0-libav" },
    Need { what: "scaling", any_of: &["videoconvertscale"], package: "gstreamer1.0-plugins-base" },
    Need { what: "H.264 encoding", any_of: &["x264enc", "openh264enc"], package: "gstreamer1.0-plugins-ugly" },
    Need { what: "Opus decoding", any_of: &["opusdec"], package: "gstreamer1.0-plugins-base" },
    Need { what: "AAC decoding", any_of: &["avdec_aac"], package: "gstreamer1.0-libav" },
    Need { what: "sample formats", any_of: &["audioconvert"], package: "gstreamer1.0-plugins-base" },
    Need { what: "sample rates", any_of: &["audioresample"], package: "gstreamer1.0-plugins-base" },
    Need { what: "gaps in audio", any_of: &["audiorate"], package: "gstreamer1.0-plugins-base" },
    Need { what: "AAC encoding", any_of: &["avenc_aac", "voaacenc"], package: "gstreamer1.0-libav" },
    Need { what: "the demo's picture", any_of: &["videotestsrc"], package: "gstreamer1.0-plugins-base" },
    Need { what: "the demo's tone", any_of: &["audiotestsrc"], package: "gstreamer1.0-plugins-base" },
    Need { what: "the demo's Opus", any_of: &["opusenc"], package: "gstreamer1.0-plugins-base" },
    Need { what: "the demo's RTP", any_of: &["rtph264pay"], package: "gstreamer1.0-plugins-good" },
    Need { what: "the demo's RTP", any_of: &["rtpopuspay"], package: "gstreamer1.0-plugins-good" },
    Need { what: "the demo's RTCP", any_of: &["rtpbin"], package: "gstreamer1.0-plugins-good" },
    Need { what: "the demo's sockets", any_of: &["udpsink"], package: "gstreamer1.0-plugins-good" },
];

/// Checks the GStreamer version and every element that a ladder on the CPU uses, or may use.
pub fn examine() -> Vec<Finding> {
    if let Err(e) = gst::init() {
        let detail = format!("does not start: {e}");
        return vec![finding(
            Level::Fault,
            "gstreamer",
            "GStreamer",
            detail,
            Some("apt-get install libgstreamer1.0-0"),
        )];
    }
    let encoders = software_encoders();
    std::iter::once(version(gst::version()))
        .chain(NEEDS.iter().map(|need| need.examine(has)))
        .chain([Codec::H265, Codec::Av1].map(|codec| further_codec(codec, &encoders)))
        .collect()
}

/// All of [`examine`], every GPU, and what is wrong with them. Loads NVIDIA's libraries into this process.
pub fn diagnose() -> Vec<Finding> {
    let mut findings = examine();
    if gst::init().is_ok() {
        findings.extend(traps::judge(&gather::facts()));
    }
    findings
}

/// Where this user's programs keep what can be made anew (XDG base directory specification).
pub(crate) fn cache_folder() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
}

fn finding(
    level: Level,
    code: &'static str,
    subject: impl Into<String>,
    detail: impl Into<String>,
    remedy: Option<&str>,
) -> Finding {
    Finding {
        ok: level != Level::Fault,
        level,
        code,
        subject: subject.into(),
        detail: detail.into(),
        remedy: remedy.map(str::to_owned),
        device: None,
    }
}

fn version((major, minor, micro, _): (u32, u32, u32, u32)) -> Finding {
    let ok = (major, minor) >= FLOOR;
    let detail = format!("version {major}.{minor}.{micro}, {}.{} or newer is needed", FLOOR.0, FLOOR.1);
    let level = if ok { Level::Ok } else { Level::Fault };
    finding(level, "gstreamer", "GStreamer", detail, (!ok).then_some("upgrade to Debian 12 or newer"))
}

/// A codec that rungs may name beside H.264; who names none needs none.
fn further_codec(codec: Codec, encoders: &[SoftwareEncoder]) -> Finding {
    let subject = format!("{codec} encoding");
    match encoders.iter().find(|encoder| encoder.codec() == codec) {
        Some(encoder) => finding(Level::Ok, "element", subject, format!("{} is there", encoder.factory()), None),
        None => {
            let needed = SoftwareEncoder::remedy(codec);
            let detail = format!("the CPU cannot; rungs that ask for it need {needed}, or a GPU");
            finding(Level::Note, "element", subject, detail, Some("apt-get install gstreamer1.0-plugins-bad"))
        }
    }
}

impl Need {
    fn examine(&self, has: impl Fn(&str) -> bool) -> Finding {
        let best = self.any_of.first().copied().unwrap_or_default();
        let install = format!("apt-get install {}", self.package);
        let (level, detail, remedy) = match self.any_of.iter().position(|name| has(name)) {
            Some(0) => (Level::Ok, format!("{best} is there"), None),
            Some(n) => {
                let taken = self.any_of.get(n).copied().unwrap_or_default();
                let detail = format!("{taken} is there and is used; {best} would be better");
                (Level::Note, detail, Some(install.as_str()))
            }
            None => (Level::Fault, format!("{} is missing", self.any_of.join(" or ")), Some(install.as_str())),
        };
        finding(level, "element", self.what, detail, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_names_its_package() {
        let found: Vec<Finding> = NEEDS.iter().map(|n| n.examine(|_| false)).collect();
        assert!(found.iter().all(|f| !f.ok && f.remedy.as_ref().is_some_and(|r| r.starts_with("apt-get install "))));
    }

    #[test]
    fn the_second_best_encoder_will_do_and_says_so() {
        let need =
            NEEDS.iter().find(|n| n.any_of.contains(&"x264enc")).map(|n| n.examine(|name| name == "openh264enc"));
        assert!(need.is_some_and(|f| f.ok && f.detail.contains("x264enc would be better") && f.remedy.is_some()));
    }

    #[test]
    fn a_codec_that_the_cpu_does_not_encode_is_worth_a_note() {
        let there = [SoftwareEncoder::X264, SoftwareEncoder::X265];
        assert_eq!(further_codec(Codec::H265, &there).level, Level::Ok);
        let missing = further_codec(Codec::Av1, &there);
        assert!(missing.ok && missing.level == Level::Note && missing.detail.contains("1.24.5"), "{missing:?}");
    }

    #[test]
    fn the_floor_is_1_22() {
        assert!(!version((1, 20, 3, 0)).ok && version((1, 22, 0, 0)).ok && version((2, 0, 0, 0)).ok);
    }
}
