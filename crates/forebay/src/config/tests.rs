//! The declared keys against the committed file and against their own ranges.

mod messages;
mod property;

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::declare::Allowed;
use super::*;

/// The committed file.
fn committed() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/forebay.toml"))
}

#[test]
fn the_committed_file_is_the_rendered_defaults() {
    let rendered = Config::default().describe();
    if std::env::var_os("FOREBAY_REGENERATE").is_some() {
        std::fs::write(committed(), &rendered).expect("config/forebay.toml is writable");
    }
    let text = std::fs::read_to_string(committed()).expect("config/forebay.toml is readable");
    assert!(
        text == rendered,
        "config/forebay.toml is not what the declarations say; \
         run this test with FOREBAY_REGENERATE=1 to rewrite it. Expected:\n{rendered}"
    );
}

#[test]
fn the_committed_file_has_every_key_once_with_a_comment() {
    let text = std::fs::read_to_string(committed()).expect("config/forebay.toml is readable");
    let mut group = "";
    let mut written = Vec::new();
    let mut before = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            group = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            assert!(before.starts_with("# ("), "{group}.{key} has no comment");
            assert!(before.ends_with(&format!("; default {value})")), "{group}.{key}: {before}");
            written.push(format!("{group}.{key}"));
        }
        before = line;
    }
    // The names come from the structs through serde, not from the table that renders the file.
    let table = Config::default().to_table();
    let fields: BTreeSet<String> = table
        .iter()
        .flat_map(|(group, keys)| {
            let keys = keys.as_table().expect("a group");
            keys.keys().map(move |key| format!("{group}.{key}"))
        })
        .collect();
    assert_eq!(written.len(), fields.len());
    assert_eq!(written.into_iter().collect::<BTreeSet<_>>(), fields);
    assert_eq!(Config::load(&committed()).expect("it loads"), Config::default());
}

#[test]
fn no_line_is_wider_than_the_page() {
    for line in Config::default().describe().lines() {
        assert!(line.chars().count() <= 110, "{line}");
    }
}

#[test]
fn defaults_are_valid_and_an_empty_file_means_them() {
    Config::default().validate().expect("valid");
    assert_eq!(Config::from_toml("", "f.toml").expect("valid"), Config::default());
}

/// TOML for the ends of what a key accepts, and for values just beyond.
fn edges(allowed: Allowed) -> (Vec<String>, Vec<String>) {
    match allowed {
        Allowed::Integer(low, high) => (
            vec![low.to_string(), high.to_string()],
            vec![(low - 1).to_string(), (high + 1).to_string(), "1.5".into(), "\"1\"".into()],
        ),
        Allowed::Number(low, high) => (
            vec![low.to_string(), high.to_string()],
            vec![(low - 0.1).to_string(), (high * 2.0).to_string(), "nan".into(), "inf".into()],
        ),
        Allowed::Switch => {
            (vec!["true".into(), "false".into()], vec!["1".into(), "\"true\"".into()])
        }
        Allowed::Choice(words) => (
            words.iter().map(|word| format!("\"{word}\"")).collect(),
            vec!["\"\"".into(), "true".into(), format!("\"{}\"", words[0].to_uppercase())],
        ),
        Allowed::Path(_) | Allowed::PathOr(..) => {
            (vec!["\"\"".into(), "'/a b/ü'".into()], vec!["3".into(), "\"a\\u0000b\"".into()])
        }
        Allowed::Name(_) => (
            vec!["\"\"".into(), "'users'".into()],
            vec!["3".into(), "'a b'".into(), "'a,b'".into()],
        ),
        Allowed::NameList(count) => (
            vec!["[]".into(), "['root', '1000']".into(), format!("{:?}", vec!["a"; count])],
            vec!["'a'".into(), "[3]".into(), "['']".into(), format!("{:?}", vec!["a"; count + 1])],
        ),
        Allowed::HashList(count) => (
            vec!["[]".into(), format!("{:?}", vec!["0aF9".repeat(16); count])],
            vec!["['ab']".into(), "[3]".into(), format!("['{}']", "g".repeat(64))],
        ),
        Allowed::Address(_) => (
            vec!["\"\"".into(), "'127.0.0.1:80'".into(), "'[::1]:0'".into()],
            vec!["'127.0.0.1'".into(), "80".into(), "'localhost:80'".into()],
        ),
        Allowed::Url(_) => (
            vec!["\"\"".into(), "'http://127.0.0.1:4318'".into(), "'http://[::1]/a/b'".into()],
            vec![
                "'https://collector'".into(),
                "'127.0.0.1:4318'".into(),
                "'http://'".into(),
                "'http://a:0'".into(),
                "'http://u@a'".into(),
                "'http://a b'".into(),
            ],
        ),
        Allowed::Rungs => (
            vec!["\"auto\"".into(), "\"cpu\"".into(), "['cuda:63', 'cuda:0', 'cpu']".into()],
            vec!["[]".into(), "['cuda:64']".into(), "['cuda:+1']".into(), "[1]".into()],
        ),
        Allowed::PathList(count) => (
            vec!["[]".into(), "['/a b/ü']".into(), format!("{:?}", vec!["a"; count])],
            vec!["[3]".into(), "['']".into(), format!("{:?}", vec!["a"; count + 1])],
        ),
        Allowed::IntegerList(count, low, high) => (
            vec![format!("[{low}, {high}]"), format!("{:?}", vec![high; count])],
            vec!["[]".into(), format!("[{}]", low - 1), format!("{:?}", vec![high; count + 1])],
        ),
    }
}

#[test]
fn every_key_takes_its_range_and_nothing_beyond() {
    for group in GROUPS {
        for key in group.keys {
            let full = format!("{}.{}", group.name, key.name);
            let (good, bad) = edges(key.allowed);
            for value in good {
                // A rule between keys may still object; the value itself may not.
                let text = format!("[{}]\n{} = {value}\n", group.name, key.name);
                if let Err(error) = Config::from_toml(&text, "f.toml") {
                    assert!(!error.to_string().contains("allowed:"), "{full} = {value}: {error}");
                }
            }
            for value in bad {
                let text = format!("[{}]\n{} = {value}\n", group.name, key.name);
                let error = Config::from_toml(&text, "f.toml").expect_err(&text);
                assert_eq!(error.problems.len(), 1, "{error}");
                let problem = &error.problems[0];
                assert_eq!((problem.line, problem.column), (Some(2), Some(key.name.len() + 4)));
                assert_eq!(problem.key, full);
                assert!(problem.message.contains(&key.allowed_text()), "{problem}");
            }
        }
    }
}

#[test]
fn lists_of_paths_come_from_variables_as_in_path() {
    let set = |value: &str| messages::with_variables("", &[("FOREBAY_CUDA__LIBRARIES", value)]);
    let folders = set("/a:/b c:").expect("valid").cuda.libraries;
    assert_eq!(folders, [PathBuf::from("/a"), PathBuf::from("/b c")]);
    assert!(set("").expect("valid").cuda.libraries.is_empty());
}

#[test]
fn the_cache_is_the_users_a_named_folder_or_none() {
    let set = |value: &str| Config::from_toml(&format!("[cuda]\ncache = '{value}'\n"), "f.toml");
    for (written, place) in [
        ("auto", CachePlace::Auto),
        ("", CachePlace::None),
        ("./auto", CachePlace::At("./auto".into())),
    ] {
        assert_eq!(set(written).expect("valid").cuda.cache, place);
    }
}

#[test]
fn times_are_durations() {
    use std::time::Duration;
    let mut config = Config::default();
    assert_eq!(config.worker.batch_deadline(16_500), Duration::from_millis(5_000 + 16_500));
    assert_eq!(config.lanes.spin(), Duration::ZERO);
    config.lanes.wait = LaneWait::Spin;
    assert_eq!(config.lanes.spin(), Duration::from_micros(50));
    let probes = [0, 1, 2, 3, 99].map(|nth| config.supervisor.quarantine_probe(nth).as_secs());
    assert_eq!(probes, [30, 60, 300, 300, 300]);
}

#[test]
fn relative_paths_count_from_the_folder_of_the_file_and_else_from_here() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("forebay.toml");
    let text = "[model]\npath = \"model\"\n[cuda]\ncache = \"auto\"\nlibraries = [\"a\", \"/b\"]\n\
                [server]\nsocket = \"\"\nadmin_socket = \"../admin.sock\"\n";
    std::fs::write(&file, text).expect("writes");
    let config = Config::load(&file).expect("loads");
    assert_eq!(config.model.path, folder.path().join("model"));
    assert_eq!(config.cuda.libraries, [folder.path().join("a"), "/b".into()]);
    assert_eq!(config.cuda.cache, CachePlace::Auto);
    assert_eq!(config.server.socket, PathBuf::new());
    assert_eq!(config.server.admin_socket, folder.path().join("../admin.sock"));
    assert_eq!(config.events.folder, PathBuf::new());
    let variables = [("FOREBAY_MODEL__PATH", "model")];
    let config = Config::from_toml_and_env("", "here", variables).expect("loads");
    assert_eq!(config.model.path, PathBuf::from("model"));
    let config = Config::from_toml(text, "here").expect("loads");
    assert_eq!(config.model.path, PathBuf::from("model"));
}
