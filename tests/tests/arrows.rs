//! The dependency arrows of docs/architecture.md: any other is a failure.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Our crates and which of our crates each may name.
const ARROWS: [(&str, &[&str]); 8] = [
    ("media", &[]),
    ("packager", &["media"]),
    ("ingest", &["media"]),
    ("engine", &["media"]),
    ("placement", &[]),
    ("server", &["media", "packager", "ingest", "engine", "placement"]),
    ("e2e", &[]),
    // A client of any server: it must work without ours.
    ("load", &[]),
];

/// Heavy crates and the only ones of ours that may name them.
const HEAVY: [(&str, &[&str]); 8] = [
    ("gstreamer", &["engine"]),
    ("gstreamer-app", &["engine"]),
    ("gstreamer-video", &["engine"]),
    ("gstreamer-rtp", &["engine"]),
    ("rtc", &["ingest"]),
    ("retina", &["ingest"]),
    ("hyper", &["server"]),
    ("tokio", &["ingest", "engine", "server", "e2e", "load"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().no_deps().current_dir(e2e::root()).exec().unwrap()
}

/// What a crate names outside its tests.
fn named(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let package = metadata.packages.iter().find(|p| p.name.as_str() == package).unwrap();
    package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development).map(|d| d.name.clone()).collect()
}

#[test]
fn our_crates_depend_on_each_other_in_one_direction_only() {
    let metadata = metadata();
    let ours: Vec<_> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    assert_eq!(ours.len(), ARROWS.len(), "a crate without a row here: {ours:?}");
    for (package, allowed) in ARROWS {
        for name in named(&metadata, package).iter().filter(|name| ours.contains(name)) {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn heavy_crates_stay_in_their_rooms() {
    let metadata = metadata();
    for package in ARROWS.map(|(package, _)| package) {
        let names = named(&metadata, package);
        for (heavy, allowed) in HEAVY {
            assert!(!names.contains(heavy) || allowed.contains(&package), "{package} must not depend on {heavy}");
        }
    }
}
