//! Each kind of error, word for word.

use std::path::PathBuf;

use super::*;

/// Every problem of `text`, one per line, as people see it.
fn problems(text: &str) -> String {
    Config::from_toml(text, "f.toml").expect_err("accepted").to_string()
}

/// Every problem with these variables.
fn variable_problems(variables: &[(&str, &str)]) -> String {
    with_variables("", variables).expect_err("accepted").to_string()
}

pub(super) fn with_variables(
    text: &str,
    variables: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    Config::from_toml_and_env(text, "f.toml", variables.iter().copied())
}

#[test]
fn values_out_of_range_name_place_key_and_range() {
    assert_eq!(
        problems("# ü\n[batch]\n  tokens_max = 0\n"),
        "f.toml:3:16: `batch.tokens_max` is 0; allowed: 64 to 1048576 tokens"
    );
    assert_eq!(
        problems("[batch]\ntokens_max = 99999999999999999999\n"),
        "f.toml:2:14: `batch.tokens_max` is 99999999999999999999; allowed: 64 to 1048576 tokens"
    );
    assert_eq!(
        problems("[batch]\ntokens_max = \"many\"\n"),
        "f.toml:2:14: `batch.tokens_max` is a string (\"many\"); allowed: 64 to 1048576 tokens"
    );
    assert_eq!(
        problems("[model]\nprecision = 'fp32'\n"),
        "f.toml:2:13: `model.precision` is \"fp32\"; allowed: \"f32\" or \"int8\""
    );
    assert_eq!(
        problems("[reply]\nnorm_tolerance = nan\n"),
        "f.toml:2:18: `reply.norm_tolerance` is nan; allowed: 0.000001 to 0.1"
    );
    assert_eq!(
        problems("devices.rungs = ['cpu', 'gpu:0']\n"),
        "f.toml:1:17: `devices.rungs` is a list with \"gpu:0\" in it; \
         allowed: \"auto\" or a list such as [\"cuda:0\", \"cpu\"]"
    );
    assert_eq!(
        problems("devices.rungs = ['cpu', 'cpu']\n"),
        "f.toml:1:17: `devices.rungs` is a list with \"cpu\" twice; \
         allowed: \"auto\" or a list such as [\"cuda:0\", \"cpu\"]"
    );
    assert_eq!(
        problems("supervisor.quarantine_probe_ms = [500, 5]\n"),
        "f.toml:1:34: `supervisor.quarantine_probe_ms` is a list with 5 in it; \
         allowed: a list of 1 to 16 numbers, each 100 to 86400000 ms"
    );
    assert_eq!(
        problems("log.level = 2020-01-01\n"),
        "f.toml:1:13: `log.level` is a datetime; \
         allowed: \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\""
    );
}

#[test]
fn unknown_names_offer_the_nearest() {
    assert_eq!(
        problems("[batch]\ntoken_max = 4096\n"),
        "f.toml:2:1: unknown key `batch.token_max`; did you mean `batch.tokens_max`?"
    );
    assert_eq!(
        problems("[batch]\nthreads = 2\n"),
        "f.toml:2:1: unknown key `batch.threads`; did you mean `tokenize.threads` or \
         `server.threads`?"
    );
    assert_eq!(
        problems("[shutdown]\ncolour = 'red'\n"),
        "f.toml:2:1: unknown key `shutdown.colour`; [shutdown] has drain_ms"
    );
    assert_eq!(problems("[bacth]\n"), "f.toml:1:2: unknown group [bacth]; did you mean [batch]?");
    let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    assert_eq!(
        problems("[proxies]\n"),
        format!("f.toml:1:2: unknown group [proxies]; there are {}", names.join(", "))
    );
    assert_eq!(
        problems("tokens_max = 4096\n"),
        "f.toml:1:1: `tokens_max` stands outside of its group; did you mean `cuda.tokens_max` or \
         `batch.tokens_max`?"
    );
    assert_eq!(problems("x = 1\n"), "f.toml:1:1: unknown key `x` outside of any group");
    assert_eq!(
        problems("batch = 7\n"),
        "f.toml:1:1: `batch` is an integer, but it is a group; write [batch] and its keys below"
    );
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    assert_eq!(
        problems("[worker]\nslots = 1\n[batch]\nrow_max = 3\ntokens_min = 128\ntokens_max = 64\n"),
        "f.toml:2:9: `worker.slots` is 1; allowed: 2 to 16 slots\n\
         f.toml:4:1: unknown key `batch.row_max`; did you mean `batch.rows_max`?\n\
         f.toml:5:14: `batch.tokens_min` is 128 and `batch.tokens_max` is 64; \
         the first must not be larger: batches shrink from the one to the other"
    );
}

#[test]
fn keys_that_contradict_each_other_point_at_the_one_that_was_set() {
    assert_eq!(
        problems("[tokenize]\ntext_bytes_max = 5000000\n"),
        "f.toml:2:18: `tokenize.text_bytes_max` is 5000000 and \
         `admission.control_text_bytes_queued_max` is 4194304; the first must not be larger: \
         the longest text could never be accepted"
    );
    assert_eq!(
        problems("[supervisor]\nbackoff_max_ms = 100\n"),
        "f.toml:2:18: `supervisor.backoff_min_ms` is 200 and `supervisor.backoff_max_ms` is 100; \
         the first must not be larger: the wait grows from the one to the other"
    );
    assert_eq!(
        problems("[supervisor]\nquarantine_probe_ms = [500, 400]\n"),
        "f.toml:2:23: `supervisor.quarantine_probe_ms` goes from 500 down to 400 ms; \
         waits must not become shorter"
    );
}

#[test]
fn a_bad_value_does_not_also_contradict_another() {
    assert_eq!(
        problems("[batch]\ntokens_min = 60000\ntokens_max = 1\n"),
        "f.toml:3:14: `batch.tokens_max` is 1; allowed: 64 to 1048576 tokens"
    );
}

#[test]
fn syntax_errors_are_all_placed() {
    let text = problems("[batch]\ntokens_max = = 3\n[log]\nlevel = 'info'\nlevel = 'warn'\n");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("f.toml:2:14: not valid TOML: "), "{text}");
    assert_eq!(*lines.last().expect("a line"), "f.toml:5:1: not valid TOML: duplicate key");
}

#[test]
fn variables_override_the_file() {
    let config = with_variables(
        "[batch]\ntokens_max = 2048\nrows_max = 7\n",
        &[
            ("FOREBAY_BATCH__TOKENS_MAX", " 4_096 "),
            ("FOREBAY_MODEL__PRECISION", "int8"),
            ("FOREBAY_MODEL__PATH", "models/a b"),
            ("FOREBAY_DEVICES__RUNGS", "cuda:1, cpu"),
            ("FOREBAY_TOKENIZE__TRUNCATE", "false"),
            ("FOREBAY_SUPERVISOR__QUARANTINE_PROBE_MS", "[100, 200]"),
            ("FOREBAY_WORKER", "not a setting"),
            ("forebay_batch__tokens_max", "not ours"),
            ("PATH", "/bin"),
        ],
    )
    .expect("valid");
    assert_eq!((config.batch.tokens_max, config.batch.rows_max), (4096, 7));
    assert_eq!(config.model.precision, Precision::Int8);
    assert_eq!(config.model.path, PathBuf::from("models/a b"));
    assert_eq!(config.devices.rungs, Rungs::Listed(vec![Device::Cuda(1), Device::Cpu]));
    assert!(!config.tokenize.truncate);
    assert_eq!(config.supervisor.quarantine_probe_ms, [100, 200]);
}

#[test]
fn bad_variables_are_named() {
    assert_eq!(
        variable_problems(&[("FOREBAY_BATCH__TOKEN_MAX", "1")]),
        "environment variable FOREBAY_BATCH__TOKEN_MAX: unknown key `batch.token_max`; \
         did you mean `batch.tokens_max`?"
    );
    assert_eq!(
        variable_problems(&[("FOREBAY_BATHC__TOKENS_MAX", "1")]),
        "environment variable FOREBAY_BATHC__TOKENS_MAX: unknown group [bathc]; \
         did you mean [batch]?"
    );
    assert_eq!(
        variable_problems(&[
            ("FOREBAY_WORKER__SLOTS", "99"),
            ("FOREBAY_BATCH__TOKENS_MAX", "4096 # tokens\n[log]"),
        ]),
        "environment variable FOREBAY_BATCH__TOKENS_MAX: `batch.tokens_max` is \
         \"4096 # tokens\\n[log]\"; allowed: 64 to 1048576 tokens\n\
         environment variable FOREBAY_WORKER__SLOTS: `worker.slots` is 99; allowed: 2 to 16 slots"
    );
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("f.toml");
    let name = path.display();
    let error = Config::load(&path).expect_err("no file").to_string();
    assert!(error.starts_with(&format!("{name}: cannot read the configuration: ")), "{error}");
    std::fs::write(&path, b"[batch]\n# \xff\n").expect("written");
    assert_eq!(
        Config::load(&path).expect_err("not text").to_string(),
        format!("{name}:2: the text is not UTF-8; save the file as UTF-8")
    );
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("written");
    assert_eq!(
        Config::load(&path).expect_err("too large").to_string(),
        format!(
            "{name}: the file has 1048577 bytes, more than the 1048576 that a configuration may \
             have; check the path"
        )
    );
}

#[test]
fn configurations_built_in_code_are_checked_too() {
    let mut config = Config::default();
    config.worker.slots = 17;
    config.batch.tokens_min = 20_000;
    let error = config.validate().expect_err("out of range");
    assert_eq!(
        error.to_string(),
        "configuration: `worker.slots` is 17; allowed: 2 to 16 slots\n\
         configuration: `batch.tokens_min` is 20000 and `batch.tokens_max` is 16384; \
         the first must not be larger: batches shrink from the one to the other"
    );
}
