//! The file of `--save`: what a device was measured to bear, for the placement of sessions.
//!
//! TOML, an array of `[[calibration]]` tables, one for each device, codec and preset; all keys are required:
//! - `device`: `"cpu"`, or the GPU's UUID or render node
//! - `codec`: of the encoded renditions, `"h264"`, `"h265"` or `"av1"`
//! - `preset`: as the ladder has it, `"p1"` or `"veryfast"`
//! - `encode_mps`: megapixels a second, all renditions of all sessions together, that the device encoded in real time
//! - `decode_mps`: the same of the sources that it decoded meanwhile: what was needed, not the most that there is
//! - `measured`: when, RFC 3339

use std::path::Path;

#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    pub device: String,
    pub codec: &'static str,
    pub preset: String,
    pub encode_mps: f64,
    pub decode_mps: f64,
    pub measured: String,
}

/// Puts `new` into the file in place of an older one of the same device, codec and preset. Comments are lost.
pub fn save(path: &Path, new: &Calibration) -> Result<(), String> {
    let old = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
    };
    let text = merge(&old, new).map_err(|problem| format!("{}: {problem}", path.display()))?;
    // A reader sees the old file or the new one.
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn merge(old: &str, new: &Calibration) -> Result<String, String> {
    let mut root = toml::from_str::<toml::Table>(old).map_err(|e| e.message().to_owned())?;
    let mut tables = match root.remove("calibration") {
        None => Vec::new(),
        Some(toml::Value::Array(tables)) => tables,
        Some(_) => return Err("`calibration` is no array of tables".to_owned()),
    };
    if let Some(key) = root.keys().next() {
        return Err(format!("is no calibration file: it has the key `{}`", key.escape_debug()));
    }
    let is = |table: &toml::Value, key: &str, value: &str| table.get(key).and_then(|v| v.as_str()) == Some(value);
    tables.retain(|t| !(is(t, "device", &new.device) && is(t, "codec", new.codec) && is(t, "preset", &new.preset)));
    // Hundredths are far below what two runs differ by.
    let mps = |value: f64| toml::Value::Float((value * 100.0).round() / 100.0);
    tables.push(toml::Value::Table(toml::Table::from_iter([
        ("device".to_owned(), new.device.clone().into()),
        ("codec".to_owned(), new.codec.into()),
        ("preset".to_owned(), new.preset.clone().into()),
        ("encode_mps".to_owned(), mps(new.encode_mps)),
        ("decode_mps".to_owned(), mps(new.decode_mps)),
        ("measured".to_owned(), new.measured.clone().into()),
    ])));
    root.insert("calibration".to_owned(), toml::Value::Array(tables));
    let text = toml::to_string(&root).map_err(|e| e.to_string())?;
    Ok(format!("# Written by `fishladder density --save`.\n\n{text}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn calibration(device: &str, preset: &str, encode_mps: f64) -> Calibration {
        Calibration {
            device: device.into(),
            codec: "h264",
            preset: preset.into(),
            encode_mps,
            decode_mps: 51.84,
            measured: "2026-11-21T10:00:00.000Z".into(),
        }
    }

    #[test]
    fn a_measurement_takes_the_place_of_the_one_before_and_leaves_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.toml");
        for (device, preset, mps) in
            [("cpu", "p1", 100.0), ("cpu", "p3", 70.0), ("GPU-1", "p1", 900.0), ("cpu", "p1", 155.520_4)]
        {
            save(&path, &calibration(device, preset, mps)).unwrap();
        }
        let root: toml::Table = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let tables = root["calibration"].as_array().unwrap();
        let seen: Vec<_> = tables
            .iter()
            .map(|t| {
                (t["device"].as_str().unwrap(), t["preset"].as_str().unwrap(), t["encode_mps"].as_float().unwrap())
            })
            .collect();
        assert_eq!(seen, [("cpu", "p3", 70.0), ("GPU-1", "p1", 900.0), ("cpu", "p1", 155.52)]);
        let keys: Vec<&str> = tables[2].as_table().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 6, "{keys:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fishladder.toml");
        for text in ["[http]\nlisten = \"127.0.0.1:1\"\n", "calibration = 5\n", "calibration = [\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(save(&path, &calibration("cpu", "p1", 1.0)).is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(save(&folder.path().join("no/such/folder.toml"), &calibration("cpu", "p1", 1.0)).is_err());
    }
}
