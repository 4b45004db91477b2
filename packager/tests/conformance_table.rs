//! Keeps docs/conformance.md true: every rule has a row and names a test, and every test that it names is there.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// The property that the page calls "any source".
const ANY_SOURCE: &str = "playlists_and_media_of_any_source_keep_the_rules";

/// Adds the name of every function below `folder`, build outputs left out.
fn functions(folder: &Path, found: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !matches!(entry.file_name().to_str(), Some("target" | "node_modules")) {
            functions(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let names = text.lines().filter_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

/// Of `A20–A22` or `B8`, each.
fn each(ids: &str) -> impl Iterator<Item = String> {
    let (first, last) = ids.split_once('–').unwrap_or((ids, ids));
    let letter = first[..1].to_owned();
    let number = |id: &str| id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap();
    (number(first)..=number(last)).map(move |n| format!("{letter}{n}"))
}

#[test]
fn every_rule_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = HashSet::new();
    for folder in ["packager", "server", "tests"] {
        functions(&root.join(folder), &mut found);
    }
    let page = fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    let mut rules = HashSet::new();
    for row in page.lines().filter(|line| line.starts_with("| A") || line.starts_with("| B")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let excused = tests.contains("does not apply: ");
        assert!(!named.is_empty() || tests.contains("any source") || excused, "no test: {row}");
        for name in named {
            assert!(found.contains(name), "{name} is not there: {row}");
        }
        let ids = row.split('|').nth(1).unwrap();
        for id in ids.split(',').flat_map(|id| each(id.trim())) {
            assert!(rules.insert(id.clone()), "{id} has two rows");
        }
    }
    for id in each("A1–A60").chain(each("B1–B22")) {
        assert!(rules.contains(&id), "{id} has no row");
    }
    assert!(page.contains(ANY_SOURCE) && found.contains(ANY_SOURCE));
}
