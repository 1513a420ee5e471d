//! `docs/compatibility.md` says of each behaviour, `docs/guarantees.md` of each promise, and
//! `docs/hostile-peers.md` of each attack, which test holds it: that test exists.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every row of the tables, as its cells.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let cells = |row| {
        str::trim_matches(row, '|')
            .split('|')
            .map(str::trim)
            .collect()
    };
    rows.map(cells).collect()
}

/// The names in backticks.
fn cited(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                let name = line
                    .strip_prefix("fn ")
                    .and_then(|rest| rest.split_once('('));
                if let Some((name, _)) = name.filter(|_| is_test) {
                    found.insert(name.to_owned());
                }
                is_test = line == "#[test]";
            }
        }
    }
}

/// Checks the tables of one page; how many behaviours are held by tests.
fn held(text: &str, tests: &BTreeSet<String>) -> usize {
    let mut behaviours = 0;
    for cells in rows(text) {
        let held_by = *cells.last().unwrap();
        let is_heading = held_by == "held by" || held_by.starts_with("---");
        // A row in bold alone is a subject.
        if is_heading || (held_by.is_empty() && cells[0].starts_with("**")) {
            continue;
        }
        let names = cited(held_by);
        assert!(!names.is_empty(), "held by nothing: {}", cells[0]);
        for name in names {
            assert!(tests.contains(name), "no such test: {name}");
        }
        behaviours += 1;
    }
    behaviours
}

#[test]
fn every_test_that_the_documentation_names_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    functions(&root.join("src"), &mut tests);
    functions(&root.join("tests"), &mut tests);
    let behaviours = held(include_str!("../docs/compatibility.md"), &tests);
    assert!(behaviours > 90, "{behaviours} rows were read");
    let (attacks, _) = include_str!("../docs/hostile-peers.md")
        .split_once("\n## ")
        .unwrap();
    let attacks = held(attacks, &tests);
    assert!(attacks > 20, "{attacks} rows were read");
    let guarantees = include_str!("../docs/guarantees.md");
    let (promises, _) = guarantees.split_once("\n## Doing more").unwrap();
    let promises = held(promises, &tests);
    assert!(promises > 15, "{promises} rows were read");
}
