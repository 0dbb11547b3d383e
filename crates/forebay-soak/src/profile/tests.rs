//! The profiles of the program make sense, and what makes none is named.

use super::*;

#[test]
fn the_profiles_of_the_program_make_sense() {
    for (name, _) in PROFILES {
        let profile = Profile::load(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(profile.name, name);
        let faults = profile.faults.expect("faults");
        // What a device computes wrongly unnoticed is a known limit and no surprise.
        assert!(!faults.kinds.iter().any(|kind| kind == "flip_weight_bit"), "{name}");
        assert!(profile.quiet_s >= faults.heal_within_s, "{name}");
    }
}

#[test]
fn every_file_of_the_folder_is_a_profile() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/soak");
    let files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > PROFILES.len());
    for file in files {
        Profile::load(&file.display().to_string()).unwrap();
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    let smoke = PROFILES[0].1;
    for (from, to, word) in [
        ("duration_s", "duration_x", "duration_x"),
        ("scenario = \"soak\"", "scenario = \"bath\"", "bath"),
        ("\"kill\"", "\"kil\"", "kil"),
        ("quiet_s = ", "quiet_s = 1e9 #", "quiet_s"),
        ("kind = \"poisson\"", "kind = \"fish\"", "fish"),
    ] {
        assert!(smoke.contains(from), "{from}");
        let error = Profile::parse("x", &smoke.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(Profile::load("no-such-profile").unwrap_err().to_string().contains("smoke"));
}
