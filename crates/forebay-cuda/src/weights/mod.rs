//! A model's weights on their way to the device: which models are supported, in which precision,
//! where each tensor goes, and the copy itself.

mod convert;
mod flip;
mod geometry;
mod map;
mod precision;
mod upload;

pub(crate) use flip::worst_flip;
pub use geometry::{Geometry, GeometryError, INTERMEDIATE_STEP, ROW_TOKENS_MAX};
pub(crate) use map::{LayerAt, LinearAt, NormAt, WeightsMap};
pub(crate) use precision::{F16_LIMIT, largest_16};
pub(crate) use upload::DeviceWeights;

#[cfg(test)]
pub(crate) use geometry::tests::mini as mini_geometry;
