//! Arbitrary text never panics, and what is shown reads back.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::messages::with_variables;
use super::*;

/// A value for `key`, mostly allowed.
fn any_value(allowed: Allowed) -> BoxedStrategy<String> {
    match allowed {
        Allowed::Integer(low, high) => (low..=high).prop_map(|n| n.to_string()).boxed(),
        Allowed::Number(low, high) => (low..=high).prop_map(|n| n.to_string()).boxed(),
        Allowed::Switch => any::<bool>().prop_map(|on| on.to_string()).boxed(),
        Allowed::Choice(words) => {
            proptest::sample::select(words).prop_map(|word| format!("\"{word}\"")).boxed()
        }
        Allowed::Path(_) | Allowed::PathOr(..) => "[a-z \"'\\\\é#=\\[]{0,12}"
            .prop_map(|path| toml::Value::String(path).to_string())
            .boxed(),
        Allowed::Name(_) => {
            "[a-zé\"'\\\\#=]{0,12}".prop_map(|name| toml::Value::String(name).to_string()).boxed()
        }
        Allowed::NameList(count) => proptest::collection::vec("[a-z\"'é]{1,12}", 0..=count)
            .prop_map(|names| toml::Value::from(names).to_string())
            .boxed(),
        Allowed::HashList(count) => proptest::collection::vec("[0-9a-fA-F]{64}", 0..=count)
            .prop_map(|sums| toml::Value::from(sums).to_string())
            .boxed(),
        Allowed::Address(_) => any::<Option<std::net::SocketAddrV4>>()
            .prop_map(|to| format!("'{}'", to.map(|to| to.to_string()).unwrap_or_default()))
            .boxed(),
        Allowed::Url(_) => "(http://[a-z0-9.]{1,12}(:[1-9][0-9]{0,3})?(/[a-z/]{0,6})?)?"
            .prop_map(|url| format!("'{url}'"))
            .boxed(),
        Allowed::Rungs => (0u32..64).prop_map(|n| format!("[\"cuda:{n}\", \"cpu\"]")).boxed(),
        Allowed::PathList(count) => proptest::collection::vec("[a-z \"'é]{1,12}", 0..=count)
            .prop_map(|paths| toml::Value::from(paths).to_string())
            .boxed(),
        Allowed::IntegerList(count, low, high) => proptest::collection::vec(low..=high, 1..=count)
            .prop_map(|mut list| {
                list.sort_unstable();
                format!("{list:?}")
            })
            .boxed(),
    }
}

/// What a file sets: `(group, key, value)`, some of the keys, each with a value in its range.
fn any_settings() -> impl Strategy<Value = Vec<(&'static str, &'static str, String)>> {
    let keys = GROUPS.into_iter().flat_map(|group| group.keys.iter().map(move |key| (group, key)));
    keys.map(|(group, key)| {
        let value = proptest::option::of(any_value(key.allowed));
        value.prop_map(move |value| value.map(|value| (group.name, key.name, value)))
    })
    .collect::<Vec<_>>()
    .prop_map(|settings| settings.into_iter().flatten().collect())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        rng_seed: RngSeed::Fixed(20_260_101),
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn arbitrary_text_is_accepted_or_refused_in_words(text in any::<String>()) {
        if let Err(error) = Config::from_toml(&text, "f.toml") {
            prop_assert!(!error.problems.is_empty());
            prop_assert!(error.problems.iter().all(|problem| problem.line.is_some()));
        }
    }

    #[test]
    fn damaged_files_are_accepted_or_refused_in_words(
        at in any::<proptest::sample::Index>(),
        junk in "[\\[\\]{}=\",'.#\\n\\\\0-9a-zé\u{0}]{1,8}",
        cut in 0usize..40,
    ) {
        let mut chars: Vec<char> = Config::default().describe().chars().collect();
        let start = at.index(chars.len());
        let end = (start + cut).min(chars.len());
        chars.splice(start..end, junk.chars());
        if let Err(error) = Config::from_toml(&chars.into_iter().collect::<String>(), "f.toml") {
            prop_assert!(!error.problems.is_empty());
        }
    }

    #[test]
    fn arbitrary_variables_are_accepted_or_refused_in_words(
        key in "(BATCH|LOG|DEVICES|X|)__(TOKENS_MAX|LEVEL|RUNGS|_|)",
        value in any::<String>(),
    ) {
        let name = format!("FOREBAY_{key}");
        if let Err(error) = with_variables("", &[(&name, &value)]) {
            let start = format!("environment variable {name}: ");
            prop_assert!(error.to_string().starts_with(&start));
        }
    }

    #[test]
    fn describe_reads_back_as_the_same(mut settings in any_settings()) {
        let config = loop {
            let line = |(group, key, value): &(_, _, String)| format!("{group}.{key} = {value}\n");
            let text: String = settings.iter().map(line).collect();
            match Config::from_toml(&text, "f.toml") {
                Ok(config) => break config,
                // Values in range can still contradict each other, and only that; those go.
                Err(error) => {
                    prop_assert!(!error.to_string().contains("allowed:"), "{}", error);
                    let contradicts = |group: &str, key: &str| {
                        let full = format!("{group}.{key}");
                        error.problems.iter().any(|problem| problem.key == full)
                    };
                    let before = settings.len();
                    settings.retain(|(group, key, _)| !contradicts(group, key));
                    prop_assert!(settings.len() < before, "{}", error);
                }
            }
        };
        prop_assert_eq!(&Config::from_toml(&config.describe(), "shown").expect("valid"), &config);
        config.validate().expect("valid");
    }
}
