//! One CUDA context for all pipelines of a process.
//!
//! GStreamer's elements agree on one within a pipeline and make another for the next pipeline: hundreds of megabytes of the
//! GPU's memory for each session. A process sees one GPU alone, so that one context is right for all that it runs; when it
//! is broken, so is the process, and a new one is started.

use std::sync::{Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::realize::{BackendError, make};

/// What the elements call it among themselves (gst-plugins-bad, gstcudacontext.h).
const CUDA_CONTEXT: &str = "gst.cuda.context";

static SHARED: Mutex<Option<gst::Context>> = Mutex::new(None);

/// Gives the pipeline the process's context, which is made for the first one with the help of a decoder that is opened for it.
/// Must come before the pipeline leaves NULL. Where none can be made, the pipeline fails to for the same reason, and says it.
pub(crate) fn share(pipeline: &gst::Pipeline, decoder: &str) -> Result<(), BackendError> {
    // Held while the context is made: sessions that start together must not make two.
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_none() {
        let seed = make(decoder)?;
        let opened = seed.set_state(gst::State::Ready);
        *shared = opened.ok().and_then(|_| seed.context(CUDA_CONTEXT));
        // An element must not be dropped in any other state.
        let _ = seed.set_state(gst::State::Null);
    }
    if let Some(context) = &*shared {
        pipeline.set_context(context);
    }
    Ok(())
}
