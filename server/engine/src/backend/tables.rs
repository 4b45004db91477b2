//! Checks every property that a back end sets against the property tables of each GStreamer series.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Tables {
    versions: BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    elements: BTreeMap<String, BTreeMap<String, Spec>>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    r#type: String,
    min: Option<serde_json::Value>,
    max: Option<serde_json::Value>,
    values: Option<Vec<String>>,
    #[serde(default)]
    conditional: bool,
    #[serde(default)]
    read_only: bool,
}

fn tables() -> Tables {
    serde_json::from_str(include_str!("../../tests/data/properties.json")).unwrap()
}

fn version(series: Series) -> &'static str {
    match series {
        Series::V1_22 => "1.22",
        Series::V1_24 => "1.24",
        Series::V1_26 => "1.26",
        Series::V1_28 => "1.28",
    }
}

/// Why the value does not fit the property.
fn misfit(property: &Property, spec: &Spec) -> Option<String> {
    let in_range = |v: i64| {
        // A symbolic maximum depends on the device; 0 is always inside.
        let least = spec.min.as_ref().is_none_or(|m| v >= m.as_i64().unwrap());
        let most = spec.max.as_ref().is_none_or(|m| m.as_i64().map_or(v == 0, |m| v <= m));
        (!(least && most)).then(|| format!("{v} is out of {:?}..{:?}", spec.min, spec.max))
    };
    let type_is = |names: &[&str]| (!names.contains(&spec.r#type.as_str())).then(|| format!("is a {}", spec.r#type));
    let wrong = match &property.value {
        Value::Bool(_) => type_is(&["boolean"]),
        Value::Int(v) => type_is(&["int"]).or_else(|| in_range(i64::from(*v))),
        Value::Uint(v) => type_is(&["uint"]).or_else(|| in_range(i64::from(*v))),
        Value::Word(word) => type_is(&["enum", "flags"]).or_else(|| {
            let words = spec.values.as_ref()?;
            (!words.iter().any(|w| w == word)).then(|| format!("{word} is none of {words:?}"))
        }),
        Value::Text(_) => type_is(&["string"]),
    };
    wrong.or_else(|| spec.read_only.then(|| "is read-only".to_owned())).or_else(|| {
        (spec.conditional != property.conditional).then(|| format!("conditional is {} in the table", spec.conditional))
    })
}

fn check(series: Series, plan: &GraphPlan, faults: &mut BTreeSet<String>, seen: &mut BTreeSet<(Series, String)>) {
    let tables = tables();
    let elements = &tables.versions[version(series)].elements;
    let rungs = plan
        .rungs
        .iter()
        .flat_map(|r| [&r.scaler, &r.encoder].into_iter().chain(r.download.as_ref()).chain(r.parser.as_ref()));
    for element in rungs.chain([&plan.decoder]).chain(plan.parser.as_ref()) {
        seen.insert((series, element.factory.clone()));
        let Some(known) = elements.get(&element.factory) else {
            faults.insert(format!("{series:?}: no element {}", element.factory));
            continue;
        };
        let mut names = BTreeSet::new();
        for property in &element.properties {
            if !names.insert(property.name) {
                faults.insert(format!("{series:?}: {}.{} is set twice", element.factory, property.name));
            }
            let wrong = match known.get(property.name) {
                None => Some("does not exist".to_owned()),
                Some(spec) => misfit(property, spec),
            };
            if let Some(wrong) = wrong {
                faults.insert(format!("{series:?}: {}.{} {wrong}", element.factory, property.name));
            }
        }
    }
}

/// The device that a family's elements of a series make, with the names that the probe would find on it.
fn device(family: Family, series: Series) -> DeviceElements {
    type Names = Vec<(Codec, &'static str)>;
    let (decoders, encoders, scaler): (Names, Names, &str) = match family {
        Family::Nvidia => {
            let decoders = vec![(Codec::H264, "nvh264dec"), (Codec::H265, "nvh265dec"), (Codec::Av1, "nvav1dec")];
            let encoders = if series >= Series::V1_26 {
                vec![(Codec::H264, "nvh264enc"), (Codec::H265, "nvh265enc"), (Codec::Av1, "nvav1enc")]
            } else {
                vec![(Codec::H264, "nvcudah264enc"), (Codec::H265, "nvcudah265enc")]
            };
            (decoders, encoders, nvidia::SCALER)
        }
        Family::Va => {
            let decoders = vec![(Codec::H264, "vah264dec"), (Codec::H265, "vah265dec"), (Codec::Av1, "vaav1dec")];
            let mut encoders = vec![(Codec::H264, "vah264enc"), (Codec::H265, "vah265lpenc")];
            if series >= Series::V1_24 {
                encoders.push((Codec::Av1, "vaav1enc"));
            }
            (decoders, encoders, va::SCALER)
        }
        Family::Jetson => {
            let all = [Codec::H264, Codec::H265, Codec::Av1];
            let encoders =
                vec![(Codec::H264, "nvv4l2h264enc"), (Codec::H265, "nvv4l2h265enc"), (Codec::Av1, "nvv4l2av1enc")];
            (all.map(|c| (c, jetson::DECODER)).to_vec(), encoders, jetson::SCALER)
        }
    };
    let encoder = |factory: &str| EncoderElement { factory: factory.to_owned(), smallest: None, largest: None };
    DeviceElements {
        family,
        ordinal: 0,
        decoders: decoders.into_iter().map(|(c, n)| (c, n.to_owned())).collect(),
        encoders: encoders.into_iter().map(|(c, n)| (c, encoder(n))).collect(),
        scaler: Some(scaler.to_owned()),
    }
}

/// Every kind of request: both ends of each scale.
fn requests(codec: Codec) -> Vec<RungRequest> {
    let mut all = Vec::new();
    for word in ["p1", "p2", "p3", "p4", "p5", "p6", "p7", "ultrafast", "faster", "fast", "slower", "veryslow"] {
        for tune in [Tune::UltraLowLatency, Tune::LowLatency, Tune::HighQuality] {
            for keys in [KeyPolicy::Forced, KeyPolicy::AtMostEvery(0), KeyPolicy::AtMostEvery(u32::MAX)] {
                for bitrate in [0, 3_000_000, u32::MAX] {
                    let preset = Preset::parse(word).unwrap();
                    all.push(RungRequest { codec, width: 1280, height: 720, bitrate, preset, tune, keys });
                }
            }
        }
    }
    all
}

#[test]
fn every_property_that_a_back_end_sets_exists_with_that_type_range_and_condition() {
    let (mut faults, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for series in Series::ALL {
        for software in SoftwareEncoder::ALL {
            let rungs = requests(software.codec());
            let choice = choose(Policy::Cpu, Codec::H264, &rungs, None, &[software]).unwrap();
            check(series, &plan(&choice, series, &rungs), &mut faults, &mut seen);
        }
        for family in [Family::Nvidia, Family::Va, Family::Jetson] {
            let device = device(family, series);
            for input in [Codec::H264, Codec::H265, Codec::Av1] {
                for codec in device.encoders.keys() {
                    let rungs = requests(*codec);
                    let choice = choose(Policy::GpuOnly, input, &rungs, Some(&device), &[]).unwrap();
                    assert_eq!(choice.rungs.len(), rungs.len());
                    check(series, &plan(&choice, series, &rungs), &mut faults, &mut seen);
                }
            }
        }
        // The hybrid.
        let mut bare = device(Family::Nvidia, series);
        bare.encoders.clear();
        let rungs = requests(Codec::H264);
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, Some(&bare), &[SoftwareEncoder::X264]).unwrap();
        assert_eq!(choice.name(), "nvidia-hybrid");
        check(series, &plan(&choice, series, &rungs), &mut faults, &mut seen);
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // The check has met what it is for.
    let met = |series, name: &str| assert!(seen.contains(&(series, name.to_owned())), "{name} in {series:?}");
    for (series, name) in [
        (Series::V1_22, "nvcudah264enc"),
        (Series::V1_24, "nvcudah265enc"),
        (Series::V1_26, "nvav1enc"),
        (Series::V1_28, "nvh264enc"),
    ] {
        met(series, name);
    }
    for series in Series::ALL {
        for name in [
            "x264enc",
            "openh264enc",
            "x265enc",
            "av1enc",
            "avdec_h264",
            "cudadownload",
            "vah265lpenc",
            "nvv4l2h264enc",
            "vapostproc",
        ] {
            met(series, name);
        }
    }
}

#[test]
fn the_check_sees_wrong_names_types_ranges_words_and_conditions() {
    let spec = |json: &str| serde_json::from_str::<Spec>(json).unwrap();
    let property = |value| Property { name: "p", value, conditional: false };
    let uint = spec(r#"{"type": "uint", "min": 0, "max": 7}"#);
    assert_eq!(misfit(&property(Value::Uint(7)), &uint), None);
    for value in [Value::Uint(8), Value::Int(1), Value::Bool(true), Value::Word("x"), Value::Text("x".into())] {
        assert!(misfit(&property(value), &uint).is_some());
    }
    let words = spec(r#"{"type": "enum", "values": ["cbr"], "conditional": true}"#);
    assert!(misfit(&property(Value::Word("cbr")), &words).is_some());
    assert_eq!(misfit(&Property { conditional: true, ..property(Value::Word("cbr")) }, &words), None);
    assert!(misfit(&Property { conditional: true, ..property(Value::Word("vbr")) }, &words).is_some());
    assert!(misfit(&property(Value::Bool(true)), &spec(r#"{"type": "boolean", "read_only": true}"#)).is_some());
}

/// What the installed GStreamer says itself, where it has the elements: the tables are not the only witness.
#[test]
fn the_installed_software_elements_take_every_property() {
    gstreamer::init().unwrap();
    let (major, minor, ..) = gstreamer::version();
    let series = Series::of(major, minor).unwrap();
    let mut taken = BTreeSet::new();
    for encoder in SoftwareEncoder::ALL {
        let rungs = requests(encoder.codec());
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, None, &[encoder]).unwrap();
        let plan = plan(&choice, series, &rungs);
        let elements = plan.rungs.iter().flat_map(|r| [&r.scaler, &r.encoder]).chain([&plan.decoder]);
        for element in elements.filter(|e| realize::has(&e.factory)) {
            realize::element(element).unwrap();
            taken.insert(element.factory.clone());
        }
    }
    assert!(taken.contains("videoconvertscale"), "{taken:?}");
}

/// One way in, one way out of the device: what the zero-copy promise rests on.
#[test]
fn raw_pictures_leave_a_device_only_where_the_cpu_encodes_and_only_scaled() {
    for series in Series::ALL {
        for family in [Family::Nvidia, Family::Va, Family::Jetson] {
            let device = device(family, series);
            let rungs = requests(Codec::H264);
            let choice = choose(Policy::GpuOnly, Codec::H264, &rungs, Some(&device), &[]).unwrap();
            let whole = plan(&choice, series, &rungs);
            assert_ne!(whole.memory, Memory::System);
            assert!(whole.rungs.iter().all(|r| r.memory == whole.memory && r.download.is_none()));
        }
        let mut half = device(Family::Nvidia, series);
        half.encoders.remove(&Codec::H264);
        let rungs = [requests(Codec::H264)[0], requests(Codec::H265)[0]];
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, Some(&half), &[SoftwareEncoder::X264]).unwrap();
        let mixed = plan(&choice, series, &rungs);
        assert_eq!(mixed.rungs[0].memory, Memory::Cuda);
        assert_eq!(mixed.rungs[0].download.as_ref().unwrap().factory, "cudadownload");
        assert_eq!((mixed.rungs[0].encoder.factory.as_str(), mixed.rungs[0].format), ("x264enc", "I420"));
        assert!(mixed.rungs[1].download.is_none());
    }
}
