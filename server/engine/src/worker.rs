//! The child process: reads units from its standard input (a socket), runs the pipeline, writes what comes out back.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use media::TrackConfig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

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

/// Runs until standard input closes or asks to stop. The process's exit code.
pub fn run() -> ExitCode {
    confine();
    let socket = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(e) => return complain(&e.to_string()),
    };
    let writer = match socket.try_clone() {
        Ok(writer) => Arc::new(Writer { socket: Mutex::new((writer, BytesMut::new())), gone: AtomicBool::new(false) }),
        Err(e) => return complain(&e.to_string()),
    };
    match serve(socket, &writer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let text = e.to_string();
            writer.send(&Message::Fault(text.clone()));
            complain(&text)
        }
    }
}

fn complain(text: &str) -> ExitCode {
    // One line: the parent forwards lines.
    eprintln!("{}", text.replace('\n', " "));
    ExitCode::FAILURE
}

fn serve(mut socket: UnixStream, writer: &Arc<Writer>) -> Result<(), WorkerError> {
    let mut input = BytesMut::with_capacity(64 << 10);
    let Some(Message::Start(start)) = next_message(&mut socket, &mut input)? else {
        return Err(WorkerError::OutOfOrder);
    };
    if start.device.is_none() {
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
                    std::process::exit(1);
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
}

impl Writer {
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
fn confine() {
    // Dies with its parent also when its main thread is stuck or stopped.
    if let Err(e) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        eprintln!("no parent-death signal: {e}");
    }
    limit("core size", Resource::RLIMIT_CORE, 0);
    limit("open files", Resource::RLIMIT_NOFILE, OPEN_FILES);
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
