//! Notes of texts: nested in time, bounded in number, with nothing lost of their counts.

use forebay::TextTimes;
use proptest::prelude::*;

use super::*;

fn trace() -> RequestTrace {
    let request = Request::post("/embed").body(()).expect("a request");
    RequestTrace::new(&request, "id", TraceId::random(), None)
}

fn row(tokens: usize, times: TextTimes) -> Embedding {
    Embedding { vector: vec![1.0], tokens, tokens_before_cut: tokens, times }
}

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// A text that was tokenized from `wait` to `wait + tokenize`, sent at `sent` and took `infer`.
fn times([wait, tokenize, rest, infer]: [u64; 4], batch_tokens: usize) -> TextTimes {
    TextTimes {
        tokenize: us(tokenize),
        queue: us(wait + rest),
        infer: us(infer),
        total: us(wait + tokenize + rest + infer + 1),
        until_tokenized: us(wait + tokenize),
        batch_texts: 3,
        batch_tokens,
    }
}

proptest! {
    #[test]
    fn spans_are_bounded_nested_and_count_every_text(
        texts in proptest::collection::vec(([0_u64..50, 0_u64..50, 0_u64..50, 1_u64..50], 1_usize..9), 1..200),
    ) {
        let trace = trace();
        let submitted_at = Instant::now();
        let rows: Vec<Embedding> =
            texts.iter().map(|(parts, tokens)| row(*tokens, times(*parts, 10))).collect();
        trace.texts(submitted_at, &rows);
        let notes = trace.finish();
        prop_assert!(notes.spans() <= 3 + BATCH_SPANS_MAX);
        let tokens: usize = texts.iter().map(|(_, tokens)| tokens).sum();
        prop_assert_eq!((notes.texts, notes.tokens), (texts.len(), tokens));
        let [tokenize, queue] = [notes.tokenize, notes.queue].map(|window| window.expect("noted"));
        let runs = || notes.batches.iter().map(|run| run.window);
        prop_assert_eq!(runs().map(|run| run.texts).sum::<usize>(), texts.len());
        prop_assert_eq!(runs().map(|run| run.tokens).sum::<usize>(), tokens);
        prop_assert_eq!((tokenize.texts, queue.tokens), (texts.len(), tokens));
        prop_assert!(tokenize.from >= submitted_at && tokenize.from <= tokenize.to);
        prop_assert_eq!(queue.to, runs().map(|run| run.from).max().unwrap().max(queue.to));
        let last = rows.iter().map(|row| submitted_at + row.times.total).max().expect("one");
        for window in runs().chain([tokenize, queue]) {
            prop_assert!(window.from <= window.to && window.to <= last);
        }
    }
}

#[test]
fn texts_of_one_batch_share_a_span_and_others_do_not() {
    let trace = trace();
    let at = Instant::now();
    // Both were sent 30 µs after they were submitted, whatever they did before.
    trace.texts(at, &[row(4, times([0, 10, 20, 9], 10)), row(6, times([5, 5, 20, 9], 10))]);
    trace.texts(at, &[row(2, times([0, 10, 70, 9], 2))]);
    let notes = trace.finish();
    let found: Vec<_> = notes.batches.iter().map(|run| (run.window.texts, run.shared)).collect();
    assert_eq!(found, [(2, false), (1, false)]);
    assert_eq!(notes.batches[0].window.from, at + us(30));
    assert_eq!(notes.batches[0].window.to, at + us(39));
    let queue = notes.queue.expect("noted");
    assert_eq!((queue.from, queue.to), (at + us(10), at + us(80)));
}

#[test]
fn what_is_beyond_the_bound_shares_the_last_span() {
    let trace = trace();
    let sent = |nth| row(1, times([0, 0, nth, 5], 1));
    let texts = BATCH_SPANS_MAX as u64 + 7;
    trace.texts(Instant::now(), &(0..texts).map(sent).collect::<Vec<_>>());
    let batches = trace.finish().batches;
    let last = batches.last().expect("some");
    assert_eq!((batches.len(), last.window.texts, last.shared), (BATCH_SPANS_MAX, 8, true));
    assert!(batches.iter().rev().skip(1).all(|run| !run.shared && run.window.texts == 1));
}

#[test]
fn a_method_is_a_known_word() {
    assert_eq!(method(&Method::POST), "POST");
    assert_eq!(method(&Method::from_bytes(b"SECRET").expect("a method")), "_OTHER");
}

#[tokio::test]
async fn a_task_has_the_trace_it_answers_and_no_other() {
    let trace = trace();
    let inside =
        scoped(Some(trace.clone()), async { current().map(|trace| trace.finish().span_id) });
    assert_eq!(inside.await, Some(trace.finish().span_id));
    assert!(scoped(None, async { current().is_none() }).await);
}
