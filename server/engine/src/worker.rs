//! The child process: reads units from its standard input (a socket), runs the pipeline, writes what comes out back.
//! A device's child does so for many sessions at once, each on a socket of its own.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use media::TrackConfig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::graph::{Graph, GraphError, Monitor, Output};
use crate::protocol::{self, Message, ProtocolError, Stats};

/// How long the pipeline may take to hand out what is in it once asked to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How often errors are looked for and a sign of life is sent.
const BEAT: Duration = Duration::from_millis(100);
/// Address space, not memory: two dozen threads with their stacks and malloc arenas, and a 4K ladder's pictures. A GPU's
/// driver reserves many times that, so a worker on a GPU goes without this limit.
const ADDRESS_SPACE: u64 = 8 << 30;
const OPEN_FILES: u64 = 256;
/// Of a worker with all sessions of a device; a session needs a dozen.
const OPEN_FILES_OF_DEVICE: u64 = 16 << 10;
/// Exit code of a device's worker whose device is gone, so that no new one is tried. 79 is the Xid for the same.
pub(crate) const EXIT_DEVICE_LOST: u8 = 79;

#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("standard input: {0}")]
    Io(#[from] std::io::Error),
    #[error("from the parent: {0}")]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("GStreamer does not start: {0}")]
    Gstreamer(#[from] gstreamer::glib::Error),
    #[error("a unit or a second start came before its time")]
    OutOfOrder,
}

/// Runs one session until standard input closes or asks to stop. The process's exit code.
pub fn run() -> ExitCode {
    confine(OPEN_FILES);
    match standard_input().and_then(|socket| session(socket, Failure::EndsProcess)) {
        Ok(code) => code,
        Err(e) => complain(&e.to_string()),
    }
}

/// Runs all sessions of one device until standard input closes. A session comes as a descriptor of a socket, on which its
/// parent speaks as to a worker of its own. `fails_after` makes a simulated device fail.
pub fn run_device(fails_after: Option<Duration>) -> ExitCode {
    confine(OPEN_FILES_OF_DEVICE);
    if let Some(after) = fails_after {
        std::thread::spawn(move || {
            std::thread::sleep(after);
            eprintln!("the simulated device fails");
            std::process::exit(i32::from(EXIT_DEVICE_LOST));
        });
    }
    let control = match standard_input() {
        Ok(control) => control,
        Err(e) => return complain(&e.to_string()),
    };
    loop {
        match next_session(&control) {
            Ok(Some(socket)) => {
                // Detached: it ends with its socket, and a pipeline that never returns costs its threads, nothing else.
                std::thread::spawn(move || {
                    if let Err(e) = session(socket, Failure::EndsSession) {
                        complain(&e.to_string());
                    }
                });
            }
            Ok(None) => return ExitCode::SUCCESS,
            Err(e) => return complain(&e.to_string()),
        }
    }
}

/// What a pipeline that has failed takes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    EndsProcess,
    EndsSession,
}

fn session(socket: UnixStream, failure: Failure) -> std::io::Result<ExitCode> {
    let writer = Arc::new(Writer {
        socket: Mutex::new((socket.try_clone()?, BytesMut::new())),
        gone: AtomicBool::new(false),
        failure,
    });
    Ok(match serve(socket, &writer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let text = e.to_string();
            writer.send(&Message::Fault(text.clone()));
            complain(&text)
        }
    })
}

pub(crate) fn standard_input() -> std::io::Result<UnixStream> {
    Ok(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}

/// Waits for the next session's socket; `None` when the parent is gone.
#[expect(unsafe_code, reason = "a descriptor that comes through a socket is a number until somebody owns it")]
fn next_session(control: &UnixStream) -> std::io::Result<Option<UnixStream>> {
    let mut byte = [0u8; 1];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    loop {
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(control.as_raw_fd(), &mut buffers, Some(&mut space), flags) {
            Err(nix::Error::EINTR) => continue,
            other => other?,
        };
        let received = message.bytes;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = part
                && let Some(descriptor) = descriptors.first()
            {
                // SAFETY: the kernel made this descriptor for us in the call above, and nothing else knows of it.
                return Ok(Some(UnixStream::from(unsafe { OwnedFd::from_raw_fd(*descriptor) })));
            }
        }
        if received == 0 {
            return Ok(None);
        }
    }
}

pub(crate) fn complain(text: &str) -> ExitCode {
    // One line: the parent forwards lines.
    eprintln!("{}", text.replace('\n', " "));
    ExitCode::FAILURE
}

fn serve(mut socket: UnixStream, writer: &Arc<Writer>) -> Result<(), WorkerError> {
    let mut input = BytesMut::with_capacity(64 << 10);
    let Some(Message::Start(start)) = next_message(&mut socket, &mut input)? else {
        return Err(WorkerError::OutOfOrder);
    };
    if start.device.is_none() && writer.failure == Failure::EndsProcess {
        limit("address space", Resource::RLIMIT_AS, ADDRESS_SPACE);
    }
    gstreamer::init()?;
    let output: Output = {
        let writer = writer.clone();
        // The configuration goes out again whenever it changes; per track, as the parent keeps it.
        let sent: Mutex<Vec<Option<Arc<TrackConfig>>>> = Mutex::new(vec![None; start.spec.video.len() + 1]);
        Arc::new(move |track, config, unit| {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = sent.get_mut(usize::from(track))
                && slot.as_ref() != Some(&config)
            {
                *slot = Some(config.clone());
                writer.send(&Message::Config { track, config });
            }
            drop(sent);
            writer.send(&Message::Unit(unit));
        })
    };
    let mut graph = Graph::start(&start, &output)?;
    writer.send(&Message::Ready);
    let watch = Watch::start(graph.monitor(), writer.clone());
    let mut configs: [Option<Arc<TrackConfig>>; 2] = [None, None];
    loop {
        match next_message(&mut socket, &mut input)? {
            None => return Ok(()),
            Some(Message::Config { track, config }) => {
                let slot = configs.get_mut(usize::from(track)).ok_or(WorkerError::OutOfOrder)?;
                *slot = Some(config);
            }
            Some(Message::Unit(unit)) => {
                let config = configs.get(usize::from(unit.track)).and_then(Option::as_ref);
                graph.push(config.ok_or(WorkerError::OutOfOrder)?, &unit)?;
            }
            Some(Message::Suspend(tracks)) => graph.suspend(&tracks),
            Some(Message::Stop) => {
                watch.stop();
                return Ok(graph.finish(DRAIN_LIMIT)?);
            }
            Some(_) => return Err(WorkerError::OutOfOrder),
        }
    }
}

/// Looks after the pipeline on a thread of its own, because feeding it may block. An error in it ends the process: the
/// feeding thread may never come back from a pipeline that stands still, and the parent starts a new worker anyway.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start(monitor: Monitor, writer: Arc<Writer>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut last = Stats::default();
            while !stopped.load(Ordering::Relaxed) {
                if let Err(e) = monitor.check(BEAT) {
                    let text = e.to_string();
                    writer.send(&Message::Fault(text.clone()));
                    complain(&text);
                    if writer.failure == Failure::EndsProcess {
                        std::process::exit(1);
                    }
                    // The parent starts the session anew; whoever feeds this pipeline is let go.
                    writer.close();
                    monitor.abandon();
                    return;
                }
                let now = monitor.stats();
                if now != last {
                    if now.errors / 100 > last.errors / 100 {
                        eprintln!("{} warnings from the pipeline so far", now.errors);
                    }
                    last = now;
                    writer.send(&Message::Stats(now));
                }
            }
        });
        Self { stop, thread }
    }

    /// Returns when it no longer takes messages off the bus: the end of the stream is somebody else's to see.
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // It ends by returning or with the process.
        let _ = self.thread.join();
    }
}

/// The socket's sending side, shared by GStreamer's threads. A blocked parent blocks the pipeline: that is the
/// back-pressure.
struct Writer {
    socket: Mutex<(UnixStream, BytesMut)>,
    gone: AtomicBool,
    failure: Failure,
}

impl Writer {
    fn close(&self) {
        self.gone.store(true, Ordering::Relaxed);
        let socket = &self.socket.lock().unwrap_or_else(PoisonError::into_inner).0;
        // Closed by the parent already: as good.
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }

    fn send(&self, message: &Message) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        let (socket, buffer) = &mut *self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.clear();
        let sent = protocol::encode(message, buffer).is_ok_and(|()| socket.write_all(buffer).is_ok());
        if !sent {
            // The parent went away; the reading side sees it too and ends the process.
            self.gone.store(true, Ordering::Relaxed);
        }
    }
}

/// `None` at the end of input.
fn next_message(socket: &mut UnixStream, input: &mut BytesMut) -> Result<Option<Message>, WorkerError> {
    let mut chunk = [0u8; 64 << 10];
    loop {
        if let Some(message) = protocol::decode(input)? {
            return Ok(Some(message));
        }
        let n = match socket.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        input.extend_from_slice(chunk.get(..n).unwrap_or_default());
    }
}

/// Gives up what a decoder of outside data must not have. Best effort: a limit that is lower already is fine too.
pub(crate) fn confine(open_files: u64) {
    // Dies with its parent also when its main thread is stuck or stopped.
    if let Err(e) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        eprintln!("no parent-death signal: {e}");
    }
    limit("core size", Resource::RLIMIT_CORE, 0);
    limit("open files", Resource::RLIMIT_NOFILE, open_files);
    // When memory runs out, one session ends rather than the server.
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "500") {
        eprintln!("out-of-memory score unchanged: {e}");
    }
}

fn limit(what: &str, resource: Resource, wanted: u64) {
    let limit = getrlimit(resource).map_or(wanted, |(_, hard)| wanted.min(hard));
    if let Err(e) = setrlimit(resource, limit, limit) {
        eprintln!("{what} stays unlimited: {e}");
    }
}
