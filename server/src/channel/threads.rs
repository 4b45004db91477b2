//! The threads that channels' tasks and their ingests run on, apart from those that answer viewers (docs/adr/0013).

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Channels that share a thread before the next one is started. As passthrough they take a seventh of a core, with a ladder of
/// four rungs about half of one; together they wake the thread less often than apart.
const SHARED_BY: usize = 64;

/// Started as they are needed, as many as there are cores at most.
pub struct MediaThreads {
    threads: Mutex<Vec<Thread>>,
    most: usize,
}

struct Thread {
    runtime: Handle,
    /// Each channel's task holds one.
    presence: Arc<()>,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl MediaThreads {
    pub fn new() -> Self {
        Self::up_to(std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }

    fn up_to(most: usize) -> Self {
        Self { threads: Mutex::default(), most }
    }

    /// Runs a channel's task, and what it spawns, on the first thread that has room, else on the one with the fewest channels.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> io::Result<JoinHandle<()>> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.len() < self.most && threads.iter().all(|t| t.channels() >= SHARED_BY) {
            let thread = Thread::start(threads.len())?;
            threads.push(thread);
        }
        let roomy = threads.iter().find(|t| t.channels() < SHARED_BY);
        let thread = roomy.or(threads.iter().min_by_key(|t| t.channels()));
        let thread = thread.ok_or_else(|| io::Error::other("there is no thread for channels"))?;
        let presence = thread.presence.clone();
        Ok(thread.runtime.spawn(async move {
            task.await;
            drop(presence);
        }))
    }
}

impl Thread {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("media-{number}")).spawn(move || {
            // Nothing is ever sent: it ends with the server.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, presence: Arc::default(), _stop: stop })
    }

    fn channels(&self) -> usize {
        Arc::strong_count(&self.presence) - 1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Spawns a task that waits; where it runs, its end, and what it is over with.
    async fn waiting(threads: &MediaThreads) -> (std::thread::ThreadId, oneshot::Sender<()>, JoinHandle<()>) {
        let (told, place) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let task = threads.spawn(async move {
            told.send(std::thread::current().id()).unwrap();
            let _ = ended.await;
        });
        (place.await.unwrap(), end, task.unwrap())
    }

    #[tokio::test]
    async fn a_thread_is_filled_before_the_next_one_starts_and_beyond_the_last_they_share() {
        let threads = MediaThreads::up_to(2);
        let mut tasks = Vec::new();
        for _ in 0..2 * SHARED_BY + 2 {
            tasks.push(waiting(&threads).await);
        }
        let (first, second) = (tasks[0].0, tasks[SHARED_BY].0);
        assert_ne!(first, second);
        assert!(
            tasks[..SHARED_BY].iter().all(|t| t.0 == first)
                && tasks[SHARED_BY..2 * SHARED_BY].iter().all(|t| t.0 == second)
        );
        assert_eq!([tasks[2 * SHARED_BY].0, tasks[2 * SHARED_BY + 1].0], [first, second]);
        // A channel that ends makes room, a panic too.
        for (_, end, task) in tasks.drain(..2) {
            end.send(()).unwrap();
            task.await.unwrap();
        }
        let again = waiting(&threads).await;
        assert_eq!(again.0, first);
        let defect = threads.spawn(async { panic!("a defect") }).unwrap();
        assert!(defect.await.unwrap_err().is_panic());
        let counts: Vec<_> = threads.threads.lock().unwrap().iter().map(Thread::channels).collect();
        assert_eq!(counts, [SHARED_BY, SHARED_BY + 1]);
    }
}
