//! The container files, as far as they can be checked without an engine: they are well-formed, what
//! they copy is there, and what they start is a command of this program that runs without rights.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

const FILES: [&str; 2] = ["Dockerfile", "Dockerfile.jetson"];

/// Every instruction of the format.
const INSTRUCTIONS: [&str; 17] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Variables that others read: the program's cache folder, and NVIDIA's container runtime.
const FOREIGN: [&str; 3] =
    ["XDG_CACHE_HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// One instruction with what follows it, on one line.
struct Step {
    name: String,
    rest: String,
}

fn steps(file: &str) -> Vec<Step> {
    let path = root().join("config/docker").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut steps = Vec::new();
    let mut open = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(part) => open.push_str(&format!("{} ", part.trim())),
            None => {
                let whole = std::mem::take(&mut open) + line.trim();
                if let Some((name, rest)) = whole.split_once(' ') {
                    steps.push(Step { name: name.to_owned(), rest: rest.trim().to_owned() });
                } else {
                    assert!(whole.is_empty(), "{file}: `{whole}` has no arguments");
                }
            }
        }
    }
    assert!(open.is_empty(), "{file} ends in the middle of an instruction");
    for step in &steps {
        assert!(INSTRUCTIONS.contains(&step.name.as_str()), "{file}: {} is unknown", step.name);
    }
    steps
}

/// Those of the last stage: what is in the image.
fn last_stage(steps: &[Step]) -> &[Step] {
    let from = steps.iter().rposition(|step| step.name == "FROM").expect("a base");
    &steps[from..]
}

fn only<'a>(steps: &'a [Step], name: &str) -> &'a str {
    let mut found = steps.iter().filter(|step| step.name == name);
    let step = found.next().unwrap_or_else(|| panic!("there is no {name}"));
    assert!(found.next().is_none(), "{name} is there twice");
    &step.rest
}

/// A command that needs no shell.
fn exec_form(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn run(arguments: &[String]) -> Output {
    Command::new(FOREBAY).env_clear().args(arguments).output().expect("runs")
}

/// Asserts that the command is one of the bundle's program, which takes it.
fn assert_command(command: &[String], help: &str) {
    let (program, arguments) = command.split_first().expect("a program");
    assert_eq!(program, "/opt/forebay/bin/forebay");
    let with = |more: &[&str]| {
        run(&arguments
            .iter()
            .cloned()
            .chain(more.iter().map(ToString::to_string))
            .collect::<Vec<_>>())
    };
    let output = with(&["--help"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains(help), "{command:?}: {output:?}");
    // The check can fail: an option that there is not is noticed before the help.
    assert_eq!(with(&["--no-such-option", "--help"]).status.code(), Some(64));
}

#[test]
fn bases_are_pinned_and_every_argument_is_used() {
    for file in FILES {
        let steps = steps(file);
        let mut arguments = BTreeMap::new();
        for step in steps.iter().filter(|step| step.name == "ARG") {
            let (name, value) = step.rest.split_once('=').expect("a default");
            let uses = steps.iter().filter(|step| step.rest.contains(&format!("${{{name}}}")));
            assert!(uses.count() > 0, "{file}: {name} is not used");
            arguments.insert(name.to_owned(), value.to_owned());
        }
        for step in steps.iter().filter(|step| step.name == "FROM") {
            let image = step.rest.split(' ').next().expect("an image");
            let name = image.strip_prefix("${").and_then(|name| name.strip_suffix('}'));
            let image = name.map_or(image, |name| arguments[name].as_str());
            let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
            let is_version = tag.chars().filter(char::is_ascii_digit).count() >= 3;
            assert!(is_version, "{file}: {image} may change");
        }
    }
}

#[test]
fn what_is_copied_is_there() {
    for file in FILES {
        let steps = steps(file);
        let stages: Vec<&str> = steps
            .iter()
            .filter(|step| step.name == "FROM")
            .filter_map(|step| step.rest.split_once(" AS ").map(|(_, name)| name))
            .collect();
        let built = steps.iter().filter(|step| step.name == "RUN");
        let built = built.map(|step| step.rest.as_str()).collect::<String>();
        for step in steps.iter().filter(|step| step.name == "COPY") {
            let (options, paths): (Vec<&str>, Vec<&str>) =
                step.rest.split(' ').partition(|part| part.starts_with("--"));
            let (_, sources) = paths.split_last().expect("a target");
            assert!(!sources.is_empty(), "{file}: COPY {}", step.rest);
            let from = options.iter().find_map(|option| option.strip_prefix("--from="));
            for source in sources {
                match from {
                    None => assert!(root().join(source).exists(), "{file}: {source}"),
                    Some(stage) => {
                        assert!(stages.contains(&stage), "{file}: no stage {stage}");
                        assert!(built.contains(source), "{file}: nothing makes {source}");
                    }
                }
            }
        }
        assert!(root().join(".dockerignore").is_file());
    }
}

#[test]
fn the_daemon_has_no_rights_and_needs_no_shell() {
    for file in FILES {
        let steps = steps(file);
        let image = last_stage(&steps);
        let user = only(image, "USER");
        let ids: Vec<u32> = user.split(':').map(|id| id.parse().expect("a number")).collect();
        assert!(ids.len() == 2 && !ids.contains(&0), "{file}: USER {user}");
        assert_eq!(only(image, "STOPSIGNAL"), "SIGTERM", "{file}");
        assert!(image.iter().all(|step| step.name != "RUN"), "{file} needs a shell");
        assert_command(&exec_form(only(image, "ENTRYPOINT")), "Usage: forebay serve");
        let check = only(image, "HEALTHCHECK");
        let (_, check) = check.split_once("CMD ").expect("a command");
        assert_command(&exec_form(check), "Usage: forebay ready");
    }
}

#[test]
fn every_setting_exists() {
    for file in FILES {
        let steps = steps(file);
        let variables = only(last_stage(&steps), "ENV").split_whitespace();
        let variables = variables.map(|part| part.split_once('=').expect("NAME=VALUE"));
        let (own, other): (Vec<_>, Vec<_>) =
            variables.partition(|(name, _)| name.starts_with("FOREBAY_"));
        for (name, _) in other {
            assert!(FOREIGN.contains(&name), "{file}: nobody reads {name}");
        }
        let mut check = Command::new(FOREBAY);
        check.env_clear().envs(own.iter().copied()).args(["config", "check"]);
        let output = check.output().expect("runs");
        assert!(output.status.success() && !own.is_empty(), "{file}: {output:?}");
    }
}
