//! The row that the fake worker gives for token ids: the same in the worker and in the tests, so
//! that a wrong, swapped or stale row shows at once.

/// A unit row of `width` values and the length it pretends to have had.
pub(crate) fn row(ids: &[u32], width: usize) -> (Vec<f32>, f32) {
    let mut state = ids
        .iter()
        .fold(0x9e37_79b9_7f4a_7c15_u64, |state, &id| mix(state ^ u64::from(id).wrapping_add(1)));
    let mut unit: Vec<f32> = (0..width)
        .map(|_| {
            state = mix(state);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect();
    let length = unit.iter().map(|value| value * value).sum::<f32>().sqrt();
    unit.iter_mut().for_each(|value| *value /= length);
    (unit, length)
}

/// One step of the splitmix64 generator.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
