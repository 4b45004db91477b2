//! A viewer: follows one variant and its audio, each with a connection for reloads and one for media, as browsers do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use crate::follow::{Follower, Place, Wanted};
use crate::net::{Answer, Connection, Network};
use crate::playlist::{Cache, Either, Playlist};
use crate::tally::{Fault, PublishClock, Tally};

/// Parts that are listed and not fetched yet. More than a window's worth: the viewer is lost.
const QUEUE: usize = 256;
const REDIRECTIONS: usize = 5;
/// After a fault a player waits before it begins anew; doubled each time up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// What the viewers of one thread share.
pub struct Shared {
    pub network: Network,
    pub tally: RefCell<Tally>,
    pub clock: Arc<Mutex<PublishClock>>,
    cache: RefCell<Cache>,
    /// Viewers that follow right now.
    pub watching: Cell<usize>,
    /// The zero of all times, on both clocks.
    start: (Instant, SystemTime),
    pub options: Options,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub url: Url,
    /// Which line of the multivariant playlist.
    pub variant: usize,
    /// Reloads and media of a rendition share a connection and take turns.
    pub one_connection: bool,
    /// The control viewer only reads playlists.
    pub media: bool,
}

impl Shared {
    pub fn new(
        network: Network,
        clock: Arc<Mutex<PublishClock>>,
        start: (Instant, SystemTime),
        options: Options,
    ) -> Self {
        let (tally, cache, watching) = (RefCell::default(), RefCell::default(), Cell::new(0));
        Self { network, tally, clock, cache, watching, start, options }
    }

    /// Begins a new phase and gives the counts of the one before.
    pub fn next_phase(&self) -> Tally {
        let mut tally = self.tally.take();
        tally.reconnects = self.network.reconnects.take();
        tally
    }

    /// Reads a playlist, once for all who get the same text.
    pub fn parse(&self, base: &Url, body: Vec<u8>) -> Result<Arc<Playlist>, Fault> {
        self.cache.borrow_mut().parse(base, body).map_err(Fault::Playlist)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start.0).as_micros()).unwrap_or(u64::MAX)
    }

    fn unix_micros(&self, at: Instant) -> i64 {
        let zero = self.start.1.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from((zero + at.saturating_duration_since(self.start.0)).as_micros()).unwrap_or(i64::MAX)
    }

    fn count(&self, answer: &Answer) {
        let mut tally = self.tally.borrow_mut();
        tally.requests += 1;
        tally.bytes += answer.length;
    }
}

/// Watches until it is dropped, or the stream ends; what goes wrong is counted, and it begins anew.
pub async fn viewer(shared: Rc<Shared>) {
    let mut pause = PAUSES.0;
    loop {
        let begun = Instant::now();
        let fault = match watch(&shared).await {
            Ok(()) => Fault::Ended,
            Err(fault) => fault,
        };
        shared.tally.borrow_mut().fault(&fault);
        if fault == Fault::Ended {
            return;
        }
        if begun.elapsed() > PAUSES.1 * 2 {
            pause = PAUSES.0;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// The media playlists that a viewer of `options` follows: video, and audio where it is apart.
pub async fn renditions(shared: &Shared, connection: &mut Connection) -> Result<Vec<Url>, Fault> {
    let (base, body) = playlist(shared, connection, &shared.options.url, "multivariant").await?;
    let text = String::from_utf8(body).map_err(|_| Fault::Playlist("is not UTF-8".to_owned()))?;
    match Either::parse(&base, &text).map_err(Fault::Playlist)? {
        Either::Media => Ok(vec![base]),
        Either::Multivariant(mut found) => {
            let (index, count) = (shared.options.variant, found.variants.len());
            if index >= count {
                return Err(Fault::Playlist(format!("has {count} variants, none with index {index}")));
            }
            let variant = found.variants.swap_remove(index);
            Ok(std::iter::once(variant.url).chain(variant.audio).collect())
        }
    }
}

/// Fetches a playlist behind redirections; gives where it was in the end.
pub async fn playlist(
    shared: &Shared,
    connection: &mut Connection,
    url: &Url,
    what: &'static str,
) -> Result<(Url, Vec<u8>), Fault> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTIONS {
        let (answer, body) = connection.text(&shared.network, &url).await?;
        shared.count(&answer);
        match (answer.status, answer.location) {
            (200, _) => return Ok((url, body)),
            (301 | 302 | 303 | 307 | 308, Some(to)) => {
                url = url.join(&to).map_err(|_| Fault::Http("Location is not a URL"))?;
            }
            (status, _) => return Err(Fault::Status(status, what)),
        }
    }
    Err(Fault::Http("too many redirections"))
}

/// Ok: the stream has ended.
async fn watch(shared: &Rc<Shared>) -> Result<(), Fault> {
    let mut connection = Connection::default();
    let urls = renditions(shared, &mut connection).await?;
    let _watching = Watching::new(shared);
    // Dropped with this function, and with it all that the viewer does.
    let mut tasks = JoinSet::new();
    for (rendition, url) in urls.into_iter().enumerate() {
        let connection = std::mem::take(&mut connection);
        if shared.options.one_connection || !shared.options.media {
            tasks.spawn_local(follow(shared.clone(), rendition, url, connection, None));
        } else {
            let (queue, wanted) = mpsc::channel(QUEUE);
            tasks.spawn_local(follow(shared.clone(), rendition, url, connection, Some(queue)));
            tasks.spawn_local(fetch_all(shared.clone(), rendition, wanted));
        }
    }
    while let Some(ended) = tasks.join_next().await {
        // Nothing here panics or is aborted while the set is waited for.
        ended.unwrap_or(Err(Fault::Closed))?;
    }
    Ok(())
}

struct Watching(Rc<Shared>);

impl Watching {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.watching.set(shared.watching.get() + 1);
        Self(shared.clone())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watching.set(self.0.watching.get().saturating_sub(1));
    }
}

/// Reload after reload. What is listed goes into `queue`, or is fetched here in turn.
async fn follow(
    shared: Rc<Shared>,
    rendition: usize,
    url: Url,
    mut connection: Connection,
    queue: Option<mpsc::Sender<Wanted>>,
) -> Result<(), Fault> {
    let (url, body) = playlist(&shared, &mut connection, &url, "playlist").await?;
    let mut follower = Follower::new(url.clone());
    let mut step = follower.take(shared.parse(&url, body)?).map_err(Fault::Broken)?;
    loop {
        let ended = step.ended;
        for wanted in step.wanted.into_iter().filter(|_| shared.options.media) {
            match &queue {
                Some(queue) => queue.try_send(wanted).map_err(|_| Fault::Behind)?,
                None => fetch(&shared, rendition, &mut connection, &wanted).await?,
            }
        }
        if ended {
            return Ok(());
        }
        let (answer, body) = connection.text(&shared.network, &follower.request()).await?;
        shared.count(&answer);
        if answer.status != 200 {
            return Err(Fault::Status(answer.status, "reload"));
        }
        step = follower.take(shared.parse(&url, body)?).map_err(Fault::Broken)?;
        let places: Vec<Place> = step.wanted.iter().filter_map(|w| w.part).collect();
        listed(&shared, rendition, &answer, &places);
    }
}

fn listed(shared: &Shared, rendition: usize, answer: &Answer, places: &[Place]) {
    let (first, last) = (shared.micros(answer.first_byte), shared.micros(answer.last_byte));
    let mut clock = shared.clock.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tally = shared.tally.borrow_mut();
    for place in places {
        clock.listed(rendition, place.msn, place.part, first);
        if let Some(late) = clock.since(rendition, place.msn, place.part, last) {
            tally.listing.add(late);
        }
    }
}

async fn fetch_all(shared: Rc<Shared>, rendition: usize, mut queue: mpsc::Receiver<Wanted>) -> Result<(), Fault> {
    let mut connection = Connection::default();
    while let Some(wanted) = queue.recv().await {
        fetch(&shared, rendition, &mut connection, &wanted).await?;
    }
    Ok(())
}

async fn fetch(shared: &Shared, rendition: usize, connection: &mut Connection, wanted: &Wanted) -> Result<(), Fault> {
    let range = wanted.range.map_or(String::new(), |(offset, length)| {
        let last = offset.saturating_add(length).saturating_sub(1);
        format!("range: bytes={offset}-{last}\r\n")
    });
    let answer = connection.get(&shared.network, &wanted.url, &range, &mut |_| {}).await?;
    shared.count(&answer);
    let what = if wanted.part.is_some() { "part" } else { "init" };
    if answer.status != if wanted.range.is_some() { 206 } else { 200 } {
        return Err(Fault::Status(answer.status, what));
    }
    if answer.length == 0 {
        return Err(Fault::EmptyPart);
    }
    let Some(place) = wanted.part.filter(|p| p.awaited) else { return Ok(()) };
    let now = shared.micros(answer.last_byte);
    let clock = shared.clock.lock().unwrap_or_else(PoisonError::into_inner);
    let since = clock.since(rendition, place.msn, place.part, now);
    drop(clock);
    let mut tally = shared.tally.borrow_mut();
    let took = answer.last_byte.saturating_duration_since(answer.sent);
    tally.fetch.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    if let Some(late) = since {
        tally.part.add(late);
    }
    if let Some(end) = place.end {
        tally.dated.add(u64::try_from(shared.unix_micros(answer.last_byte) - end).unwrap_or(0));
    }
    Ok(())
}
