//! Response bodies: refcounted bytes handed to the socket without joining or copying them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use super::listener::Sending;

/// Most bytes given to hyper at once over HTTP/2, where the connection's watchdog counts pieces as progress.
const PIECE_OF_STREAM: usize = 64 * 1024;

/// The same over HTTP/1: a segment goes to the socket in one call.
const PIECE: usize = 4 << 20;

#[derive(Debug, Default)]
pub struct Body {
    chunks: VecDeque<Bytes>,
    left: u64,
    /// Set by the listener: tells it about progress.
    sending: Option<Sending>,
}

impl Body {
    pub fn empty() -> Self {
        Self::default()
    }

    /// `length` bytes of the concatenated chunks from `start` on.
    pub fn slice(chunks: &[Bytes], start: u64, length: u64) -> Self {
        let (mut skip, mut left) = (start, length);
        let mut taken = VecDeque::with_capacity(chunks.len());
        for chunk in chunks.iter() {
            let size = chunk.len() as u64;
            if skip >= size {
                skip -= size;
                continue;
            }
            let take = (size - skip).min(left);
            if take == 0 {
                break;
            }
            // Both fit usize: they are within the chunk.
            let (from, to) = (usize::try_from(skip).unwrap_or(0), usize::try_from(skip + take).unwrap_or(0));
            taken.push_back(chunk.slice(from..to));
            skip = 0;
            left -= take;
        }
        Self { chunks: taken, left: length - left, sending: None }
    }

    pub fn len(&self) -> u64 {
        self.left
    }

    pub fn track(&mut self, sending: Sending) {
        if self.left > 0 {
            self.sending = Some(sending);
        }
    }

    #[cfg(test)]
    pub fn to_vec(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|c| c.to_vec()).collect()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self { chunks: VecDeque::from([bytes]), left, sending: None }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

/// What is given to hyper at once: chunks that go to the socket by one vectored write.
#[derive(Debug, Default)]
pub struct Piece {
    chunks: VecDeque<Bytes>,
    left: usize,
    /// In the last piece of an HTTP/2 body: hyper drops the body when it has handed this on, and the HTTP/2 library keeps it
    /// for as long as the client opens no window. What is being sent is being sent until this goes.
    last: Option<Sending>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.left = self.left.saturating_sub(count);
        while count > 0 {
            let Some(front) = self.chunks.front_mut() else { return };
            if count < front.len() {
                return front.advance(count);
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

impl http_body::Body for Body {
    type Data = Piece;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Infallible>>> {
        let most = match &self.sending {
            Some(sending) if sending.is_stream() => PIECE_OF_STREAM,
            _ => PIECE,
        };
        let mut piece = Piece::default();
        if self.left <= most as u64 {
            // All that is left, as it is.
            piece.left = usize::try_from(self.left).unwrap_or(most);
            piece.chunks = std::mem::take(&mut self.chunks);
        }
        while let Some(front) = self.chunks.front_mut()
            && piece.left < most
        {
            let chunk =
                if front.len() > most - piece.left { front.split_to(most - piece.left) } else { std::mem::take(front) };
            if front.is_empty() {
                self.chunks.pop_front();
            }
            if !chunk.is_empty() {
                piece.left += chunk.len();
                piece.chunks.push_back(chunk);
            }
        }
        if piece.left == 0 {
            return Poll::Ready(None);
        }
        self.left = self.left.saturating_sub(piece.left as u64);
        if let Some(sending) = &self.sending {
            sending.progress(piece.left as u64);
        }
        if self.left == 0 {
            piece.last = self.sending.take_if(|s| s.is_stream());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slice_is_the_slice_of_the_concatenation(sizes in prop::collection::vec(0usize..200_000, 0..6), a in 0usize..700_000, n in 0usize..700_000) {
            let mut next = 0u8;
            let chunks: Vec<Bytes> = sizes.iter().map(|s| {
                Bytes::from((0..*s).map(|_| { next = next.wrapping_add(7); next }).collect::<Vec<u8>>())
            }).collect();
            let whole: Vec<u8> = chunks.iter().flat_map(|c| c.to_vec()).collect();
            let a = a.min(whole.len());
            let n = n.min(whole.len() - a);
            let body = Body::slice(&chunks, a as u64, n as u64);
            prop_assert_eq!(body.len(), n as u64);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(body.collect()).unwrap().to_bytes();
            prop_assert_eq!(&got[..], &whole[a..a + n]);
        }
    }
}
