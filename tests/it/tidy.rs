//! The invariants of ARCHITECTURE.md, read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` with this ending: its path from the root, and its text.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == ending) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty() || ending == "sql", "no {ending} files in {folder}");
    found
}

/// The code of a file without comments, and without its unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().map(|it| it.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The module that a source file belongs to: `src/store/submit.rs` and `src/store.rs` are `store`.
fn module(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules of this crate that the code names.
fn uses(code: &str) -> Vec<String> {
    let mut found: Vec<String> = code
        .split("crate::")
        .skip(1)
        .flat_map(|rest| {
            let list = rest.strip_prefix('{').and_then(|it| it.split('}').next());
            let names: Vec<&str> = match list {
                Some(list) => list.split(',').collect(),
                None => vec![rest],
            };
            names
                .into_iter()
                .map(|it| {
                    it.trim().chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
                })
                .collect::<Vec<String>>()
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// module → the modules of this crate that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("clock", &[]),
    ("failpoints", &["failpoints"]),
    ("loops", &[]),
    ("measures", &[]),
    ("shutdown", &[]),
    ("wake", &["ids"]),
    ("domain", &["ids", "domain"]),
    ("notation", &["notation"]),
    ("config", &["domain", "config"]),
    ("telemetry", &["config", "measures"]),
    ("postgres", &["postgres"]),
    ("store", &["failpoints", "domain", "ids", "store"]),
    ("runner", &["failpoints", "domain", "ids", "runner", "clock"]),
    ("logs", &["failpoints", "domain", "ids", "measures", "runner", "store", "wake", "logs"]),
    ("outputs", &["failpoints", "domain", "ids", "runner", "outputs"]),
    ("scheduler", &["clock", "domain", "ids", "loops", "measures", "store", "wake"]),
    (
        "maintenance",
        &[
            "failpoints",
            "clock",
            "domain",
            "ids",
            "loops",
            "measures",
            "outputs",
            "runner",
            "store",
        ],
    ),
    (
        "worker",
        &[
            "clock",
            "domain",
            "failpoints",
            "ids",
            "logs",
            "measures",
            "outputs",
            "runner",
            "store",
            "wake",
            "worker",
        ],
    ),
    ("targets", &["domain", "store", "targets"]),
    ("auth", &["clock", "ids", "store", "auth"]),
    (
        "api",
        &[
            "auth",
            "clock",
            "domain",
            "failpoints",
            "ids",
            "measures",
            "notation",
            "store",
            "targets",
            "wake",
            "api",
        ],
    ),
];
/// These may use everything.
const WIRING: [&str; 4] = ["app", "cli", "main", "lib"];

#[test]
fn dependencies_point_one_way() {
    let mut faults = Vec::new();
    for (path, text) in files("src", "rs") {
        let module = module(&path);
        if WIRING.contains(&module) {
            continue;
        }
        let allowed = MAY_USE.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = allowed else {
            faults
                .push(format!("{path}: module {module:?} is not in MAY_USE: say what it may use"));
            continue;
        };
        for used in uses(&code(&text)) {
            if used != module && !allowed.contains(&used.as_str()) {
                faults.push(format!("{path}: {module} must not use {used}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn each_library_has_one_home() {
    let homes: &[(&str, &[&str])] = &[
        ("sqlx::", &["store"]),
        ("bollard::", &["runner"]),
        ("kube::", &["runner"]),
        ("k8s_openapi::", &["runner"]),
        ("axum::", &["api", "auth", "app"]),
        ("minijinja::", &["domain"]),
        ("serde_saphyr::", &["notation"]),
        ("utoipa::", &["api"]),
        ("clap::", &["cli", "main"]),
        ("reqwest::", &["cli"]),
        ("anyhow::", &["cli", "app", "main", "maintenance"]),
    ];
    let mut faults = Vec::new();
    for (path, text) in files("src", "rs") {
        let code = code(&text);
        for (library, homes) in homes {
            // `jiff_sqlx::` is another library.
            let named = code
                .match_indices(library)
                .any(|(at, _)| !code[..at].ends_with(|it: char| it.is_alphanumeric() || it == '_'));
            if named && !homes.contains(&module(&path)) {
                faults.push(format!("{path}: {library} belongs to {}", homes.join(", ")));
            }
        }
        if path.starts_with("src/runner/")
            && !path.starts_with("src/runner/docker")
            && code.contains("bollard::")
        {
            faults.push(format!("{path}: bollard:: belongs to runner/docker"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_domain_is_pure() {
    let mut faults = Vec::new();
    for (path, text) in files("src/domain", "rs") {
        if path.ends_with("tests.rs") {
            continue;
        }
        let code = code(&text);
        for word in [
            "async ", ".await", "tokio", "now()", "std::fs", "std::net", "std::env", "rand",
            "println",
        ] {
            if code.contains(word) {
                faults.push(format!("{path}: {word:?} has no place in the domain"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn files_stay_small() {
    const MOST_LINES: usize = 700;
    let long: Vec<_> = ["src", "tests", "benches"]
        .into_iter()
        .flat_map(|it| files(it, "rs"))
        .filter(|(_, text)| text.lines().count() > MOST_LINES)
        .map(|(path, text)| format!("{path}: {} lines, at most {MOST_LINES}", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "split by what they do:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_open_or_silenced() {
    // Put together, so that this file does not name them.
    let words = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["#[ig", "nore"].concat(),
        ["FIX", "ME"].concat(),
        ["#[al", "low("].concat(),
        ["#![al", "low("].concat(),
        ["thread::sl", "eep"].concat(),
    ];
    let mut faults = Vec::new();
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(|it| files(it, "rs")) {
        for word in &words {
            if text.contains(word.as_str()) {
                faults.push(format!("{path}: {word:?}"));
            }
        }
        if path.starts_with("tests/") && text.contains(["time::sl", "eep("].concat().as_str()) {
            faults.push(format!("{path}: a sleep in a test: wait on a predicate with a deadline"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn state_columns_agree_with_their_enums() {
    use supercargo::domain::state::TaskState;
    let schema: String = files("migrations", "sql").into_iter().map(|(_, text)| text).collect();
    let list = |terminal: bool| {
        let states: Vec<_> = TaskState::ALL
            .into_iter()
            .filter(|it| it.is_terminal() == terminal)
            .map(|it| format!("'{it}'"))
            .collect();
        format!("check (state in ({}))", states.join(", "))
    };
    assert!(schema.contains(&list(false)), "live_tasks: {}", list(false));
    assert!(schema.contains(&list(true)), "ended_tasks: {}", list(true));
}

#[test]
fn the_state_diagram_is_the_one_of_the_code() {
    use supercargo::domain::attempt::PHASE_DIAGRAM;
    let mut diagram = String::from("```mermaid\nstateDiagram-v2\n    [*] --> queued\n");
    for (from, to, by) in PHASE_DIAGRAM {
        diagram.push_str(&format!("    {from} --> {to}: {by}\n"));
    }
    for terminal in ["succeeded", "failed", "skipped", "cancelled"] {
        diagram.push_str(&format!("    {terminal} --> [*]\n"));
    }
    diagram.push_str("```\n");
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(page.contains(&diagram), "ARCHITECTURE.md must contain:\n{diagram}");
}

#[test]
fn migrations_come_in_pairs_with_speaking_names() {
    for (path, _) in files("migrations", "sql") {
        let name = Path::new(&path).file_name().unwrap().to_str().unwrap();
        let (stamp, rest) = name.split_once('_').unwrap();
        assert!(stamp.len() == 14 && stamp.bytes().all(|it| it.is_ascii_digit()), "{name}");
        let twin = match rest.strip_suffix(".up.sql") {
            Some(rest) => format!("{stamp}_{rest}.down.sql"),
            None => name.replace(".down.sql", ".up.sql"),
        };
        assert!(root().join("migrations").join(&twin).exists(), "{name} has no {twin}");
    }
}
