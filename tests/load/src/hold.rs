//! `--hold`: many blocking reloads at once, what they cost the server in memory, and how soon it has that back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::follow::Follower;
use crate::net::Connection;
use crate::process;
use crate::tally::Fault;
use crate::viewer::{Shared, playlist, renditions};

/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(250);
/// Memory that comes and goes with the window of media by itself, in KiB.
const WAVERS: u64 = 2 * 1024;

pub struct Plan {
    pub requests: usize,
    /// Of the server.
    pub pid: u32,
    /// Over which the requests are made.
    pub ramp: Duration,
    /// How long all of them are held together.
    pub time: Duration,
    /// So long the memory is watched after the clients are gone.
    pub freed_within: Duration,
}

/// Memory in KiB.
#[derive(Debug)]
pub struct Report {
    pub requests: usize,
    pub before: u64,
    /// The most that was seen while all were held.
    pub held: u64,
    /// What was there at the end.
    pub after: u64,
    /// From the end of the clients until nine tenths of the growth were gone, or all but what [`WAVERS`]. None: not in time.
    pub freed: Option<Duration>,
    /// The fewest that waited at the same time at any look.
    pub fewest: usize,
}

impl Report {
    /// Bytes for each held request.
    pub fn each(&self) -> u64 {
        self.held.saturating_sub(self.before) * 1024 / (self.requests.max(1) as u64)
    }

    pub fn json(&self) -> Value {
        json!({
            "requests": self.requests, "rss_before_kib": self.before, "rss_held_kib": self.held,
            "rss_after_kib": self.after, "bytes_per_request": self.each(), "fewest_held": self.fewest,
            "freed_seconds": self.freed.map(|f| f.as_secs_f64()),
        })
    }
}

/// Err: a sentence.
pub async fn run(shared: &Rc<Shared>, plan: &Plan) -> Result<Report, String> {
    let before = process::rss(plan.pid)?;
    let waiting = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    let count = u32::try_from(plan.requests.max(1)).unwrap_or(u32::MAX);
    for number in 0..plan.requests {
        let at = plan.ramp / count * u32::try_from(number).unwrap_or(u32::MAX);
        tasks.spawn_local(holder(shared.clone(), waiting.clone(), begun + at));
    }
    tokio::time::sleep(plan.ramp).await;
    let deadline = Instant::now() + plan.time + Duration::from_secs(30);
    // Each of them has to have its playlist first.
    while waiting.get() < plan.requests && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    let (mut held, mut fewest) = (0, plan.requests);
    let until = Instant::now() + plan.time;
    while Instant::now() < until {
        held = held.max(process::rss(plan.pid)?);
        fewest = fewest.min(waiting.get());
        tokio::time::sleep(LOOK).await;
    }
    // Vanishes without a word: the sockets close as the tasks are dropped.
    tasks.shutdown().await;
    let gone = Instant::now();
    let enough = before + (held.saturating_sub(before) / 10).max(WAVERS);
    let mut after = process::rss(plan.pid)?;
    while after > enough && gone.elapsed() < plan.freed_within {
        tokio::time::sleep(LOOK).await;
        after = process::rss(plan.pid)?;
    }
    let freed = (after <= enough).then(|| gone.elapsed());
    Ok(Report { requests: plan.requests, before, held, after, freed, fewest })
}

/// Has one request held at any time: when it is answered, the next is sent.
async fn holder(shared: Rc<Shared>, waiting: Rc<Cell<usize>>, at: Instant) {
    tokio::time::sleep_until(at.into()).await;
    loop {
        if let Err(fault) = hold(&shared, &waiting).await {
            shared.tally.borrow_mut().fault(&fault);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn hold(shared: &Shared, waiting: &Rc<Cell<usize>>) -> Result<(), Fault> {
    let mut connection = Connection::default();
    let url = renditions(shared, &mut connection).await?.swap_remove(0);
    let (url, body) = playlist(shared, &mut connection, &url, "playlist").await?;
    let mut follower = Follower::new(url.clone());
    let mut step = follower.take(shared.parse(&url, body)?).map_err(Fault::Broken)?;
    let _waiting = Waiting::new(waiting);
    while !step.ended {
        let Some(request) = follower.longest() else { return Ok(()) };
        let (_, body) = playlist(shared, &mut connection, &request, "reload").await?;
        step = follower.take(shared.parse(&url, body)?).map_err(Fault::Broken)?;
    }
    Err(Fault::Ended)
}

/// Counts a holder that has a request under way.
struct Waiting(Rc<Cell<usize>>);

impl Waiting {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
