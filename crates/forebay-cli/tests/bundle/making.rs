//! How bundles are made.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::output;
use crate::{Shop, said};

/// Names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let shop = Shop::new();
    let (one, other) = (shop.made("one.tar.gz"), shop.made("other.tgz"));
    let same = fs::read(one).expect("reads") == fs::read(&other).expect("reads");
    assert!(same, "two archives of the same inputs differ");
    // An archive that other programs unpack is the folder.
    let folder = shop.made("folder");
    let unpacked = shop.place("unpacked");
    fs::create_dir(&unpacked).expect("creates");
    let tar = output(Command::new("tar").arg("-xzf").arg(other).arg("-C").arg(&unpacked));
    assert!(tar.status.success(), "{}", said(&tar));
    let unpacked = unpacked.join("forebay");
    let differ = output(Command::new("diff").arg("-r").arg(&folder).arg(&unpacked));
    assert!(differ.status.success(), "{}", said(&differ));
    for file in ["bin/forebay", "forebay.toml"] {
        let look = |folder: &Path| {
            let found = fs::metadata(folder.join(file)).expect("is there");
            (found.mode(), found.mtime())
        };
        assert_eq!(look(&folder), look(&unpacked), "{file}");
    }
    // And the manifest is what the usual tool reads.
    let check = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "MANIFEST.sha256"])
        .current_dir(folder)
        .output()
        .expect("runs");
    assert!(check.status.success(), "{}", said(&check));
}

#[test]
fn what_is_there_is_replaced_only_on_request_and_nothing_is_left_behind() {
    let shop = Shop::new();
    for name in ["folder", "archive.tar"] {
        shop.made(name);
        let before = shop.bundle(name, &[]);
        assert_eq!(before.status.code(), Some(73), "{}", said(&before));
        assert!(said(&before).contains("is there already"), "{}", said(&before));
        fs::write(shop.place(&format!("{name}.partial")), "of somebody else").expect("writes");
        let forced = shop.bundle(name, &["--force"]);
        assert!(forced.status.success(), "{}", said(&forced));
    }
    // A folder with other things in it is not removed, whatever was asked for.
    fs::create_dir(shop.place("mine")).expect("creates");
    fs::write(shop.place("mine/letter"), "dear").expect("writes");
    let refused = shop.bundle("mine", &["--force"]);
    assert_eq!(refused.status.code(), Some(73), "{}", said(&refused));
    assert!(shop.place("mine/letter").is_file());
    let expected = ["archive.tar", "archive.tar.partial", "folder", "folder.partial", "mine"];
    assert_eq!(names(shop.folder.path()), expected);
}

#[test]
fn settings_with_files_of_this_machine_are_refused() {
    let shop = Shop::new();
    let file = shop.place("vehicle.toml");
    for (text, key) in [
        ("[tls]\ncertificate = 'chain.pem'\nkey = '/etc/forebay/key.pem'", "tls.certificate"),
        ("[events]\nfolder = 'events'", "events.folder"),
    ] {
        fs::write(&file, text).expect("writes");
        let refused = shop.bundle("new", &["--config", &file.display().to_string()]);
        assert_eq!(refused.status.code(), Some(78), "{}", said(&refused));
        assert!(said(&refused).contains(key), "{}", said(&refused));
    }
    fs::write(&file, "[events]\nfolder = '/var/lib/forebay/events'").expect("writes");
    let made = shop.bundle("new", &["--config", &file.display().to_string()]);
    assert!(made.status.success(), "{}", said(&made));
}

#[test]
fn a_bundle_that_cannot_be_made_leaves_nothing() {
    let shop = Shop::new();
    fs::write(shop.model.file("tokenizer.json"), "{").expect("writes");
    fs::remove_file(shop.model.file("config.json")).expect("removes");
    let refused = shop.bundle("folder", &[]);
    assert_eq!(refused.status.code(), Some(66), "{}", said(&refused));
    let prefix = Shop::new().bundle("folder", &["--prefix", "relative"]);
    assert_eq!(prefix.status.code(), Some(64), "{}", said(&prefix));
    assert!(names(shop.folder.path()).is_empty());
}

#[test]
fn links_inside_the_model_become_files_and_others_are_refused() {
    let shop = Shop::new();
    let model = shop.model.path();
    fs::rename(model.join("model.safetensors"), model.join("weights")).expect("renames");
    symlink("weights", model.join("model.safetensors")).expect("links");
    let bundle = shop.made("folder");
    let inside = bundle.join("models").join(model.file_name().expect("a name"));
    let found = inside.join("model.safetensors").symlink_metadata().expect("is there");
    assert!(found.is_file(), "{found:?}");
    let same = fs::read(inside.join("model.safetensors")).expect("reads");
    assert_eq!(same, fs::read(model.join("weights")).expect("reads"));

    let outside = tempfile::NamedTempFile::new().expect("a file");
    symlink(outside.path(), model.join("notes.txt")).expect("links");
    let refused = shop.bundle("other", &[]);
    assert_eq!(refused.status.code(), Some(65), "{}", said(&refused));
    assert!(said(&refused).contains("notes.txt"), "{}", said(&refused));
    assert_eq!(names(shop.folder.path()), ["folder"]);
}
