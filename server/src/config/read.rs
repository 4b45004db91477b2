//! Reading a table of settings: typed values with units, every fault kept with its key path, unknown keys found.
//!
//! Works on JSON values, into which TOML is turned first, so that the API's bodies and the configuration obey the same rules.

use std::time::Duration;

use serde_json::{Map, Value};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Key path, for example `hls.part_target`; empty where the whole document is meant.
    pub path: String,
    pub problem: String,
}

impl Fault {
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(&self.problem) } else { write!(f, "{}: {}", self.path, self.problem) }
    }
}

/// A table that is being read: each key is taken once; `finish` reports what nobody took.
pub struct Section<'f> {
    path: String,
    table: Map<String, Value>,
    known: Vec<&'static str>,
    faults: &'f mut Vec<Fault>,
}

impl<'f> Section<'f> {
    /// A value that is no table is a fault and reads as an empty table.
    pub fn new(path: &str, value: Value, faults: &'f mut Vec<Fault>) -> Self {
        let table = match value {
            Value::Object(table) => table,
            Value::Null => Map::new(),
            other => {
                faults.push(Fault::new(path, format!("must be a table, not {}", kind(&other))));
                Map::new()
            }
        };
        Self { path: path.to_owned(), table, known: Vec::new(), faults }
    }

    pub fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub fn fault(&mut self, key: &str, problem: impl Into<String>) {
        let path = self.path(key);
        self.faults.push(Fault::new(path, problem));
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The raw value of `key`, which is known from now on.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// `key` as `parse` understands it; `default` where it is absent or wrong.
    pub fn get<T>(&mut self, key: &'static str, default: T, parse: impl FnOnce(&Value) -> Result<T, String>) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    pub fn optional<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        match parse(&value) {
            Ok(v) => Some(v),
            Err(problem) => {
                self.fault(key, problem);
                None
            }
        }
    }

    pub fn required<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        if !self.has(key) {
            self.known.push(key);
            self.fault(key, "is missing");
            return None;
        }
        self.optional(key, parse)
    }

    /// A sub-table; empty where it is absent.
    pub fn section(&mut self, key: &'static str) -> Section<'_> {
        let value = self.take(key).unwrap_or(Value::Null);
        let path = self.path(key);
        Section::new(&path, value, self.faults)
    }

    /// All entries of a table whose keys are names, for example `channels`.
    pub fn entries(&mut self, key: &'static str) -> Vec<(String, Value)> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Object(map)) => map.into_iter().collect(),
            Some(other) => {
                self.fault(key, format!("must be a table of named entries, not {}", kind(&other)));
                Vec::new()
            }
        }
    }

    pub fn faults(&mut self) -> &mut Vec<Fault> {
        self.faults
    }

    /// Reports every key that was never asked for.
    pub fn finish(self) {
        for key in self.table.keys() {
            let hint = match closest(key, &self.known) {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None if self.known.is_empty() => "unknown key".to_owned(),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            // The key comes from outside: shown escaped, so that it cannot forge lines of a log.
            self.faults.push(Fault::new(join(&self.path, &key.escape_debug().to_string()), hint));
        }
    }
}

pub fn text(v: &Value) -> Result<String, String> {
    v.as_str().map(str::to_owned).ok_or_else(|| format!("must be a text, not {}", kind(v)))
}

pub fn flag(v: &Value) -> Result<bool, String> {
    v.as_bool().ok_or_else(|| format!("must be true or false, not {}", kind(v)))
}

/// Any text that `T` can be parsed from; `what` names it in the fault.
pub fn parsed<T: std::str::FromStr>(what: &'static str) -> impl Fn(&Value) -> Result<T, String> {
    move |v| text(v)?.parse().map_err(|_| format!("must be {what}"))
}

pub fn integer(least: u64, most: u64) -> impl Fn(&Value) -> Result<u64, String> {
    move |v| match v.as_u64() {
        Some(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("must be a whole number from {least} to {most}")),
    }
}

/// `200ms`, `2s`, `1.5s`, `3m`, `1h`; a bare number is refused because its unit would be a guess.
pub fn duration(least: Duration, most: Duration) -> impl Fn(&Value) -> Result<Duration, String> {
    move |v| {
        let problem = "must be a duration with a unit, for example \"200ms\", \"2s\" or \"1m\"";
        let text = v.as_str().ok_or(problem)?;
        let micros = quantity(text, &[("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)])
            .ok_or(problem)?;
        let d = Duration::from_micros(micros);
        if d < least || d > most {
            return Err(format!("must be from {least:?} to {most:?}, not {text}"));
        }
        Ok(d)
    }
}

/// `3500k`, `3.5M` or a plain number of bits a second.
pub fn bit_rate(least: u32, most: u32) -> impl Fn(&Value) -> Result<u32, String> {
    move |v| {
        let problem = "must be a bit rate, for example \"1200k\" or \"3.5M\"";
        let bits = match v {
            Value::String(s) => quantity(s, &[("k", 1_000), ("M", 1_000_000), ("", 1)]).ok_or(problem)?,
            other => other.as_u64().ok_or(problem)?,
        };
        match u32::try_from(bits) {
            Ok(n) if (least..=most).contains(&n) => Ok(n),
            _ => Err(format!("must be from {}k to {}k bits a second", least / 1000, most / 1000)),
        }
    }
}

/// A decimal number followed by one of the units, in the smallest unit; integers only, so nothing is rounded silently.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u64>().ok()?.checked_mul(factor)?;
    if part % scale != 0 {
        return None;
    }
    whole.checked_add(part / scale)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// The known key that was probably meant: at most a third of its letters differ.
fn closest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > 64 {
        return None;
    }
    known.iter().map(|k| (distance(key, k), *k)).filter(|(d, k)| *d <= k.len().div_ceil(3)).min().map(|(_, k)| k)
}

/// Levenshtein's distance between two short keys.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let up = *cell;
            let best = (diagonal + usize::from(ca != *cb)).min(up + 1).min(left + 1);
            diagonal = up;
            left = best;
            *cell = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_keep_their_decimals_exactly() {
        let any = duration(Duration::ZERO, Duration::MAX);
        for (text, micros) in
            [("200ms", 200_000), ("2s", 2_000_000), ("1.5s", 1_500_000), ("0.033s", 33_000), ("1 m", 60_000_000)]
        {
            assert_eq!(any(&json!(text)), Ok(Duration::from_micros(micros)), "{text}");
        }
        for bad in ["", "s", "2", "-2s", "2 days", "1e3s", "1.s", ".5s", "99999999999999999999s", "0.0000001s", "２s"]
        {
            assert!(any(&json!(bad)).is_err(), "{bad}");
        }
        assert!(any(&json!(2)).is_err());
        let rate = bit_rate(1, u32::MAX);
        assert_eq!(rate(&json!("3500k")), Ok(3_500_000));
        assert_eq!(rate(&json!("3.5M")), Ok(3_500_000));
        assert_eq!(rate(&json!(128_000)), Ok(128_000));
        assert!(rate(&json!("3.5Mbit")).is_err());
        assert!(rate(&json!(-1)).is_err());
        assert!(rate(&json!("5000M")).is_err());
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(closest("part_taget", &["part_target", "window"]), Some("part_target"));
        assert_eq!(closest("colour", &["part_target", "window"]), None);
    }
}
