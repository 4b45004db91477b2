//! HTTP/1.1 answers, decoded as their bytes come (RFC 9112). Pure: keeps nothing of a body and copies none of it.
//!
//! A general client costs several times as much for each request, and the generator shares the machine with what it
//! measures.

use crate::tally::Fault;

/// A head larger than this is refused.
const HEAD: usize = 32 * 1024;
const HEADERS: usize = 96;
/// A line of the chunked coding: size, extensions, or a trailer.
const LINE: usize = 4 * 1024;

/// One answer.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// The beginning of a head or line whose end has not come; bounded by [`HEAD`].
    partial: Vec<u8>,
    pub status: u16,
    /// Bytes of the body so far.
    pub length: u64,
    pub location: Option<String>,
    /// The connection can take another request behind this answer.
    pub reusable: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// So many bytes are left.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// To the end of the connection.
    Rest,
    Done,
}

impl Decoder {
    /// Takes bytes and hands those of the body on. True when the answer is complete. Err: it is not an answer, or bytes
    /// follow it.
    pub fn feed(&mut self, mut input: &[u8], body: &mut impl FnMut(&[u8])) -> Result<bool, Fault> {
        while !input.is_empty() {
            match self.state {
                State::Head => input = self.head(input)?,
                State::Length(left) => {
                    let (now, later) = split(input, left);
                    self.pass(now, body);
                    self.state = match left - now.len() as u64 {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                    input = later;
                }
                State::Chunk(left) => {
                    let (now, later) = split(input, left);
                    self.pass(now, body);
                    self.state = match left - now.len() as u64 {
                        0 => State::ChunkEnd,
                        left => State::Chunk(left),
                    };
                    input = later;
                }
                State::ChunkSize | State::ChunkEnd | State::Trailer => input = self.line(input)?,
                State::Rest => {
                    self.pass(input, body);
                    input = &[];
                }
                State::Done => return Err(Fault::Http("bytes behind the answer")),
            }
        }
        Ok(self.state == State::Done)
    }

    /// The connection has ended. Ok: that was the end of the answer.
    pub fn end(&self) -> Result<(), Fault> {
        if self.state == State::Rest { Ok(()) } else { Err(Fault::Closed) }
    }

    /// Nothing of the answer has come.
    pub fn is_untouched(&self) -> bool {
        self.state == State::Head && self.partial.is_empty() && self.status == 0
    }

    fn pass(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) {
        self.length += bytes.len() as u64;
        body(bytes);
    }

    /// Gives what is behind the head, or nothing when the head goes on.
    fn head<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], Fault> {
        let before = self.partial.len();
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        // The usual head comes in one piece and is not copied.
        let whole = if before == 0 {
            input
        } else {
            self.partial.extend_from_slice(input);
            &self.partial
        };
        let size = match answer.parse(whole) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) if whole.len() > HEAD => return Err(Fault::Http("the head is too large")),
            Ok(httparse::Status::Partial) => {
                if before == 0 {
                    self.partial.extend_from_slice(input);
                }
                return Ok(&[]);
            }
            Err(httparse::Error::TooManyHeaders) => return Err(Fault::Http("too many headers")),
            Err(_) => return Err(Fault::Http("the head cannot be read")),
        };
        let status = answer.code.unwrap_or_default();
        let mut reusable = answer.version == Some(1);
        let (mut length, mut chunked, mut location) = (None, false, None);
        for header in answer.headers.iter() {
            let value = || std::str::from_utf8(header.value).unwrap_or_default().trim();
            if header.name.eq_ignore_ascii_case("content-length") {
                let number = value().parse::<u64>().map_err(|_| Fault::Http("Content-Length is not a number"))?;
                if length.is_some_and(|l| l != number) {
                    return Err(Fault::Http("two values of Content-Length"));
                }
                length = Some(number);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value().to_ascii_lowercase().ends_with("chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                reusable &= !value().eq_ignore_ascii_case("close");
            } else if header.name.eq_ignore_ascii_case("location") {
                location = Some(value().to_owned());
            }
        }
        let rest = input.get(size - before.min(size)..).unwrap_or_default();
        self.partial = Vec::new();
        if (100..200).contains(&status) {
            return Ok(rest);
        }
        self.state = match (status, chunked, length) {
            (204 | 304, ..) | (_, false, Some(0)) => State::Done,
            (_, true, _) => State::ChunkSize,
            (_, false, Some(length)) => State::Length(length),
            (_, false, None) => State::Rest,
        };
        (self.status, self.location) = (status, location);
        self.reusable = reusable && self.state != State::Rest;
        Ok(rest)
    }

    /// Takes one line of the chunked coding (RFC 9112 §7.1).
    fn line<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], Fault> {
        let Some(end) = input.iter().position(|b| *b == b'\n') else {
            if self.partial.len() + input.len() > LINE {
                return Err(Fault::Http("a line of the chunked coding is too long"));
            }
            self.partial.extend_from_slice(input);
            return Ok(&[]);
        };
        let (now, later) = input.split_at(end + 1);
        self.partial.extend_from_slice(now);
        let line = std::mem::take(&mut self.partial);
        let text = std::str::from_utf8(&line).unwrap_or("?").trim_end();
        self.state = match self.state {
            State::ChunkSize => {
                let digits = text.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(digits, 16) {
                    Ok(0) => State::Trailer,
                    Ok(size) => State::Chunk(size),
                    Err(_) => return Err(Fault::Http("the size of a chunk cannot be read")),
                }
            }
            State::ChunkEnd if text.is_empty() => State::ChunkSize,
            State::ChunkEnd => return Err(Fault::Http("a chunk is longer than its size")),
            _ if text.is_empty() => State::Done,
            same => same,
        };
        Ok(later)
    }
}

fn split(input: &[u8], most: u64) -> (&[u8], &[u8]) {
    input.split_at(usize::try_from(most).unwrap_or(usize::MAX).min(input.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Feeds it in pieces of this size.
    fn decode(bytes: &[u8], piece: usize) -> (Result<bool, Fault>, Decoder, Vec<u8>) {
        let (mut decoder, mut body) = (Decoder::default(), Vec::new());
        let mut result = Ok(false);
        for piece in bytes.chunks(piece) {
            result = decoder.feed(piece, &mut |b| body.extend_from_slice(b));
            if result.is_err() {
                break;
            }
        }
        (result, decoder, body)
    }

    #[test]
    fn every_framing_is_decoded_in_pieces_of_any_size() {
        let answers: [(&[u8], &[u8], u16, bool); 6] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", 200, true),
            (
                b"HTTP/1.1 206 Partial\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n",
                b"hello",
                206,
                true,
            ),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", 304, true),
            (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", 200, true),
            (b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno", b"no", 503, false),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nno", b"no", 200, false),
        ];
        for (bytes, expected, status, reusable) in answers {
            for piece in [1, 2, 3, 7, 1000] {
                let (result, decoder, body) = decode(bytes, piece);
                let name = String::from_utf8_lossy(bytes);
                assert_eq!(result, Ok(true), "{name}");
                assert_eq!((body.as_slice(), decoder.status, decoder.reusable), (expected, status, reusable), "{name}");
                assert_eq!(decoder.length, expected.len() as u64);
            }
        }
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let (result, decoder, body) = decode(b"HTTP/1.1 200 OK\r\n\r\nhello", 3);
        assert_eq!((result, body.as_slice(), decoder.reusable), (Ok(false), &b"hello"[..], false));
        assert_eq!(decoder.end(), Ok(()));
        assert_eq!(decode(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", 3).1.end(), Err(Fault::Closed));
        assert!(Decoder::default().is_untouched() && !decode(b"HT", 1).1.is_untouched());
    }

    #[test]
    fn redirections_say_where_to() {
        let (_, decoder, _) = decode(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", 9);
        assert_eq!((decoder.status, decoder.location.as_deref()), (302, Some("/b")));
    }

    #[test]
    fn rubbish_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD));
        for bytes in [
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            &many,
            &long,
        ] {
            for piece in [600, 5_000, 100_000] {
                assert!(matches!(decode(bytes.as_bytes(), piece).0, Err(Fault::Http(_))), "{bytes:.80}");
            }
        }
    }
}
