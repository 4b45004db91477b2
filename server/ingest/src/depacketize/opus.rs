//! Opus in RTP (RFC 7587): one packet, one access unit; its table-of-contents byte says how long it lasts.

/// Samples at 48 kHz of a well-formed Opus packet (RFC 6716 §3), `None` where it is not one.
pub fn samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    // §3.1, table 2: SILK 10, 20, 40, 60 ms; hybrid 10, 20 ms; CELT 2.5, 5, 10, 20 ms.
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        12..=15 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        // [R3]: two frames of equal size.
        1 if rest.len() % 2 == 0 => 2,
        1 => return None,
        2 => {
            // [R4]: the first frame's length fits.
            let (length, used) = frame_length(rest)?;
            if length + used > rest.len() {
                return None;
            }
            2
        }
        _ => {
            let (&count, rest) = rest.split_first()?;
            let frames = u32::from(count & 0x3f);
            let mut at = 0;
            let mut padding = 0;
            if count & 0x40 != 0 {
                // §3.2.5: 255 means 254 and another byte.
                loop {
                    let byte = *rest.get(at)?;
                    at += 1;
                    padding += if byte == 255 { 254 } else { usize::from(byte) };
                    if byte != 255 {
                        break;
                    }
                }
            }
            let body = rest.get(at..rest.len().checked_sub(padding)?)?;
            if frames == 0 {
                return None;
            }
            if count & 0x80 == 0 {
                // [R6]
                if body.len() % frames as usize != 0 {
                    return None;
                }
            } else {
                // [R7]: every length but the last is written.
                let (mut headers, mut sum) = (0, 0);
                for _ in 1..frames {
                    let (length, used) = frame_length(body.get(headers..)?)?;
                    headers += used;
                    sum += length;
                }
                if headers + sum > body.len() {
                    return None;
                }
            }
            frames
        }
    };
    // [R5]: at most 120 ms.
    (frames * frame <= 5760).then_some(frames * frame)
}

/// §3.2.1: the length and how many bytes said it.
fn frame_length(data: &[u8]) -> Option<(usize, usize)> {
    match *data.first()? {
        first @ 0..=251 => Some((usize::from(first), 1)),
        first => Some((usize::from(*data.get(1)?) * 4 + usize::from(first), 2)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_follow_the_table_of_contents() {
        assert_eq!(samples(&[31 << 3, 1, 2]), Some(960));
        assert_eq!(samples(&[16 << 3]), Some(120));
        assert_eq!(samples(&[3 << 3]), Some(2880));
        assert_eq!(samples(&[13 << 3]), Some(960));
        assert_eq!(samples(&[31 << 3 | 1, 1, 2]), Some(1920));
        assert_eq!(samples(&[31 << 3 | 2, 1, 9, 9]), Some(1920));
        assert_eq!(samples(&[31 << 3 | 3, 3, 1, 2, 3]), Some(2880));
        assert_eq!(samples(&[31 << 3 | 3, 0xc2, 1, 1, 7, 7, 0]), Some(1920));
    }

    #[test]
    fn malformed_packets_have_none() {
        for bad in [
            &[][..],
            &[31 << 3 | 1, 1],
            &[31 << 3 | 2, 5, 1],
            &[31 << 3 | 2],
            &[31 << 3 | 3],
            &[31 << 3 | 3, 0],
            &[31 << 3 | 3, 7, 1, 1, 1, 1, 1, 1, 1],
            &[31 << 3 | 3, 0x41, 9],
            &[31 << 3 | 3, 2, 1],
        ] {
            assert_eq!(samples(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(d in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(samples(&d).is_none_or(|n| (120..=5760).contains(&n)));
        }
    }
}
