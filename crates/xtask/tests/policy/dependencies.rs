//! Which crate may depend on which, and on what terms.
//!
//! Everything is read from `cargo metadata` and `deny.toml`. The most important rule: the host
//! process must never load ONNX Runtime or CUDA, so `forebay` must not even reach their bindings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::{assert_none, root};

/// The dependency table of the architecture: what each crate may use of the workspace outside its
/// tests. A new crate is added here on purpose, with its place in the order.
const WORKSPACE_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("forebay-protocol", &[]),
    ("forebay-arena", &["forebay-protocol"]),
    ("forebay-stage", &[]),
    ("forebay-model", &[]),
    ("forebay-cuda", &["forebay-model"]),
    ("forebay-onnx", &["forebay-model"]),
    (
        "forebay-worker",
        &[
            "forebay-arena",
            "forebay-cuda",
            "forebay-model",
            "forebay-onnx",
            "forebay-protocol",
            "forebay-stage",
        ],
    ),
    ("forebay", &["forebay-arena", "forebay-model", "forebay-protocol", "forebay-stage"]),
    ("forebay-server", &["forebay"]),
    // Judges what the runtime did, and shares no code with it.
    ("forebay-checker", &[]),
    ("forebay-soak", &["forebay", "forebay-checker"]),
    ("forebay-capi", &["forebay"]),
    (
        "forebay-cli",
        &[
            "forebay",
            "forebay-arena",
            "forebay-checker",
            "forebay-cuda",
            "forebay-model",
            "forebay-onnx",
            "forebay-protocol",
            "forebay-server",
            "forebay-soak",
            "forebay-stage",
            "forebay-worker",
        ],
    ),
    ("forebay-examples", &["forebay", "forebay-worker"]),
    ("xtask", &["forebay-model"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
    manifest_path: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

impl Dependency {
    /// True if the dependency is needed outside tests, benches and examples.
    fn is_shipped(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
    }
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

impl Metadata {
    fn package(&self, id: &str) -> &Package {
        self.packages.iter().find(|package| package.id == id).unwrap()
    }

    fn node(&self, id: &str) -> &Node {
        self.resolve.nodes.iter().find(|node| node.id == id).unwrap()
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Names of the packages that `id` depends on directly, outside tests.
    fn shipped_dependencies(&self, id: &str) -> BTreeSet<&str> {
        let deps = self.node(id).deps.iter().filter(|dependency| dependency.is_shipped());
        deps.map(|dependency| self.package(&dependency.pkg).name.as_str()).collect()
    }

    /// Every package that `id` reaches outside tests, with the path that leads there.
    fn reached(&self, id: &str) -> BTreeMap<&str, String> {
        let start = self.package(id);
        let mut paths = BTreeMap::from([(start.name.as_str(), start.name.clone())]);
        let mut open = vec![(start.id.as_str(), start.name.clone())];
        let mut seen = BTreeSet::from([start.id.as_str()]);
        while let Some((id, path)) = open.pop() {
            for dependency in self.node(id).deps.iter().filter(|d| d.is_shipped()) {
                if seen.insert(&dependency.pkg) {
                    let package = self.package(&dependency.pkg);
                    let path = format!("{path} -> {}", package.name);
                    paths.insert(&package.name, path.clone());
                    open.push((&package.id, path));
                }
            }
        }
        paths
    }
}

/// The resolved dependencies for this machine. Tried without a network first: where the tests are
/// being built, everything is there already.
fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let run = |extra: &[&str]| -> Output {
            Command::new(&cargo)
                .current_dir(root())
                .args(["metadata", "--format-version", "1", "--locked"])
                .args(["--filter-platform", &host()])
                .args(extra)
                .output()
                .unwrap()
        };
        let mut output = run(&["--offline"]);
        if !output.status.success() {
            output = run(&[]);
        }
        assert!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).current_dir(root()).arg("-vV").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

fn deny() -> Deny {
    toml::from_str(&fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

#[test]
fn workspace_crates_depend_only_on_what_the_architecture_allows() {
    let metadata = metadata();
    let names: BTreeSet<&str> = metadata.members().map(|member| member.name.as_str()).collect();
    let mut objections = Vec::new();
    for member in metadata.members() {
        let row = WORKSPACE_DEPENDENCIES.iter().find(|(name, _)| *name == member.name);
        let Some((_, allowed)) = row else {
            objections.push(format!("{} is not in the table", member.name));
            continue;
        };
        for name in metadata.shipped_dependencies(&member.id).intersection(&names) {
            if !allowed.contains(name) {
                objections.push(format!("{} must not depend on {name}", member.name));
            }
        }
    }
    assert_none(&objections, "remove the dependency, or change the architecture and the table:");
}

#[test]
fn the_library_reaches_no_engine_and_no_binding() {
    let metadata = metadata();
    let forebay = metadata.members().find(|member| member.name == "forebay").unwrap();
    let reached = metadata.reached(&forebay.id);
    assert!(reached.contains_key("forebay-protocol"), "the walk sees too little: {reached:?}");
    let forbidden = [
        "forebay-cuda",
        "forebay-onnx",
        "forebay-worker",
        "ort",
        "ort-sys",
        "cudarc",
        "nvml-wrapper",
    ];
    let objections: Vec<String> =
        forbidden.iter().filter_map(|name| reached.get(name).cloned()).collect();
    assert_none(&objections, "the host process must load no engine:");
}

#[test]
fn banned_crates_are_used_by_their_wrappers_only() {
    let metadata = metadata();
    let mut objections = Vec::new();
    for ban in deny().bans.deny {
        for node in &metadata.resolve.nodes {
            let user = &metadata.package(&node.id).name;
            let uses = node
                .deps
                .iter()
                .any(|dependency| metadata.package(&dependency.pkg).name == ban.name);
            if uses && !ban.wrappers.contains(user) {
                objections.push(format!("{user} depends on {}: {}", ban.name, ban.reason));
            }
        }
    }
    assert_none(&objections, "deny.toml, [bans] names who may:");
}

#[test]
fn the_engines_bindings_are_banned_for_everyone_else() {
    let deny = deny();
    for name in ["ort", "ort-sys", "cudarc", "libloading", "openssl-sys", "native-tls"] {
        let ban = deny.bans.deny.iter().find(|ban| ban.name == name);
        assert!(ban.is_some_and(|ban| !ban.reason.is_empty()), "deny.toml has no ban of {name}");
    }
    let users = |name: &str| deny.bans.deny.iter().find(|ban| ban.name == name).unwrap();
    assert_eq!(users("ort").wrappers, ["forebay-onnx"]);
    assert_eq!(users("cudarc").wrappers, ["forebay-cuda"]);
}

#[test]
fn every_licence_is_on_the_list() {
    let allowed: Vec<spdx::Licensee> = deny()
        .licenses
        .allow
        .iter()
        .map(|name| spdx::Licensee::parse(name).unwrap_or_else(|e| panic!("{name}: {e}")))
        .collect();
    let mut objections = Vec::new();
    for package in &metadata().packages {
        let name = format!("{} {}", package.name, package.version);
        let Some(licence) = &package.license else {
            objections.push(format!("{name} names no licence"));
            continue;
        };
        // Older crates write "MIT/Apache-2.0", which the lax mode reads as OR.
        match spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX) {
            Err(error) => objections.push(format!("{name}: {licence}: {}", error.reason)),
            Ok(expression) => {
                if !expression.evaluate(|need| allowed.iter().any(|have| have.satisfies(need))) {
                    objections.push(format!("{name}: {licence}"));
                }
            }
        }
    }
    assert_none(&objections, "licences not allowed by deny.toml, [licenses]:");
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let objections: Vec<String> = metadata()
        .packages
        .iter()
        .filter(|package| package.source.as_ref().is_some_and(|s| !s.starts_with("registry+")))
        .map(|package| format!("{}: {:?}", package.name, package.source))
        .collect();
    assert_none(&objections, "use a published version:");
    for package in metadata().packages.iter().filter(|package| package.source.is_none()) {
        assert!(
            metadata().workspace_members.contains(&package.id),
            "{} is a path outside the workspace",
            package.name
        );
    }
}

#[test]
fn every_crate_takes_the_workspace_lints_and_metadata() {
    let mut objections = Vec::new();
    for member in metadata().members() {
        let text = fs::read_to_string(Path::new(&member.manifest_path)).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let is_inherited = |table: &str, key: Option<&str>| {
            let table = manifest.get(table)?;
            let entry = key.map_or(Some(table), |key| table.get(key))?;
            entry.get("workspace")?.as_bool()
        };
        if is_inherited("lints", None) != Some(true) {
            objections.push(format!("{}: [lints] workspace = true is missing", member.name));
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if is_inherited("package", Some(key)) != Some(true) {
                objections.push(format!("{}: {key}.workspace = true is missing", member.name));
            }
        }
    }
    assert_none(&objections, "crates of the workspace share these settings:");
}
