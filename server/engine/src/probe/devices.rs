//! Which GStreamer elements belong to which GPU: asked of an instance of each, never read off its name.
//!
//! The number in `nvh264device1enc` counts registrations, not CUDA devices: where GPU 0 has no NVENC, GPU 1's encoder is
//! plain `nvh264enc`. Making an instance opens nothing on the device; that happens from READY on.

use std::collections::BTreeMap;

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::backend::realize::{has, make};
use crate::backend::{Codec, DeviceElements, EncoderElement, Family, jetson, nvidia, va};
use crate::spec::OnDevice;

/// A device that has elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) elements: DeviceElements,
    /// VA: the render node.
    pub(crate) path: Option<String>,
}

/// One element of a device, before they are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    factory: String,
    place: Place,
    role: Role,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Cuda(u32),
    RenderNode(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Decoder(Codec),
    Encoder(Codec, EncoderElement),
    Scaler,
}

/// The device that a worker was given, as this process sees it. A worker on an NVIDIA GPU sees no other: it is CUDA device 0.
pub(crate) fn find(on: &OnDevice) -> Option<DeviceElements> {
    let matching = |found: &Found| {
        found.elements.family == on.family
            && match on.family {
                Family::Nvidia => found.elements.ordinal == 0,
                Family::Va => found.path.as_deref() == Some(on.id.as_str()),
                Family::Jetson => true,
            }
    };
    all().into_iter().find(matching).map(|found| found.elements)
}

/// Every device that this process's GStreamer has elements for; NVIDIA's by CUDA ordinal, then the others.
pub(crate) fn all() -> Vec<Found> {
    let (major, minor, ..) = gst::version();
    let mut pieces = nvcodec((major, minor));
    // An instance, not the list: the list may have it from when NVRTC was there.
    let scaler = make(nvidia::SCALER).is_ok().then(|| nvidia::SCALER.to_owned());
    pieces.extend(va_pieces());
    let mut found = assemble(pieces, scaler);
    found.extend(jetson_device(has));
    found
}

fn assemble(pieces: Vec<Piece>, cuda_scaler: Option<String>) -> Vec<Found> {
    let mut devices: BTreeMap<Place, DeviceElements> = BTreeMap::new();
    for piece in pieces {
        let (family, ordinal) = match &piece.place {
            Place::Cuda(ordinal) => (Family::Nvidia, *ordinal),
            Place::RenderNode(_) => (Family::Va, 0),
        };
        let device = devices.entry(piece.place).or_insert_with(|| DeviceElements {
            family,
            ordinal,
            decoders: BTreeMap::new(),
            encoders: BTreeMap::new(),
            scaler: if family == Family::Nvidia { cuda_scaler.clone() } else { None },
        });
        match piece.role {
            Role::Decoder(codec) => {
                device.decoders.entry(codec).or_insert(piece.factory);
            }
            // Of a full and a low-power encoder the full one; the latter is often the only one.
            Role::Encoder(codec, element) => match device.encoders.get_mut(&codec) {
                Some(known) if known.factory.contains("lpenc") => *known = element,
                Some(_) => {}
                None => {
                    device.encoders.insert(codec, element);
                }
            },
            Role::Scaler => device.scaler = Some(piece.factory),
        }
    }
    devices
        .into_iter()
        .map(|(place, elements)| {
            let path = match place {
                Place::Cuda(_) => None,
                Place::RenderNode(path) => Some(path),
            };
            Found { elements, path }
        })
        .collect()
}

fn nvcodec(version: (u32, u32)) -> Vec<Piece> {
    // GStreamer's list of elements may be from when there was no GPU, or no encoder session free. The plug-in asks the
    // driver whenever it is loaded and adds what it finds; the instances below would load it too, but too late for the list.
    let _ = gst::Plugin::load_by_name("nvcodec");
    let piece = |factory: &gst::ElementFactory| {
        let name = factory.name();
        if !used(&name, version) {
            return None;
        }
        let role = role(factory)?;
        let element = factory.create().build().ok()?;
        element.find_property("cuda-device-id")?;
        let ordinal = element.property_value("cuda-device-id").get::<u32>().ok()?;
        Some(Piece { factory: name.to_string(), place: Place::Cuda(ordinal), role })
    };
    factories("nvcodec").iter().filter_map(piece).collect()
}

/// Of nvcodec's families of elements the one that the back end knows.
fn used(name: &str, version: (u32, u32)) -> bool {
    // Without a device of its own; a second decoder of 1.22; the encoders of before 1.26.
    let old_encoder = version < (1, 25) && name.ends_with("enc") && !name.starts_with("nvcuda");
    !name.starts_with("nvautogpu") && !name.contains("sldec") && !name.contains("jpeg") && !old_encoder
}

fn va_pieces() -> Vec<Piece> {
    let piece = |factory: &gst::ElementFactory| {
        let name = factory.name();
        let role = if name.starts_with("va") && name.ends_with(va::SCALER.trim_start_matches("va")) {
            Role::Scaler
        } else {
            role(factory)?
        };
        let element = factory.create().build().ok()?;
        element.find_property("device-path")?;
        let path = element.property_value("device-path").get::<Option<String>>().ok()??;
        Some(Piece { factory: name.to_string(), place: Place::RenderNode(path), role })
    };
    factories("va").iter().filter_map(piece).collect()
}

fn jetson_device(has: impl Fn(&str) -> bool) -> Option<Found> {
    if !has(jetson::DECODER) {
        return None;
    }
    let encoders = [(Codec::H264, "nvv4l2h264enc"), (Codec::H265, "nvv4l2h265enc"), (Codec::Av1, "nvv4l2av1enc")];
    let elements = DeviceElements {
        family: Family::Jetson,
        ordinal: 0,
        decoders: [Codec::H264, Codec::H265, Codec::Av1].map(|c| (c, jetson::DECODER.to_owned())).into(),
        encoders: encoders
            .into_iter()
            .filter(|(_, name)| has(name))
            .map(|(codec, name)| (codec, EncoderElement { factory: name.to_owned(), smallest: None, largest: None }))
            .collect(),
        scaler: has(jetson::SCALER).then(|| jetson::SCALER.to_owned()),
    };
    Some(Found { elements, path: None })
}

/// The plug-in's element factories by name, so that the order never depends on the registry's.
fn factories(plugin: &str) -> Vec<gst::ElementFactory> {
    let mut factories: Vec<gst::ElementFactory> = gst::Registry::get()
        .features_by_plugin(plugin)
        .into_iter()
        .filter_map(|feature| feature.downcast::<gst::ElementFactory>().ok())
        .collect();
    factories.sort_by_key(|f| f.name());
    factories
}

/// What a codec element is, by the caps of its coded side.
fn role(factory: &gst::ElementFactory) -> Option<Role> {
    let coded = |direction| {
        factory.static_pad_templates().iter().filter(|t| t.direction() == direction).find_map(|template| {
            let caps = template.caps();
            let codec = match caps.structure(0)?.name().as_str() {
                "video/x-h264" => Codec::H264,
                "video/x-h265" => Codec::H265,
                "video/x-av1" => Codec::Av1,
                _ => return None,
            };
            Some((codec, limits(caps.structure(0)?)))
        })
    };
    if factory.has_type(gst::ElementFactoryType::DECODER) {
        return coded(gst::PadDirection::Sink).map(|(codec, _)| Role::Decoder(codec));
    }
    if factory.has_type(gst::ElementFactoryType::ENCODER) {
        return coded(gst::PadDirection::Src).map(|(codec, (smallest, largest))| {
            Role::Encoder(codec, EncoderElement { factory: factory.name().to_string(), smallest, largest })
        });
    }
    None
}

type Size = Option<(u32, u32)>;

fn limits(caps: &gst::StructureRef) -> (Size, Size) {
    let range = |field| {
        let range = caps.get::<gst::IntRange<i32>>(field).ok()?;
        Some((u32::try_from(range.min()).ok()?, u32::try_from(range.max()).ok()?))
    };
    match (range("width"), range("height")) {
        (Some((w0, w1)), Some((h0, h1))) => (Some((w0, h0)), Some((w1, h1))),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn encoder(factory: &str, place: Place) -> Piece {
        let element = EncoderElement { factory: factory.into(), smallest: None, largest: None };
        Piece { factory: factory.into(), place, role: Role::Encoder(Codec::H264, element) }
    }

    fn decoder(factory: &str, place: Place) -> Piece {
        Piece { factory: factory.into(), place, role: Role::Decoder(Codec::H264) }
    }

    #[test]
    fn the_number_in_a_name_is_not_believed() {
        // An A100 as CUDA device 0 and an L4 as 1: the only encoder has the plain name.
        let found = assemble(
            vec![
                decoder("nvh264dec", Place::Cuda(0)),
                decoder("nvh264device1dec", Place::Cuda(1)),
                encoder("nvh264enc", Place::Cuda(1)),
            ],
            Some("cudaconvertscale".into()),
        );
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].elements.ordinal, found[0].elements.encoders.len()), (0, 0));
        assert_eq!(found[1].elements.encoders[&Codec::H264].factory, "nvh264enc");
        assert_eq!(found[1].elements.decoders[&Codec::H264], "nvh264device1dec");
        assert!(found.iter().all(|f| f.elements.scaler.as_deref() == Some("cudaconvertscale")));
    }

    #[test]
    fn only_the_family_of_encoders_that_the_back_end_knows_is_taken() {
        for (name, old, new) in [
            ("nvh264enc", false, true),
            ("nvcudah264enc", true, true),
            ("nvcudah264device1enc", true, true),
            ("nvautogpuh264enc", false, false),
            ("nvh264sldec", false, false),
            ("nvh264dec", true, true),
            ("nvav1device1dec", true, true),
        ] {
            assert_eq!((used(name, (1, 22)), used(name, (1, 26))), (old, new), "{name}");
        }
    }

    #[test]
    fn a_full_encoder_goes_before_a_low_power_one_whichever_comes_first() {
        let node = || Place::RenderNode("/dev/dri/renderD128".into());
        for names in [["vah264enc", "vah264lpenc"], ["vah264lpenc", "vah264enc"]] {
            let mut pieces: Vec<Piece> = names.iter().map(|n| encoder(n, node())).collect();
            pieces.push(Piece { factory: "vapostproc".into(), place: node(), role: Role::Scaler });
            let found = assemble(pieces, None);
            assert_eq!(found[0].path.as_deref(), Some("/dev/dri/renderD128"));
            assert_eq!(found[0].elements.encoders[&Codec::H264].factory, "vah264enc");
            assert_eq!(found[0].elements.scaler.as_deref(), Some("vapostproc"));
        }
    }

    #[test]
    fn roles_come_from_caps() {
        gst::init().unwrap();
        let of = |name| gst::ElementFactory::find(name).and_then(|f| role(&f));
        assert_eq!(of("queue"), None);
        if let Some(found) = of("avdec_h264") {
            assert_eq!(found, Role::Decoder(Codec::H264));
        }
    }

    #[test]
    fn a_jetson_is_known_by_its_decoder() {
        assert_eq!(jetson_device(|_| false), None);
        // Orin Nano: no encoder.
        let nano = jetson_device(|name| ["nvv4l2decoder", "nvvidconv"].contains(&name)).unwrap();
        assert!(nano.elements.encoders.is_empty() && nano.elements.scaler.is_some());
    }
}
