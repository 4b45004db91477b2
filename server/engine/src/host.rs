//! A device's worker process: one for all sessions on the device, so that one CUDA context serves them all and a poisoned
//! one is cured by a restart. Started when its first session comes, and anew when the next one comes after it died.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tracing::{info, warn};

use crate::parent::{forward_log, spawn};
use crate::spec::OnDevice;
use crate::worker::EXIT_DEVICE_LOST;

/// Deaths that nobody has taken note of yet; one a start, and starts are backed off by the sessions.
const MAX_EVENTS: usize = 64;

/// What a device's worker is started with.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The program to start as `PROGRAM worker --device`.
    pub program: PathBuf,
    /// The device's name in logs.
    pub name: String,
    /// `None`: a simulated device, whose sessions encode on the CPU.
    pub device: Option<OnDevice>,
    /// A simulated device fails for good so long after its first session.
    pub fails_after: Option<Duration>,
}

/// How a device's worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnded {
    /// The device itself is gone: a new worker would find none.
    pub lost: bool,
    pub reason: String,
}

/// Cheap to clone. Dropping the last clone ends the process and with it all its sessions.
#[derive(Clone)]
pub struct DeviceHost {
    inner: Arc<Inner>,
}

struct Inner {
    options: HostOptions,
    running: Mutex<Option<Running>>,
    /// 0: none.
    pid: Arc<AtomicU32>,
    first_start: std::sync::OnceLock<Instant>,
    ended: mpsc::Sender<HostEnded>,
}

struct Running {
    control: StdUnixStream,
    pid: u32,
    /// Kills the process when sent to or dropped.
    kill: oneshot::Sender<()>,
}

impl std::fmt::Debug for DeviceHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceHost({})", self.inner.options.name)
    }
}

impl DeviceHost {
    /// Starts nothing yet. The receiver tells of every end of the process that was not asked for.
    pub fn new(options: HostOptions) -> (Self, mpsc::Receiver<HostEnded>) {
        let (ended, events) = mpsc::channel(MAX_EVENTS);
        let inner = Inner {
            options,
            running: Mutex::default(),
            pid: Arc::default(),
            first_start: std::sync::OnceLock::new(),
            ended,
        };
        (Self { inner: Arc::new(inner) }, events)
    }

    pub fn device(&self) -> Option<&OnDevice> {
        self.inner.options.device.as_ref()
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self.inner.pid.load(Ordering::Relaxed) {
            0 => None,
            pid => Some(pid),
        }
    }

    /// When its first worker was started. None: it has had none yet.
    pub fn first_start(&self) -> Option<Instant> {
        self.inner.first_start.get().copied()
    }

    /// A new session's socket, its other end in the device's worker, and the worker's process id.
    pub(crate) async fn connect(&self) -> std::io::Result<(UnixStream, u32)> {
        let mut running = self.inner.running.lock().await;
        let (ours, theirs) = StdUnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        // One that died a moment ago is known before it is reaped: by the kernel's word, since its sessions' sockets close before
        // its control socket does, or by that one.
        let lives = |r: &&Running| self.pid() == Some(r.pid) && !is_exiting(r.pid);
        let present = running.as_ref().filter(lives).filter(|r| hand_over(&r.control, &theirs).is_ok());
        if let Some(present) = present {
            return Ok((ours, present.pid));
        }
        let started = self.start().await?;
        hand_over(&started.control, &theirs)?;
        let pid = started.pid;
        *running = Some(started);
        Ok((ours, pid))
    }

    /// Ends the process `pid` if it is still the present one: its sessions go on in a new one.
    pub(crate) async fn kill(&self, pid: u32) {
        let mut running = self.inner.running.lock().await;
        if let Some(present) = running.take_if(|r| r.pid == pid) {
            let _ = present.kill.send(());
        }
    }

    async fn start(&self) -> std::io::Result<Running> {
        let options = &self.inner.options;
        let mut arguments = vec!["worker".to_owned(), "--device".to_owned()];
        let since = self.inner.first_start.get_or_init(Instant::now).elapsed();
        if let Some(after) = options.fails_after {
            arguments.push(format!("--fails-after-ms={}", after.saturating_sub(since).as_millis()));
        }
        let (mut child, control) = spawn(&options.program, &arguments, options.device.as_ref()).await?;
        let control = control.into_std()?;
        let pid = child.id().unwrap_or(0);
        self.inner.pid.store(pid, Ordering::Relaxed);
        info!(device = options.name, worker_pid = pid, "device worker started");
        let log = child.stderr.take().map(|stderr| tokio::spawn(forward_log(stderr, pid)));
        let (kill, killed) = oneshot::channel();
        let (present, ended, name) = (self.inner.pid.clone(), self.inner.ended.clone(), options.name.clone());
        tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => Some(status),
                // Asked for, or nobody is left who could ask.
                _ = killed => None,
            };
            let status = match status {
                // A session saw it dying earlier than this task and has put another one in its place: a death all the same.
                None if is_exiting(pid) => Some(child.wait().await),
                None => {
                    let _ = child.kill().await;
                    None
                }
                status => status,
            };
            let _ = present.compare_exchange(pid, 0, Ordering::Relaxed, Ordering::Relaxed);
            if let Some(log) = log {
                log.abort();
            }
            if let Some(Ok(status)) = status {
                let end = HostEnded { lost: is_loss(status), reason: format!("its worker died ({status})") };
                warn!(device = name, worker_pid = pid, reason = end.reason, lost = end.lost, "device worker ended");
                // Full: as many deaths are waiting to be seen already.
                let _ = ended.try_send(end);
            }
        });
        Ok(Running { control, pid, kill })
    }
}

/// Whether the kernel is taking the process apart, or has done so: its state, and the flag PF_EXITING, which is set before any of
/// its files are closed (proc_pid_stat(5), include/linux/sched.h).
fn is_exiting(pid: u32) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name before the last parenthesis may contain anything; the state follows, and six fields later the flags.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    let flags: u64 = fields.nth(5).and_then(|f| f.parse().ok()).unwrap_or_default();
    matches!(state, "Z" | "X") || flags & PF_EXITING != 0
}

fn is_loss(status: ExitStatus) -> bool {
    status.code() == Some(i32::from(EXIT_DEVICE_LOST))
}

/// Passes a descriptor to the process at the other end.
fn hand_over(control: &StdUnixStream, descriptor: &OwnedFd) -> std::io::Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(control.as_raw_fd(), &[IoSlice::new(b"s")], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_known_before_it_is_reaped() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        assert!(!is_exiting(pid) && !is_exiting(std::process::id()));
        child.kill().unwrap();
        // It has been told to die, which takes a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_exiting(pid) {
            assert!(Instant::now() < deadline, "it lives");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_exiting(pid), "it is gone");
    }
}
