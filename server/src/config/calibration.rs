//! The file of `devices.calibration`: what devices were measured to bear, as `fishladder density --save` writes it.

use std::path::{Path, PathBuf};

use engine::backend::Preset as EnginePreset;
use placement::DeviceKind;
use placement::device::{Codec, Evidence, PixelRate, Preset, SourceCodec};
use serde_json::Value;

use super::read::{Fault, Section, text};

/// Megapixels a second of a whole device; far above what any has.
const MOST_MPS: f64 = 1e6;

/// What was measured, and where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationFile {
    pub path: PathBuf,
    pub measured: Vec<Calibration>,
}

/// One measurement, of all engines of a device together.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// A GPU's UUID or render node, `jetson`, `cpu`, or a simulated device's name.
    pub device: String,
    pub codec: Codec,
    pub preset: Preset,
    pub encode: PixelRate,
    /// What the sources took meanwhile: at least so much can be decoded.
    pub decode: PixelRate,
}

impl CalibrationFile {
    /// Faults are of the key `at`, and name the file and the place in it.
    pub fn load(path: &Path, at: &str, faults: &mut Vec<Fault>) -> Self {
        let fault = |problem: String| Fault::new(at, format!("{}: {problem}", path.display()));
        let root = match std::fs::read_to_string(path) {
            Ok(text) => super::document(&text).map_err(|f| fault(f.problem)),
            Err(e) => Err(Fault::new(at, format!("cannot read {}: {e}", path.display()))),
        };
        let mut inner = Vec::new();
        let measured = match root {
            Ok(root) => read(root, &mut inner),
            Err(fault) => {
                faults.push(fault);
                Vec::new()
            }
        };
        faults.extend(inner.into_iter().map(|f| fault(f.to_string())));
        Self { path: path.to_owned(), measured }
    }

    /// The devices that it knows, each once.
    pub fn devices(&self) -> Vec<&str> {
        let mut devices: Vec<&str> = self.measured.iter().map(|c| c.device.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// Puts the measurements of `device` in place of its kind's figures. A codec's presets that were not measured keep their
    /// relation to the measured one that is nearest. Whether there were any.
    pub fn apply(&self, device: &str, kind: &mut DeviceKind) -> bool {
        let own: Vec<&Calibration> = self.measured.iter().filter(|c| c.device == device).collect();
        let table = kind.encode;
        for codec in Codec::ALL {
            for step in 1..=Preset::COUNT as u8 {
                let Some(preset) = Preset::new(step) else { continue };
                let known = table.of(codec, preset);
                let of_codec = own.iter().filter(|c| c.codec == codec);
                let Some(nearest) = of_codec.min_by_key(|c| c.preset.number().abs_diff(step)) else { continue };
                let each = nearest.encode.0 / u64::from(kind.encode_engines.max(1));
                let reference = table.of(codec, nearest.preset).0;
                // A kind whose table has nothing here can do it all the same: it was measured.
                let rate = match (nearest.preset == preset, reference) {
                    (true, _) => each,
                    (false, 0) => continue,
                    (false, reference) => scaled(known.0, each, reference),
                };
                if let Some(slot) =
                    kind.encode.0.get_mut(codec as usize).and_then(|row| row.get_mut(usize::from(step) - 1))
                {
                    *slot = PixelRate(rate);
                }
            }
        }
        // The sources of `density` are H.264.
        let engines = u64::from(kind.decode_engines.max(1));
        let most = own.iter().map(|c| c.decode.0 / engines).max().unwrap_or_default();
        if let Some(slot) = kind.decode.0.get_mut(SourceCodec::H264 as usize) {
            slot.0 = slot.0.max(most);
        }
        if !own.is_empty() {
            kind.evidence.speed = Evidence::Declared;
        }
        !own.is_empty()
    }
}

fn scaled(value: u64, by: u64, of: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

fn read(root: Value, faults: &mut Vec<Fault>) -> Vec<Calibration> {
    let mut root = Section::new("", root, faults);
    let tables = match root.take("calibration") {
        None => Vec::new(),
        Some(Value::Array(tables)) => tables,
        Some(_) => {
            root.fault("calibration", "must be an array of tables, [[calibration]]");
            Vec::new()
        }
    };
    let mut measured: Vec<Calibration> = Vec::new();
    for (n, table) in tables.into_iter().enumerate() {
        let at = format!("calibration[{n}]");
        let Some(new) = entry(table, &at, root.faults()) else { continue };
        if measured.iter().any(|c| (&c.device, c.codec, c.preset) == (&new.device, new.codec, new.preset)) {
            root.faults().push(Fault::new(at, "measures the same device, codec and preset as one before it"));
            continue;
        }
        measured.push(new);
    }
    root.finish();
    measured
}

fn entry(table: Value, at: &str, faults: &mut Vec<Fault>) -> Option<Calibration> {
    let mut s = Section::new(at, table, faults);
    let device = s.required("device", |v| match text(v)? {
        t if t.is_empty() => Err("must name a device".to_owned()),
        t => Ok(t),
    });
    let codec = s.required("codec", |v| {
        let name = text(v)?;
        Codec::ALL.into_iter().find(|c| c.name() == name).ok_or_else(|| "must be h264, h265 or av1".to_owned())
    });
    let preset = s.required("preset", |v| {
        let known = EnginePreset::parse(&text(v)?).and_then(|p| Preset::new(p.step()));
        known.ok_or_else(|| "must be one of x264's words or p1 to p7".to_owned())
    });
    let (encode, decode) = (s.required("encode_mps", rate), s.required("decode_mps", rate));
    let measured = s.required("measured", text);
    s.finish();
    measured?;
    Some(Calibration { device: device?, codec: codec?, preset: preset?, encode: encode?, decode: decode? })
}

/// Megapixels a second.
fn rate(v: &Value) -> Result<PixelRate, String> {
    match v.as_f64() {
        // In range, so nothing is cut off but a fraction of a pixel.
        Some(mps) if mps > 0.0 && mps <= MOST_MPS => Ok(PixelRate((mps * 1e6) as u64)),
        _ => Err(format!("must be megapixels a second, above 0 and at most {MOST_MPS}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use placement::catalogue;
    use placement::device::DeviceKind;

    use super::*;

    const ENTRY: &str = "[[calibration]]\ndevice = \"GPU-1\"\ncodec = \"h264\"\npreset = \"p1\"\nencode_mps = 300.5\n\
                         decode_mps = 100.0\nmeasured = \"2026-11-21T10:00:00.000Z\"\n";

    fn load(text: &str) -> (CalibrationFile, Vec<Fault>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.toml");
        std::fs::write(&path, text).unwrap();
        let mut faults = Vec::new();
        let file = CalibrationFile::load(&path, "devices.calibration", &mut faults);
        (file, faults)
    }

    fn speed(kind: &DeviceKind, preset: u8) -> u64 {
        kind.encode.of(Codec::H264, Preset::new(preset).unwrap()).0
    }

    #[test]
    fn a_measured_preset_takes_the_tables_place_and_the_others_keep_their_relation_to_it() {
        let (file, faults) = load(ENTRY);
        assert_eq!((faults, file.devices()), (vec![], vec!["GPU-1"]));
        let table = catalogue::find("l4").unwrap();
        let mut kind = table.clone();
        assert!(!file.apply("GPU-2", &mut kind));
        assert_eq!(kind, table);
        assert!(file.apply("GPU-1", &mut kind));
        let each = 300_500_000 / u64::from(table.encode_engines);
        assert_eq!(speed(&kind, 1), each);
        assert_eq!(speed(&kind, 4), scaled(speed(&table, 4), each, speed(&table, 1)));
        assert_eq!(
            kind.encode.of(Codec::H265, Preset::new(1).unwrap()),
            table.encode.of(Codec::H265, Preset::new(1).unwrap())
        );
        // 100 MP/s is what the sources took; more than that is known of an L4.
        assert_eq!(kind.decode, table.decode);
        assert_eq!(kind.evidence.speed, Evidence::Declared);
    }

    #[test]
    fn each_preset_goes_by_the_measurement_that_is_nearest() {
        let second = ENTRY.replace("p1", "medium").replace("300.5", "50").replace("100.0", "1e5");
        let (file, faults) = load(&format!("{ENTRY}{second}"));
        assert_eq!(faults, []);
        let table = catalogue::find("t4").unwrap();
        let mut kind = table.clone();
        file.apply("GPU-1", &mut kind);
        let engines = u64::from(table.encode_engines);
        assert_eq!((speed(&kind, 1), speed(&kind, 5)), (300_500_000 / engines, 50_000_000 / engines));
        assert_eq!(speed(&kind, 7), scaled(speed(&table, 7), 50_000_000 / engines, speed(&table, 5)));
        assert_eq!(kind.decode.of(SourceCodec::H264).0, 100_000_000_000 / u64::from(table.decode_engines));
    }

    #[test]
    fn all_faults_are_told_with_the_file_and_the_place_in_it() {
        let (_, faults) = load(&format!(
            "colour = 1\n{ENTRY}{}{}",
            ENTRY
                .replace("300.5", "-1")
                .replace("p1", "p8")
                .replace("h264", "h263")
                .replace("GPU-1", "")
                .replace("100.0", "\"x\"")
                .replace("measured", "mesured"),
            ENTRY.replace("300.5", "2")
        ));
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        for place in [
            "colour: ",
            "calibration[1].device: ",
            "calibration[1].codec: ",
            "calibration[1].preset: ",
            "calibration[1].encode_mps: ",
            "calibration[1].decode_mps: ",
            "calibration[1].measured: is missing",
            "calibration[1].mesured: unknown key",
            "calibration[2]: measures the same device",
        ] {
            let found = texts
                .iter()
                .any(|t| t.starts_with("devices.calibration: /") && t.contains(&format!("calibration.toml: {place}")));
            assert!(found, "{place} is not in {texts:#?}");
        }
        assert_eq!(texts.len(), 9, "{texts:#?}");
        assert_eq!(load("calibration = 5").1.len(), 1);
        assert_eq!(load("[[calibration]").1.len(), 1);
        let mut faults = Vec::new();
        CalibrationFile::load(Path::new("/nonexistent/c.toml"), "devices.calibration", &mut faults);
        assert!(faults[0].problem.starts_with("cannot read /nonexistent/c.toml"), "{faults:?}");
    }
}
