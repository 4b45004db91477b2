//! A bit reader over a NAL unit's payload that cannot run past the end and skips emulation prevention bytes (§7.3.1).

use super::Refused;

pub struct Bits<'a> {
    data: &'a [u8],
    /// Next byte to load.
    at: usize,
    zeros: u8,
    /// Loaded, unread bits of the present byte, left-aligned.
    byte: u8,
    left: u8,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, zeros: 0, byte: 0, left: 0 }
    }

    pub fn bit(&mut self) -> Result<bool, Refused> {
        if self.left == 0 {
            let mut byte = *self.data.get(self.at).ok_or(Refused::Short)?;
            self.at += 1;
            if self.zeros >= 2 && byte == 3 {
                // emulation_prevention_three_byte
                byte = *self.data.get(self.at).ok_or(Refused::Short)?;
                self.at += 1;
                self.zeros = 0;
            }
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
            self.byte = byte;
            self.left = 8;
        }
        let bit = self.byte & 0x80 != 0;
        self.byte <<= 1;
        self.left -= 1;
        Ok(bit)
    }

    /// u(n), n <= 32.
    pub fn bits(&mut self, n: u32) -> Result<u32, Refused> {
        let mut value = 0;
        for _ in 0..n {
            value = value << 1 | u32::from(self.bit()?);
        }
        Ok(value)
    }

    /// ue(v) (§9.1), at most 2^32 - 2.
    pub fn ue(&mut self) -> Result<u32, Refused> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return Err(Refused::Bounds("Exp-Golomb code"));
            }
        }
        Ok((1u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// ue(v) that must not pass `max`.
    pub fn ue_max(&mut self, max: u32, what: &'static str) -> Result<u32, Refused> {
        let value = self.ue()?;
        if value > max { Err(Refused::Bounds(what)) } else { Ok(value) }
    }

    /// se(v) (§9.1.1).
    pub fn se(&mut self) -> Result<i32, Refused> {
        let k = i64::from(self.ue()?);
        let value = if k % 2 == 1 { (k + 1) / 2 } else { -(k / 2) };
        i32::try_from(value).map_err(|_| Refused::Bounds("Exp-Golomb code"))
    }
}

#[cfg(test)]
pub(crate) mod write {
    //! The reader's counterpart, for tests.

    #[derive(Default)]
    pub struct BitWriter {
        bits: Vec<bool>,
    }

    impl BitWriter {
        pub fn u(&mut self, n: u32, v: u32) -> &mut Self {
            for i in (0..n).rev() {
                self.bits.push(v >> i & 1 == 1);
            }
            self
        }
        pub fn ue(&mut self, v: u32) -> &mut Self {
            let v = u64::from(v) + 1;
            let n = 64 - v.leading_zeros();
            for _ in 1..n {
                self.bits.push(false);
            }
            for i in (0..n).rev() {
                self.bits.push(v >> i & 1 == 1);
            }
            self
        }
        pub fn se(&mut self, v: i32) -> &mut Self {
            self.ue(if v > 0 { 2 * v as u32 - 1 } else { 2 * v.unsigned_abs() })
        }
        /// Stop bit, alignment and emulation prevention.
        pub fn finish(&self, header: u8) -> Vec<u8> {
            let mut bits = self.bits.clone();
            bits.push(true);
            while !bits.len().is_multiple_of(8) {
                bits.push(false);
            }
            let mut out = vec![header];
            let mut zeros = 0;
            for c in bits.chunks(8) {
                let b = c.iter().fold(0u8, |a, &b| a << 1 | u8::from(b));
                if zeros >= 2 && b <= 3 {
                    out.push(3);
                    zeros = 0;
                }
                zeros = if b == 0 { zeros + 1 } else { 0 };
                out.push(b);
            }
            out
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn codes_round_trip_through_emulation_prevention(
            values in prop::collection::vec((0u32..u32::MAX - 1, any::<i16>(), 0u32..33), 1..40)
        ) {
            let mut w = write::BitWriter::default();
            for &(a, b, n) in &values {
                w.ue(a).se(b.into()).u(n, 0);
            }
            let nal = w.finish(0x67);
            prop_assert!(!nal.windows(3).any(|w| w[0] == 0 && w[1] == 0 && w[2] <= 2));
            let mut r = Bits::new(&nal[1..]);
            for &(a, b, n) in &values {
                prop_assert_eq!(r.ue().unwrap(), a);
                prop_assert_eq!(r.se().unwrap(), i32::from(b));
                prop_assert_eq!(r.bits(n).unwrap(), 0);
            }
        }
    }
}
