//! The end of the interceptor chain: takes every decrypted packet out for the RTP core and answers with transport-wide
//! congestion feedback.
//!
//! It stands in front of the chain's own endpoint for three reasons: RTCP would end there, packets of an SSRC that the
//! offer did not declare would be dropped there, and retransmissions would be rewritten there, which the RTP core wants
//! to see for itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rtc::interceptor::{
    Interceptor, Packet, RTPHeaderExtension, StreamInfo, TaggedPacket, TwccReceiverBuilder, TwccReceiverInterceptor,
};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// draft-holmer-rmcat-transport-wide-cc-extensions-01 §2.
pub const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Chrome's bandwidth estimate follows the feedback's pace; 50 to 100 ms is what senders expect.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);

/// Decrypted packets on their way from the chain to the session; drained after every datagram, so a handful at most.
#[derive(Clone, Default)]
pub struct Tapped(Arc<Mutex<VecDeque<Packet>>>);

impl Tapped {
    pub fn pop(&self) -> Option<Packet> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Packet>> {
        // A queue of packets is whole at every point; one task uses it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Tap {
    feedback: TwccReceiverInterceptor,
    out: Tapped,
}

impl Tap {
    /// `transport_cc`: the header extension's id where it was negotiated.
    pub fn new(transport_cc: Option<u8>, out: Tapped) -> Self {
        let mut feedback = TwccReceiverBuilder::new().with_interval(FEEDBACK_INTERVAL).build();
        if let Some(id) = transport_cc {
            // One binding sets the id for the whole transport: all SSRCs are then counted, declared or not, padding
            // and retransmissions too.
            feedback.bind_remote_stream(&StreamInfo {
                rtp_header_extensions: vec![RTPHeaderExtension { uri: TRANSPORT_CC.to_owned(), id: u16::from(id) }],
                ..StreamInfo::default()
            });
        }
        Self { feedback, out }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.feedback.handle_read(packet)?;
        while let Some(seen) = self.feedback.poll_read() {
            self.out.lock().push_back(seen.message.packet);
        }
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        None
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        self.feedback.handle_write(packet)
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.feedback.poll_write()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.feedback.handle_timeout(now)
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.feedback.poll_timeout()
    }

    fn close(&mut self) -> Result<(), Error> {
        self.feedback.close()
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
