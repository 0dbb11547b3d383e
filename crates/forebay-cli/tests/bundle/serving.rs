//! A bundle serves where nothing but itself can help it.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::{Connection, vector};
use crate::support::tiny::{WIDTH, text};
use crate::support::{FOREBAY, eventually, exit_code, kill, output};
use crate::{Shop, doctor, said};

/// The same text through the program that made the bundle.
fn embedded_outside(model: &Path, text: &str) -> Vec<f32> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (input, result) = (folder.path().join("texts"), folder.path().join("rows.npy"));
    std::fs::write(&input, format!("{text}\n")).expect("writes");
    let mut command = crate::support::forebay(&["embed", "--model", &model.display().to_string()]);
    command.arg("--input").arg(input).arg("--output").arg(&result);
    let output = output(&mut command);
    assert!(output.status.success(), "{}", said(&output));
    let bytes = std::fs::read(result).expect("rows");
    let (values, _) = bytes[bytes.len() - 4 * WIDTH..].as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

#[test]
fn a_bundle_is_sound_and_serves_from_anywhere() {
    let shop = Shop::new();
    let archive = shop.made("bundle.tar.gz");
    let (code, report) = doctor(&archive);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("loaded by a worker, and a text embedded"), "{report}");

    let elsewhere = tempfile::tempdir().expect("temporary folder");
    let unpack =
        output(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(elsewhere.path()));
    assert!(unpack.status.success(), "{}", said(&unpack));
    let bundle = elsewhere.path().join("forebay");
    let (socket, program) = (elsewhere.path().join("socket"), bundle.join("bin/forebay"));
    // The original's library and model must not be what is found.
    let kept = shop.model.path().to_owned();
    let expected = embedded_outside(&kept, &text(3));
    std::fs::rename(&kept, shop.place("model-away")).expect("renames");

    let ready = || {
        let mut command = Command::new(FOREBAY);
        output(command.env_clear().args(["ready", "--socket"]).arg(&socket)).status.code()
    };
    assert_eq!(ready(), Some(69), "nobody is there yet");
    let mut daemon = Command::new(&program)
        .env_clear()
        .current_dir("/")
        .arg("serve")
        .arg("--config")
        .arg(bundle.join("forebay.toml"))
        .arg("--socket")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut connection = eventually("the daemon", || {
        assert_eq!(daemon.try_wait().expect("a child"), None, "the daemon has ended");
        Connection::unix(&socket).ok()
    });
    let answer = connection.embed(&text(3)).expect("answers");
    assert_eq!(vector(&answer), expected);
    assert_eq!(ready(), Some(0));
    kill(daemon.id(), Signal::TERM);
    assert_eq!(exit_code(&mut daemon), Some(0));
    std::fs::rename(shop.place("model-away"), kept).expect("renames");
}
