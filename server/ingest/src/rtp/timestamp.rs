//! Unwrapping of counters that wrap: 16-bit sequence numbers and 32-bit timestamps become 64 bits.
//!
//! The nearest value to the last one is meant, by signed distance, so reordering across the wrap works both ways.

/// RTP timestamps of one source. A 90 kHz clock wraps after 13 hours, a 48 kHz one after 25.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampUnwrapper {
    last: Option<i64>,
}

impl TimestampUnwrapper {
    pub fn unwrap(&mut self, timestamp: u32) -> i64 {
        let value = self.peek(timestamp);
        self.last = Some(value);
        value
    }

    /// The same without moving on: for timestamps that stand beside the media, as in sender reports.
    pub fn peek(&self, timestamp: u32) -> i64 {
        match self.last {
            // A wrap's room in front, so that what precedes the first packet does not fall below zero.
            None => i64::from(timestamp) + (1 << 32),
            Some(last) => last + i64::from(timestamp.wrapping_sub(last as u32) as i32),
        }
    }

    pub fn started(&self) -> bool {
        self.last.is_some()
    }
}

/// The 64-bit sequence number nearest to `last` that ends in `sequence`.
pub fn extend_sequence(last: u64, sequence: u16) -> u64 {
    last.wrapping_add_signed(i64::from(sequence.wrapping_sub(last as u16) as i16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_cross_the_wrap_forwards_and_reordered() {
        let mut t = TimestampUnwrapper::default();
        let first = t.unwrap(u32::MAX - 2999);
        assert_eq!(t.unwrap(0) - first, 3000);
        assert_eq!(t.unwrap(u32::MAX - 2999), first);
        assert_eq!(t.unwrap(3000) - first, 6000);
        assert_eq!(t.peek(0x7fff_ffff) - first, i64::from(0x7fff_ffffu32) + 3000);
    }

    #[test]
    fn sequence_numbers_cross_the_wrap_both_ways() {
        assert_eq!(extend_sequence(0x1_ffff, 0), 0x2_0000);
        assert_eq!(extend_sequence(0x2_0000, 0xffff), 0x1_ffff);
        assert_eq!(extend_sequence(0x2_0005, 3), 0x2_0003);
    }
}
