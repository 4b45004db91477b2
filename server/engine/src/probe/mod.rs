//! What this host has: for `fishladder doctor` and for refusing to start a ladder that cannot run.

pub(crate) mod devices;

use gstreamer as gst;
use serde::Serialize;

use crate::backend::realize::has;

#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub ok: bool,
    pub subject: String,
    pub detail: String,
    pub remedy: Option<String>,
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

/// Checks the GStreamer version and every element the engine uses.
pub fn examine() -> Vec<Finding> {
    if let Err(e) = gst::init() {
        return vec![Finding {
            ok: false,
            subject: "GStreamer".into(),
            detail: format!("does not start: {e}"),
            remedy: Some("apt-get install libgstreamer1.0-0".into()),
        }];
    }
    std::iter::once(version(gst::version())).chain(NEEDS.iter().map(|need| need.examine(has))).collect()
}

fn version((major, minor, micro, _): (u32, u32, u32, u32)) -> Finding {
    let ok = (major, minor) >= FLOOR;
    Finding {
        ok,
        subject: "GStreamer".into(),
        detail: format!("version {major}.{minor}.{micro}, {}.{} or newer is needed", FLOOR.0, FLOOR.1),
        remedy: (!ok).then(|| "upgrade to Debian 12 or newer".into()),
    }
}

impl Need {
    fn examine(&self, has: impl Fn(&str) -> bool) -> Finding {
        let best = self.any_of.first().copied().unwrap_or_default();
        let install = || Some(format!("apt-get install {}", self.package));
        let (ok, detail, remedy) = match self.any_of.iter().position(|name| has(name)) {
            Some(0) => (true, format!("{best} is there"), None),
            Some(n) => {
                let taken = self.any_of.get(n).copied().unwrap_or_default();
                (true, format!("{taken} is there and is used; {best} would be better"), install())
            }
            None => (false, format!("{} is missing", self.any_of.join(" or ")), install()),
        };
        Finding { ok, subject: self.what.into(), detail, remedy }
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
    fn the_floor_is_1_22() {
        assert!(!version((1, 20, 3, 0)).ok && version((1, 22, 0, 0)).ok && version((2, 0, 0, 0)).ok);
    }
}
