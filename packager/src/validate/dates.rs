//! Times as playlists write them: decimal seconds, and ISO 8601 dates.

/// Decimal seconds as microseconds; further digits are cut off.
pub(super) fn micros(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = digits(whole)?;
    let mut scaled = 0;
    let mut unit = 100_000;
    for byte in fraction.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        scaled += i64::from(byte - b'0') * unit;
        unit /= 10;
    }
    whole.checked_mul(1_000_000)?.checked_add(scaled)
}

/// `2026-11-20T10:11:12.345Z`, or with an offset, as microseconds of unix time.
pub(super) fn unix_micros(text: &str) -> Option<i64> {
    let (day, time) = text.split_once('T')?;
    let (year, rest) = day.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (digits(year)?, digits(month)?, digits(day)?);
    let (clock, zone) = time.split_at_checked(time.find(['Z', '+', '-'])?)?;
    let (hours, rest) = clock.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (hours, minutes, seconds) = (digits(hours)?, digits(minutes)?, micros(seconds)?);
    let in_calendar = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A leap second has the number 60.
    if !in_calendar || hours > 24 || minutes > 59 || seconds >= 61_000_000 {
        return None;
    }
    // Days from the civil calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hours) * 60 + minutes - east(zone)?) * 60_000_000 + seconds)
}

/// Minutes by which a zone is ahead: `Z`, `+02:00`, `-0530`, `+02`.
fn east(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = zone.split_at_checked(1)?;
    let (hours, minutes) = rest.split_at_checked(2)?;
    let minutes = minutes.strip_prefix(':').unwrap_or(minutes);
    let minutes = digits(hours)? * 60 + if minutes.is_empty() { 0 } else { digits(minutes)? };
    (minutes <= 24 * 60).then_some(if sign == "-" { -minutes } else { minutes })
}

/// A decimal number without sign, of at most twelve digits.
fn digits(text: &str) -> Option<i64> {
    let plain = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        for (text, expected) in [
            ("2", Some(2_000_000)),
            ("0.19999", Some(199_990)),
            ("1.2345678", Some(1_234_567)),
            ("", None),
            ("-1", None),
            ("1.x", None),
            ("9999999999999", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
        let base = Some(1_763_633_472_345_000);
        for text in ["2025-11-20T10:11:12.345Z", "2025-11-20T12:11:12.345+02:00", "2025-11-20T04:41:12.345-0530"] {
            assert_eq!(unix_micros(text), base, "{text}");
        }
        assert_eq!(unix_micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_micros("2024-02-29T00:00:00Z").map(|m| m / 1_000_000), Some(1_709_164_800));
        for bad in ["", "T", "2025-11-20", "2025-13-20T10:11:12Z", "2025-11-20T10:11:12", "2025-11-20T10:11:12+é"] {
            assert_eq!(unix_micros(bad), None, "{bad}");
        }
    }
}
