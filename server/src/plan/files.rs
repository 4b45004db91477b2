//! The two files of `fishladder plan`: all faults at once with their key paths.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use placement::device::{
    Codec, DecodeRates, EncodeRates, EncoderKind, Evidence, Evidences, MAX_ENGINES, PixelRate, Preset, SourceCodec,
};
use placement::placer::Stay;
use placement::sim::{Class, Workload};
use placement::{Demand, DeviceKind, Fleet, Headroom, Ladder, Picture, Policy, Rung, Settings, catalogue};
use serde_json::Value;

use crate::config::read::{Section, duration, flag, integer, text};
use crate::config::{Fault, document};

/// Both files.
#[derive(Debug)]
pub struct Plan {
    pub workload: Workload,
    pub fleet: PricedFleet,
}

#[derive(Debug)]
pub struct PricedFleet {
    pub fleet: Fleet,
    pub settings: Settings,
    /// By kind: an hour of one device.
    pub prices: Vec<f64>,
    /// Part of the live sessions that may move in a minute.
    pub migrations: f64,
}

/// Most devices of one table; all tables together are bounded by the placer.
const MAX_COUNT: u64 = 100_000;
/// Ladders and kinds of sessions in a file.
const MAX_TABLES: usize = 1000;
/// Longest simulation, hours.
const MAX_HOURS: f64 = 24.0 * 366.0;

/// None where there are faults, which may also lie in what it returns.
pub fn read_workload(toml: &str, faults: &mut Vec<Fault>) -> Option<Workload> {
    let root = root(toml, "workload", faults)?;
    let before = faults.len();
    let mut root = Section::new("", root, faults);
    let per_hour = root.required("arrivals_per_hour", decimal(0.001, 1_000_000.0));
    let hours = root.get("hours", 48.0, decimal(0.1, MAX_HOURS));
    let peak_hour = root.get("peak_hour", 20.0, decimal(0.0, 24.0));
    let mut ladders = BTreeMap::new();
    for (name, value) in some(&mut root, "ladders") {
        let path = format!("ladders.{}", name.escape_debug());
        let demand = ladder(value, &path, root.faults());
        ladders.insert(name, demand);
    }
    let mut classes = Vec::new();
    for (name, value) in some(&mut root, "sessions") {
        let path = format!("sessions.{}", name.escape_debug());
        classes.extend(class(name, value, &path, &ladders, root.faults()));
    }
    let weights: f64 = classes.iter().map(|c| c.weight).sum();
    if let Some(per_hour) = per_hour {
        let most = placement::sim::MAX_ARRIVALS as f64;
        if per_hour * hours > most {
            root.fault("arrivals_per_hour", format!("too many sessions: {:.0}; at most {most:.0}", per_hour * hours));
        }
        if !classes.is_empty() && weights <= 0.0 {
            root.fault("sessions", "at least one weight must be above 0");
        }
    }
    root.finish();
    let workload = Workload { classes, per_hour: per_hour.unwrap_or_default(), peak_hour, hours };
    (faults.len() == before).then_some(workload)
}

/// None where there are faults.
pub fn read_fleet(toml: &str, faults: &mut Vec<Fault>) -> Option<PricedFleet> {
    let root = root(toml, "fleet", faults)?;
    let before = faults.len();
    let mut root = Section::new("", root, faults);
    let policy = root.get("policy", Policy::Consolidate, |v| match text(v)?.as_str() {
        "consolidate" => Ok(Policy::Consolidate),
        "spread" => Ok(Policy::Spread),
        _ => Err("must be \"consolidate\" or \"spread\"".to_owned()),
    });
    let defaults = Headroom::default();
    let percent = |v: &Value| integer(1, 100)(v).map(|n| u8::try_from(n).unwrap_or(100));
    let headroom = Headroom {
        engines: root.get("engines", defaults.engines, percent),
        vram: root.get("vram", defaults.vram, percent),
        ..defaults
    };
    let cap = root.get("geforce_sessions", u64::from(catalogue::GEFORCE_SESSIONS), integer(1, 10_000));
    let migrations = root.get("migrations", 0.0, decimal(0.0, 100.0)) / 100.0;
    let mut fleet = Fleet::default();
    let mut prices = Vec::new();
    for (name, value) in some(&mut root, "devices") {
        let path = format!("devices.{}", name.escape_debug());
        let Some(group) = devices(name, value, &path, root.faults()) else { continue };
        let first = fleet.devices.len();
        fleet.add(group.kind, group.count, group.per_host, u32::try_from(cap).ok());
        for device in fleet.devices.iter_mut().skip(first) {
            device.calibration = group.calibration;
        }
        prices.push(group.price);
    }
    for fault in fleet.faults() {
        root.fault("devices", fault.to_string());
    }
    root.finish();
    let settings = Settings { policy, headroom, ..Settings::default() };
    (faults.len() == before).then_some(PricedFleet { fleet, settings, prices, migrations })
}

/// A file's tree; where it is no TOML the fault says which file.
fn root(toml: &str, file: &str, faults: &mut Vec<Fault>) -> Option<Value> {
    match document(toml) {
        Ok(root) => Some(root),
        Err(fault) => {
            faults.push(Fault::new(file, fault.problem));
            None
        }
    }
}

/// Named entries of which there must be at least one.
fn some(root: &mut Section<'_>, key: &'static str) -> Vec<(String, Value)> {
    let entries = root.entries(key);
    if entries.is_empty() {
        root.fault(key, "at least one is needed");
    }
    if entries.len() > MAX_TABLES {
        root.fault(key, format!("{} tables; at most {MAX_TABLES}", entries.len()));
        return Vec::new();
    }
    entries
}

/// None where it has faults, which are reported.
fn ladder(value: Value, path: &str, faults: &mut Vec<Fault>) -> Option<Arc<Demand>> {
    let before = faults.len();
    let mut table = Section::new(path, value, faults);
    let mut source = table.section("source");
    let source_codec = source.required("codec", named(&SourceCodec::ALL, SourceCodec::name));
    let source_picture = picture(&mut source);
    source.finish();
    let mut rungs = Vec::new();
    match table.take("rungs") {
        Some(Value::Array(list)) => {
            for (n, value) in list.into_iter().enumerate() {
                let path = format!("{}[{n}]", table.path("rungs"));
                let mut rung = Section::new(&path, value, table.faults());
                let codec = rung.required("codec", named(&Codec::ALL, Codec::name));
                let preset = rung.optional("preset", preset).or(Preset::new(4));
                let picture = picture(&mut rung);
                rung.finish();
                if let (Some(codec), Some(preset), Some(picture)) = (codec, preset, picture) {
                    rungs.push(Rung { codec, preset, picture });
                }
            }
        }
        Some(_) => table.fault("rungs", "must be a list of tables"),
        None => table.fault("rungs", "is missing"),
    }
    table.finish();
    if faults.len() > before {
        return None;
    }
    match (Ladder { source: (source_codec?, source_picture?), rungs }).demand() {
        Ok(demand) => Some(Arc::new(demand)),
        Err(problems) => {
            faults.extend(problems.iter().map(|p| Fault::new(path, p.to_string())));
            None
        }
    }
}

fn picture(table: &mut Section<'_>) -> Option<Picture> {
    let side = |v: &Value| integer(2, 8192)(v).map(|n| u32::try_from(n).unwrap_or(8192));
    let height = table.required("height", side);
    let width = table.optional("width", side);
    let fps = table.get("fps", 30, integer(1, 480));
    let height = height?;
    // 16:9 to the nearest even number.
    let width = width.unwrap_or((height * 16 / 9).div_ceil(2) * 2);
    Some(Picture { width, height, frame_rate: (u32::try_from(fps).ok()?, 1) })
}

fn class(
    name: String,
    value: Value,
    path: &str,
    ladders: &BTreeMap<String, Option<Arc<Demand>>>,
    faults: &mut Vec<Fault>,
) -> Option<Class> {
    let mut table = Section::new(path, value, faults);
    let known = |v: &Value| {
        let name = text(v)?;
        ladders.get(&name).cloned().ok_or_else(|| {
            format!("no such ladder; there are: {}", ladders.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
        })
    };
    let demand = table.required("ladder", known);
    let weight = table.get("weight", 1.0, decimal(0.0, 1e9));
    let mean = table.required("mean", duration(Duration::from_secs(1), Duration::from_secs(366 * 24 * 3600)));
    let wave = table.get("wave", 0.0, decimal(0.0, 1.0));
    let stay = table.get("stay", Stay::Short, |v| match text(v)?.as_str() {
        "short" => Ok(Stay::Short),
        "long" => Ok(Stay::Long),
        _ => Err("must be \"short\" or \"long\"".to_owned()),
    });
    let software = table.get("software", false, flag);
    table.finish();
    Some(Class { name, demand: demand??, software, weight, hours: mean?.as_secs_f64() / 3600.0, wave, stay })
}

struct Group {
    kind: DeviceKind,
    count: u32,
    per_host: u32,
    price: f64,
    calibration: u16,
}

fn devices(name: String, value: Value, path: &str, faults: &mut Vec<Fault>) -> Option<Group> {
    let before = faults.len();
    let mut table = Section::new(path, value, faults);
    let count = table.required("count", integer(1, MAX_COUNT));
    let per_host = table.get("per_host", 1, integer(1, 1000));
    let price = table.get("price", 0.0, decimal(0.0, 1e6));
    let calibration = table.get("calibration", 100, integer(1, 1000));
    let mut kind = if table.has("kind") {
        table.required("kind", |v| {
            catalogue::find(&text(v)?).ok_or_else(|| {
                format!("not in the catalogue; there are: {}", catalogue::names().collect::<Vec<_>>().join(", "))
            })
        })
    } else {
        own_kind(&mut table)
    };
    if let Some(speed) = table.optional("cpu_encode", integer(1, 1_000_000)) {
        match kind {
            Some(k) if k.encoder == EncoderKind::None => {
                kind = Some(k.with_software_encoder(1, PixelRate::megapixels(speed)));
            }
            Some(_) => table.fault("cpu_encode", "this device has an encoder of its own"),
            None => {}
        }
    }
    table.finish();
    if faults.len() > before {
        return None;
    }
    Some(Group {
        kind: DeviceKind { name, ..kind? },
        count: u32::try_from(count?).ok()?,
        per_host: u32::try_from(per_host).ok()?,
        price,
        calibration: u16::try_from(calibration).ok()?,
    })
}

/// A device that isn't in the catalogue.
fn own_kind(table: &mut Section<'_>) -> Option<DeviceKind> {
    let engines = integer(0, MAX_ENGINES as u64);
    let encode_engines = table.required("encode_engines", &engines);
    let decode_engines = table.required("decode_engines", &engines);
    let speed = integer(1, 1_000_000);
    let encode = table.required("encode", &speed);
    let decode = table.required("decode", &speed);
    let vram = table.required("vram_gib", integer(1, 10_000));
    let encode_engines = u8::try_from(encode_engines?).ok()?;
    let o = Evidence::Declared;
    Some(DeviceKind {
        name: String::new(),
        encoder: if encode_engines == 0 { EncoderKind::None } else { EncoderKind::Hardware },
        encode_engines,
        encode: EncodeRates::flat(&Codec::ALL, PixelRate::megapixels(encode?)),
        decode_engines: u8::try_from(decode_engines?).ok()?,
        decode: DecodeRates::flat(&SourceCodec::ALL, PixelRate::megapixels(decode?)),
        vram: u32::try_from(vram? * 1024).ok()?,
        consumer: false,
        evidence: Evidences { engines: o, speed: o, vram: o },
    })
}

fn decimal(least: f64, most: f64) -> impl Fn(&Value) -> Result<f64, String> {
    move |v| match v.as_f64() {
        Some(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}

fn preset(v: &Value) -> Result<Preset, String> {
    let number = text(v)?.strip_prefix('p').and_then(|n| n.parse().ok()).and_then(Preset::new);
    number.ok_or_else(|| "must be \"p1\" to \"p7\"".to_owned())
}

fn named<T: Copy>(all: &'static [T], name: fn(T) -> &'static str) -> impl Fn(&Value) -> Result<T, String> {
    move |v| {
        let wanted = text(v)?;
        all.iter()
            .copied()
            .find(|c| name(*c) == wanted)
            .ok_or_else(|| format!("must be one of {}", all.iter().map(|c| name(*c)).collect::<Vec<_>>().join(", ")))
    }
}
