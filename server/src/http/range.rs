//! `Range` on resources that are there as a whole (RFC 9110 §14).

/// What a Range header asks of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// 200 with everything: no range, one that cannot be read, or several (answered whole, so that overlapping ranges
    /// can never multiply the bytes sent).
    Whole,
    /// 206 with `length` bytes from `start` on.
    Span { start: u64, length: u64 },
    /// 416.
    Unsatisfiable,
}

pub fn select(header: Option<&str>, total: u64) -> Selected {
    let Some(ranges) = header.and_then(|h| h.trim().split_once('=')) else { return Selected::Whole };
    let (unit, spec) = ranges;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Selected::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Selected::Whole };
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix.min(total) {
            0 => Selected::Unsatisfiable,
            length => Selected::Span { start: total - length, length },
        },
        (Some(start), None) if last.is_empty() => span(start, u64::MAX, total),
        (Some(start), Some(last)) if last >= start => span(start, last, total),
        // RFC 9110 §14.2: an invalid range is ignored.
        _ => Selected::Whole,
    }
}

fn span(start: u64, last: u64, total: u64) -> Selected {
    if start >= total {
        return Selected::Unsatisfiable;
    }
    Selected::Span { start, length: last.min(total - 1) - start + 1 }
}

/// Digits only; more than a u64 holds counts as its maximum (clients send 9007199254740991 and larger for "the end").
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges() {
        let span = |start, length| Selected::Span { start, length };
        for (header, expected) in [
            ("bytes=0-0", span(0, 1)),
            ("bytes=0-99", span(0, 100)),
            ("bytes=10-9007199254740991", span(10, 90)),
            ("bytes=10-99999999999999999999999", span(10, 90)),
            ("Bytes = 10-", span(10, 90)),
            ("bytes=-1", span(99, 1)),
            ("bytes=-1000", span(0, 100)),
            ("bytes=99-", span(99, 1)),
            ("bytes=100-", Selected::Unsatisfiable),
            ("bytes=99999999999999999999-", Selected::Unsatisfiable),
            ("bytes=-0", Selected::Unsatisfiable),
            ("bytes=5-2", Selected::Whole),
            ("bytes=-", Selected::Whole),
            ("bytes=a-b", Selected::Whole),
            ("bytes=1-2-3", Selected::Whole),
            ("bytes=+1-2", Selected::Whole),
            ("bytes=0-1,5-6", Selected::Whole),
            ("lines=1-2", Selected::Whole),
            ("bytes", Selected::Whole),
            ("", Selected::Whole),
        ] {
            assert_eq!(select(Some(header), 100), expected, "{header}");
        }
        assert_eq!(select(None, 100), Selected::Whole);
        assert_eq!(select(Some("bytes=0-"), 0), Selected::Unsatisfiable);
        assert_eq!(select(Some("bytes=-5"), 0), Selected::Unsatisfiable);
    }
}
