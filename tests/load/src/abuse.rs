//! `--abuse`: clients that misbehave, beside honest viewers. Only against loopback and private addresses.
//!
//! Each kind is bounded in connections and in requests a second, so that what moves the honest viewers' latency is the
//! server's handling and not merely a machine without a free core.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::net::{Connection, request};
use crate::playlist::Playlist;
use crate::tally::Fault;
use crate::viewer::{Shared, playlist, renditions};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Request heads that come a byte a second and never end.
    SlowHeaders,
    /// Asks for media again and again and reads nothing.
    SlowRead,
    /// Heads with far too much in them.
    HeaderBomb,
    /// Range headers that make no sense.
    RangeJunk,
    /// Delivery directives that make no sense.
    DirectiveJunk,
    /// Connections that open and close without a request.
    ConnectionFlood,
}

/// What the abusers of one thread saw: statuses ("431"), ends ("closed"), and what was "unfinished" at the end. Bounded by
/// the statuses and kinds of faults.
pub type Outcomes = BTreeMap<String, i64>;

pub struct Plan {
    pub kind: Kind,
    /// How many at the same time.
    pub clients: usize,
    /// Requests or connections each of them makes in a second, at most.
    pub rate: u32,
    pub time: Duration,
}

const RANGES: [&str; 10] = [
    "bytes=-",
    "bytes=5-2",
    "bytes=99999999999999999999-",
    "bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7",
    "bytes=18446744073709551615-18446744073709551615",
    "bytes=-0",
    "bytes=a-b",
    "lines=1-2",
    "bytes=0-18446744073709551615",
    "bytes = 0 - 1",
];

const DIRECTIVES: [&str; 10] = [
    "_HLS_msn=-1",
    "_HLS_msn=99999999999999999999",
    "_HLS_msn=18446744073709551615&_HLS_part=18446744073709551615",
    "_HLS_part=1",
    "_HLS_msn=1&_HLS_msn=2",
    "_HLS_msn=&_HLS_part=",
    "_HLS_msn=%00",
    "_HLS_msn=1e9&_HLS_skip=MAYBE",
    "_HLS_msn=4000000000",
    "_HLS_skip=YES&_HLS_skip=YES",
];

/// True for addresses of this machine or its own network: nobody else's server is to be abused.
pub fn is_ours(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Abuses for the plan's time.
pub async fn run(shared: &Rc<Shared>, plan: &Plan) -> Result<Outcomes, Fault> {
    let url = &shared.options.url;
    let address = shared.network.address(url).await?;
    if !is_ours(address.ip()) || url.scheme() != "http" {
        return Err(Fault::Connect(format!("--abuse is for http on loopback and private addresses, not {url}")));
    }
    let playlist = renditions(shared, &mut Connection::default()).await?.swap_remove(0);
    let outcomes = Rc::new(RefCell::new(Outcomes::new()));
    let mut tasks = JoinSet::new();
    let pause = Duration::from_secs(1) / plan.rate.max(1);
    for number in 0..plan.clients {
        let (shared, outcomes, playlist, kind) = (shared.clone(), outcomes.clone(), playlist.clone(), plan.kind);
        tasks.spawn_local(async move {
            // Spread over a second, and kept going whatever the server does.
            sleep(Duration::from_millis(number as u64 * 37 % 1000)).await;
            for turn in number.. {
                let begun = Instant::now();
                count(&outcomes, "unfinished".to_owned(), 1);
                let outcome = once(&shared, kind, &playlist, turn).await;
                count(&outcomes, "unfinished".to_owned(), -1);
                count(&outcomes, outcome.unwrap_or_else(|fault| fault.kind()), 1);
                tokio::time::sleep_until(begun + pause).await;
            }
        });
    }
    sleep(plan.time).await;
    tasks.shutdown().await;
    Ok(outcomes.take())
}

fn count(outcomes: &RefCell<Outcomes>, name: String, change: i64) {
    *outcomes.borrow_mut().entry(name).or_default() += change;
}

/// One piece of abuse, and how it was answered.
async fn once(shared: &Shared, kind: Kind, url: &Url, turn: usize) -> Result<String, Fault> {
    let mut connection = Connection::default();
    let mut nothing = |_: &[u8]| {};
    let pick = |list: &[&'static str]| list.get(turn % list.len().max(1)).copied().unwrap_or_default();
    match kind {
        Kind::SlowHeaders => slow_headers(shared, url).await,
        Kind::SlowRead => slow_read(shared, url).await,
        Kind::HeaderBomb => {
            let bomb = match turn % 3 {
                0 => format!("x-bomb: {}\r\n", "b".repeat(256 * 1024)),
                1 => "a: b\r\n".repeat(20_000),
                _ => format!("cookie: {}\r\n", "c=d; ".repeat(30_000)),
            };
            let answer = connection.get(&shared.network, url, &bomb, &mut nothing).await?;
            Ok(answer.status.to_string())
        }
        Kind::RangeJunk => {
            let (_, body) = playlist(shared, &mut connection, url, "playlist").await?;
            let media = newest(&*shared.parse(url, body)?)?;
            let header = format!("range: {}\r\n", pick(&RANGES));
            Ok(connection.get(&shared.network, &media, &header, &mut nothing).await?.status.to_string())
        }
        Kind::DirectiveJunk => {
            let mut url = url.clone();
            url.set_query(Some(pick(&DIRECTIVES)));
            Ok(connection.get(&shared.network, &url, "", &mut nothing).await?.status.to_string())
        }
        Kind::ConnectionFlood => {
            drop(shared.network.tcp(url).await?);
            Ok("opened".to_owned())
        }
    }
}

/// A segment of the middle of the window, which stays for a while.
fn newest(playlist: &Playlist) -> Result<Url, Fault> {
    let complete: Vec<&Url> = playlist.segments.iter().filter_map(|s| s.url.as_ref()).collect();
    let found = complete.get(complete.len() / 2).copied().cloned();
    found.ok_or_else(|| Fault::Playlist("lists no segment".to_owned()))
}

async fn slow_headers(shared: &Shared, url: &Url) -> Result<String, Fault> {
    let mut stream = shared.network.tcp(url).await?;
    let head = request(url, "")?;
    let endless = std::iter::repeat_n(b"x-slow: a\r\n".as_slice(), 1_000).flatten();
    for byte in head.iter().take(head.len().saturating_sub(2)).chain(endless) {
        stream.write_all(&[*byte]).await.map_err(|_| Fault::Closed)?;
        let mut answer = [0; 12];
        match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            Err(_) => {}
            Ok(Ok(12)) => return Ok(status(&answer).to_string()),
            Ok(_) => return Err(Fault::Closed),
        }
    }
    Err(Fault::Timeout)
}

/// Sends requests for media until the server takes no more, and waits until it gives up.
async fn slow_read(shared: &Shared, url: &Url) -> Result<String, Fault> {
    let (_, body) = playlist(shared, &mut Connection::default(), url, "playlist").await?;
    let media = newest(&*shared.parse(url, body)?)?;
    let address = shared.network.address(url).await?;
    let refused = |e: std::io::Error| Fault::Connect(e.kind().to_string());
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
    let socket = socket.map_err(refused)?;
    // The less the kernel takes for us, the more the server has to keep.
    socket.set_recv_buffer_size(4 * 1024).map_err(refused)?;
    let mut stream = socket.connect(address).await.map_err(refused)?;
    let many = request(&media, "")?.repeat(50);
    let _ = timeout(Duration::from_secs(1), stream.write_all(&many)).await;
    // Closed by the server's deadline, which its manual gives as 30 s, long before this.
    let given_up = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            if stream.take_error().map_or(true, |e| e.is_some()) || stream.write_all(b"x").await.is_err() {
                return Err(Fault::Closed);
            }
        }
    };
    timeout(Duration::from_secs(90), given_up).await.unwrap_or(Err(Fault::Timeout))
}

/// `HTTP/1.1 431` → 431.
fn status(line: &[u8]) -> u16 {
    std::str::from_utf8(line).ok().and_then(|l| l.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_this_machine_and_its_network_are_ours() {
        for ip in ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd00::1", "::ffff:127.0.0.1"] {
            assert!(is_ours(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["1.1.1.1", "100.64.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0"] {
            assert!(!is_ours(ip.parse().unwrap()), "{ip}");
        }
        assert_eq!((status(b"HTTP/1.1 431"), status(b"rubbish")), (431, 0));
    }
}
