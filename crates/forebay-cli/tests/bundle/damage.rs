//! Each kind of damage to a bundle is found and named.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::{Shop, assert_found, doctor, reseal};

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let before = fs::read(path).expect("reads");
    let mut bytes = before.clone();
    change(&mut bytes);
    fs::write(path, bytes).expect("writes");
    before
}

#[test]
fn damage_to_a_folder_is_named() {
    let shop = Shop::new();
    let bundle = shop.made("folder");

    let docs = bundle.join("docs/api.md");
    let before = change(&docs, |bytes| bytes[100] ^= 1);
    assert_found(&bundle, &["docs/api.md is not what it was"]);
    fs::write(&docs, before).expect("writes");

    fs::rename(bundle.join("LICENSE"), shop.place("away")).expect("renames");
    assert_found(&bundle, &["LICENSE is listed and not there"]);
    fs::rename(shop.place("away"), bundle.join("LICENSE")).expect("renames");

    fs::write(bundle.join("lib/libevil.so"), "").expect("writes");
    assert_found(&bundle, &["lib/libevil.so is there and not listed"]);
    fs::remove_file(bundle.join("lib/libevil.so")).expect("removes");

    symlink("/etc/passwd", bundle.join("docs/more.md")).expect("links");
    assert_found(&bundle, &["docs/more.md is a link to /etc/passwd"]);
    fs::remove_file(bundle.join("docs/more.md")).expect("removes");

    let manifest = bundle.join("MANIFEST.sha256");
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let before = change(&manifest, cut);
    assert_found(&bundle, &["MANIFEST.sha256 cannot be used", "changed or cut"]);
    fs::write(&manifest, &before).expect("writes");
    reseal(&bundle, |text| text.replace("  LICENSE", "  ../LICENSE"));
    assert_found(&bundle, &["\"../LICENSE\", which is not a plain path"]);
    fs::remove_file(&manifest).expect("removes");
    assert_found(&bundle, &["MANIFEST.sha256 is listed and not there"]);
    fs::write(&manifest, before).expect("writes");

    let (code, said) = doctor(&bundle);
    assert_eq!(code, Some(0), "all is as it was: {said}");
    assert_eq!(doctor(&shop.place("nowhere")).0, Some(66));
}

/// The archive's bytes, unpacked.
fn unpacked(archive: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(archive).expect("opens");
    GzDecoder::new(file).read_to_end(&mut bytes).expect("is whole");
    bytes
}

/// The archive with one more entry at its end.
fn with_entry(bytes: &[u8], path: &str, kind: tar::EntryType, target: Option<&str>) -> Vec<u8> {
    let mut made = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(bytes).entries().expect("an archive") {
        let entry = entry.expect("an entry");
        let header = entry.header().clone();
        made.append(&header, entry).expect("appends");
    }
    let mut header = tar::Header::new_gnu();
    // The safe way refuses such names.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    if let Some(target) = target {
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    }
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    made.append(&header, std::io::empty()).expect("appends");
    made.into_inner().expect("bytes")
}

#[test]
fn damage_to_an_archive_is_named() {
    let shop = Shop::new();
    let packed = shop.made("bundle.tar.gz");
    let bytes = unpacked(&packed);

    let cut = shop.place("cut.tar.gz");
    let whole = fs::read(&packed).expect("reads");
    for length in [whole.len() / 2, whole.len() - 4] {
        fs::write(&cut, &whole[..length]).expect("writes");
        assert_found(&cut, &["the archive is damaged"]);
    }
    let mut more = whole.clone();
    more.extend_from_slice(b"more");
    fs::write(&cut, more).expect("writes");
    assert_found(&cut, &["there is more behind its end"]);
    change(&packed, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    assert_found(&packed, &["BROKEN"]);

    let hostile = shop.place("hostile.tar");
    let regular = tar::EntryType::Regular;
    for (path, kind, target, words) in [
        ("forebay/../../escaped", regular, None, "\"forebay/../../escaped\" is not a plain path"),
        ("/escaped", regular, None, "\"/escaped\" is not a plain path"),
        ("elsewhere/a", regular, None, "\"elsewhere/a\" is not a plain path"),
        ("forebay/lib/extra.so", regular, None, "lib/extra.so is there and not listed"),
        ("forebay/LICENSE", regular, None, "LICENSE is there twice"),
        ("forebay/docs/x", tar::EntryType::Symlink, Some("/etc"), "docs/x is a link to /etc"),
        ("forebay/docs/x", tar::EntryType::Link, Some("/etc/a"), "docs/x is a link to /etc/a"),
        ("forebay/docs/x", tar::EntryType::Fifo, None, "docs/x is there twice, or no file"),
    ] {
        fs::write(&hostile, with_entry(&bytes, path, kind, target)).expect("writes");
        assert_found(&hostile, &[words]);
    }
    File::create(&hostile).and_then(|mut file| file.write_all(b"no archive")).expect("writes");
    assert_found(&hostile, &["the archive is damaged"]);
}
