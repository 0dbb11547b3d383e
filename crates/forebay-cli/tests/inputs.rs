//! What may be embedded and what is said about it: texts and token ids, the end that is cut, the
//! times of each text, and the tokenizer by itself. Over a real worker process that computes a known
//! row from the ids it is given.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::time::Instant;

use forebay::{EmbedError, EmbedInput, EmbedOptions, Embedding, Ready, ReadyReason, Token};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::script::Script;
use support::tiny::{BAD_ID, TOKENS_MAX, TinyModel, expected, ids, text};
use support::{GENEROUS, assert_right, eventually, fake_config, real_config, real_model, start};

fn bits(embedding: &Embedding) -> Vec<u32> {
    embedding.vector.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn ids_give_the_same_bits_as_their_text() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    let words = proptest::collection::vec(0_u32..500, 1..TOKENS_MAX - 2);
    TestRunner::new(ProptestConfig::with_cases(200))
        .run(&words, |words| {
            let words: Vec<String> = words.iter().map(|word| format!("w{word}")).collect();
            let text = words.join(" ");
            let inputs = vec![EmbedInput::from(&text), EmbedInput::from(ids(&text))];
            let results = runtime.embed_batch(inputs, &EmbedOptions::default()).expect("accepted");
            let [as_text, as_ids] = [0, 1].map(|i| results[i].as_ref().expect("embedded"));
            prop_assert_eq!(bits(as_text), bits(as_ids));
            prop_assert_eq!(as_text, as_ids);
            prop_assert_eq!(&as_ids.vector, &expected(&text));
            Ok(())
        })
        .expect("they are the same");
    assert!(runtime.shutdown().drained);
}

#[test]
fn ids_give_the_same_bits_as_their_text_on_the_real_model() {
    let runtime = start(real_config(&real_model()));
    let options = EmbedOptions::default();
    for text in ["The brake pressure is low.", "Ünïcode — 東京", ""] {
        let tokens = runtime.tokenizer().tokenize(text, true).expect("tokenized");
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let as_text = runtime.embed(text, &options).expect("embedded");
        let as_ids = runtime.embed(ids, &options).expect("embedded");
        assert_eq!(bits(&as_text), bits(&as_ids), "{text:?}");
        assert_eq!(as_text, as_ids);
    }
    assert!(runtime.shutdown().drained);
}

#[test]
fn ids_that_the_model_does_not_have_or_take_are_refused_and_cost_nothing() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    // That texts may be cut means nothing for ids: they are taken as they are.
    let options = EmbedOptions { truncate: Some(true), ..EmbedOptions::default() };
    let vocab = BAD_ID as usize + 1;
    assert_eq!(runtime.model().vocab, vocab);
    let refused = [
        (vec![2, BAD_ID + 1, 3], EmbedError::TokenId { id: BAD_ID + 1, vocab }),
        (vec![u32::MAX], EmbedError::TokenId { id: u32::MAX, vocab }),
        (Vec::new(), EmbedError::NoTokens),
        (
            vec![5; TOKENS_MAX + 1],
            EmbedError::TooManyTokens { tokens: TOKENS_MAX + 1, tokens_max: TOKENS_MAX },
        ),
    ];
    for (ids, error) in &refused {
        assert_eq!(runtime.embed(ids.clone(), &options).as_ref(), Err(error));
        assert_eq!(runtime.try_submit(ids.clone(), &options).expect_err("refused"), *error);
    }
    // In company each has its own error, and the others their rows.
    let mut inputs: Vec<EmbedInput> = refused.iter().map(|(ids, _)| ids.clone().into()).collect();
    inputs.insert(2, "w1 w2".into());
    let mut results = runtime.embed_batch(inputs, &options).expect("accepted");
    assert_right("w1 w2", &results.remove(2));
    for (result, (_, error)) in results.iter().zip(&refused) {
        assert_eq!(result.as_ref(), Err(error));
    }
    // Exactly as many as it takes are none too many, and the last id of the vocabulary is one.
    let full = runtime.embed(vec![BAD_ID; TOKENS_MAX], &options).expect("embedded");
    assert_eq!((full.tokens, full.truncated()), (TOKENS_MAX, false));
    assert_eq!(runtime.rates().under_way, [0; 3]);
    assert!(runtime.shutdown().drained);
}

#[test]
fn a_text_is_cut_at_the_end_that_is_asked_for() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    let words: Vec<String> = (0..40).map(|word| format!("w{word}")).collect();
    let long = words.join(" ");
    for (truncate_left, kept) in [(false, &words[..30]), (true, &words[10..])] {
        let options = EmbedOptions { truncate_left, ..EmbedOptions::default() };
        let cut = runtime.embed(&long, &options).expect("embedded");
        assert_eq!(cut.vector, expected(&kept.join(" ")), "{truncate_left}");
        assert_eq!((cut.tokens, cut.tokens_before_cut), (TOKENS_MAX, 42));
        let short = runtime.embed("w1 w2", &options);
        assert_right("w1 w2", &short);
    }
    assert!(runtime.shutdown().drained);
}

#[test]
fn the_times_of_a_text_add_up_to_no_more_than_it_took() {
    let delay_us = 3_000;
    let model = TinyModel::scripted(&Script { delay_us, ..Script::default() });
    let runtime = start(fake_config(model.path()));
    let inputs: Vec<EmbedInput> = (0..300)
        .map(|number| match number % 3 {
            0 => EmbedInput::Ids(ids(&text(number))),
            _ => EmbedInput::Text(text(number)),
        })
        .collect();
    let begun = Instant::now();
    let results = runtime.embed_batch(inputs, &EmbedOptions::bulk()).expect("accepted");
    let took = begun.elapsed();
    let mut waited = 0;
    for result in &results {
        let times = result.as_ref().expect("embedded").times;
        assert!(times.tokenize + times.queue + times.infer <= times.total, "{times:?}");
        assert!(times.total <= took, "{times:?} of {took:?}");
        assert!(times.infer.as_micros() >= delay_us.into(), "{times:?}");
        // Whoever is not in the first batches waits for them.
        waited += usize::from(times.queue.as_micros() >= delay_us.into());
    }
    assert!(waited > 100, "{waited} of 300 waited for a batch before theirs");
    assert!(runtime.shutdown().drained);
}

#[test]
fn the_tokenizer_says_where_tokens_stand_and_what_ids_mean() {
    let runtime = start(real_config(&real_model()));
    let tokenizer = runtime.tokenizer();
    let text = "Größe: embeddings!";
    let tokens = tokenizer.tokenize(text, true).expect("tokenized");
    let special = |id, text: &str| Token {
        id,
        text: text.to_owned(),
        special: true,
        start: None,
        stop: None,
    };
    assert_eq!(tokens.first(), Some(&special(101, "[CLS]")));
    assert_eq!(tokens.last(), Some(&special(102, "[SEP]")));
    let plain = tokenizer.tokenize(text, false).expect("tokenized");
    assert_eq!(plain, tokens[1..tokens.len() - 1]);
    let chars: Vec<char> = text.chars().collect();
    for token in &plain {
        let (start, stop) = (token.start.expect("placed"), token.stop.expect("placed"));
        assert_eq!(token.text, chars[start..stop].iter().collect::<String>());
    }
    let joined: String = plain.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(joined, "Größe:embeddings!", "every letter belongs to a token");
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    assert_eq!(tokenizer.decode(&ids, true).expect("decoded"), "große : embeddings!");
    let with_special = tokenizer.decode(&ids, false).expect("decoded");
    assert!(with_special.starts_with("[CLS]") && with_special.ends_with("[SEP]"));
    // One of the few characters that the two tokenizers split differently: no places, same ids.
    let rare = tokenizer.tokenize("a\u{2e52}b", false).expect("tokenized");
    assert!(rare.iter().all(|token| token.start.is_none() && !token.text.is_empty()), "{rare:?}");
    let vocab = runtime.model().vocab;
    let beyond = tokenizer.decode(&[101, vocab as u32], true).expect_err("no such id");
    assert_eq!(beyond, EmbedError::TokenId { id: vocab as u32, vocab });
    assert!(runtime.shutdown().drained);
}

#[test]
fn it_is_ready_while_it_serves_and_has_room() {
    let model = TinyModel::new();
    let mut config = fake_config(model.path());
    config.admission.interactive_requests_max = 2;
    let runtime = start(config);
    let serving = Ready { ready: true, reason: ReadyReason::Serving };
    assert_eq!(runtime.is_ready(), serving);
    let hold = model.hold();
    let options = EmbedOptions::default();
    let tickets = ["w1", "w2"].map(|text| runtime.submit(text, &options).expect("room"));
    assert_eq!(runtime.is_ready().reason, ReadyReason::Full);
    assert_eq!((runtime.rates().under_way, runtime.rates().limits[1]), ([0, 2, 0], 2));
    drop(hold);
    for ticket in tickets {
        ticket.wait(Some(GENEROUS)).expect("answered").expect("embedded");
    }
    assert_eq!(runtime.is_ready(), serving);
    let rates = eventually("a measured rate", || {
        Some(runtime.rates()).filter(|rates| rates.texts_per_s > 0.0)
    });
    // Texts of these lengths have three tokens each.
    assert!((rates.tokens_per_s / rates.texts_per_s - 3.0).abs() < 0.01, "{rates:?}");
    assert!(runtime.shutdown().drained);
}
