//! What the server reads back with `packager::validate` is told right: it finds no fault where this checker finds none.
#![allow(clippy::unwrap_used)]

use packager::validate::{Findings, Playlist, check_delta, check_one, check_update};

/// `before`: the whole playlist that was served before. `delta`: what who asks for a delta update gets now.
pub fn finds_no_fault(before: Option<&str>, now: &str, delta: &str) {
    let mut findings = Findings::default();
    let whole = Playlist::read(now, &mut findings).unwrap();
    let short = Playlist::read(delta, &mut findings).unwrap();
    let before = before.map(|text| Playlist::read(text, &mut findings).unwrap());
    for playlist in [&whole, &short] {
        check_one(playlist, before.as_ref().map(Playlist::edge), &mut findings);
        if let Some(before) = &before {
            check_update(before, playlist, &mut findings);
        }
    }
    check_delta(&whole, &short, &mut findings);
    let faults: Vec<_> = findings.faults().collect();
    assert!(faults.is_empty(), "{faults:?}\n{now}\n{delta}");
}
