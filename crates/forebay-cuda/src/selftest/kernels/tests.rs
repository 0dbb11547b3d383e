//! The checks pass an exact executor and find every mistake of a wrong one.

use forebay_model::{Activation, PoolingMode};

use super::super::fake::{Fake, Mistake};
use super::super::report::Item;
use super::*;

const SHAPE: Shape = Shape {
    hidden: 16,
    heads: 2,
    intermediate: 32,
    activation: Activation::GeluErf,
    layer_norm_eps: 1e-12,
    positions: 40,
    pooling: PoolingMode::Mean,
};

fn run_all(mistake: Mistake, dtype: Dtype, quick: bool) -> Vec<Item> {
    let scope = Scope { shape: &SHAPE, dtype, quick };
    let mut fake = Fake::new(mistake, &SHAPE, dtype);
    super::super::check_all(scope, &mut fake).unwrap()
}

#[test]
fn an_exact_executor_passes_every_check() {
    for dtype in [Dtype::F16, Dtype::BF16] {
        let items = run_all(Mistake::None, dtype, true);
        assert_eq!(items.len(), 4 + 1 + 2 + 4, "{items:?}");
        for item in items {
            assert!(item.passed && item.max_error <= item.tolerance, "{item:?}");
        }
    }
}

#[test]
fn an_exact_executor_passes_the_full_run_of_a_small_model() {
    for item in run_all(Mistake::None, Dtype::F16, false) {
        assert!(item.passed && item.max_error <= item.tolerance, "{item:?}");
    }
}

/// Every check but those excused by name finds the mistake, and says so with one of `hint`.
#[track_caller]
fn found(mistake: Mistake, hint: &str, excused: &[&str]) {
    for dtype in [Dtype::F16, Dtype::BF16] {
        for item in run_all(mistake, dtype, true) {
            let excused = excused.iter().any(|name| item.name.starts_with(name));
            assert_eq!(item.passed, excused, "{mistake:?}: {item:?}");
            let told = hint.split('|').any(|hint| item.detail.contains(hint));
            assert!(excused || told, "{mistake:?}: {item:?}");
        }
    }
}

#[test]
fn a_missing_row_is_found() {
    // A kernel that works in place shows it by the value that it left.
    found(Mistake::LastRowMissing, "was not written|are wrong", &[]);
}

#[test]
fn a_row_too_many_is_found_where_tiles_are_no_excuse() {
    found(Mistake::OneRowTooMany, "was written", &["cublaslt"]);
}

#[test]
fn a_row_in_front_of_the_buffer_is_found() {
    found(Mistake::RowInFront, "row -1 column 0 was written", &[]);
}

#[test]
fn reading_the_next_row_is_found() {
    found(Mistake::ReadsNextRow, "", &[]);
}

#[test]
fn imprecise_results_are_found() {
    found(Mistake::Imprecise, "are wrong", &[]);
}

#[test]
fn bits_that_depend_on_the_company_are_found() {
    for item in run_all(Mistake::DependsOnPlace, Dtype::F16, true) {
        // cublasLt is not asked for it; what it computes is still compared.
        let asked = !item.name.starts_with("cublaslt");
        assert_eq!(item.detail.contains("has bits"), asked, "{item:?}");
    }
}

#[test]
fn bits_that_change_between_runs_are_found() {
    found(Mistake::DependsOnTime, "the same run again", &[]);
}

#[test]
fn a_wrong_constant_is_found() {
    found(Mistake::Constant, "are wrong", &[]);
}
